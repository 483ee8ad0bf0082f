/* match.c - detections and ground truth of one image and class matched at ten thresholds */
#pragma once
