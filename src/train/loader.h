/* loader.h - batches: sampling, augmentation, decoding ahead */
#pragma once
