/* model.c - gfl_model: creation, packing, information */
#pragma once
