/* pool.c - max pooling and nearest upsampling */
#pragma once
