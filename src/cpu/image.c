/* image.c - OpenCV's bilinear resize, normalisation and padding */
#pragma once
