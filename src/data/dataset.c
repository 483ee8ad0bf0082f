/* dataset.c - gfl_dataset: access, summary */
#pragma once
