/* coco_eval.c - COCO's box evaluation: accumulate and summarise */
#pragma once
