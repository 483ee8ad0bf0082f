/* results.c - COCO result JSON in and out */
#pragma once
