/* dataset.h - gfl_dataset as the implementation sees it */
#pragma once
