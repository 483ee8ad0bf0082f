/* nms.c - class-wise non-maximum suppression */
#pragma once
