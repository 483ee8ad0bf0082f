/* image.c - image files through stb_image, with our own checks */
#pragma once
