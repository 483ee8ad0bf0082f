/* blob.c - safetensors: reading and writing */
#pragma once
