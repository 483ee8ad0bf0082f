/* coco.c - COCO annotations by a streaming reader */
#pragma once
