/* exif.c - the orientation tag of EXIF */
#pragma once
