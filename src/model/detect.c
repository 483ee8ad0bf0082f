/* detect.c - gfl_detector: pixels in, boxes out */
#pragma once
