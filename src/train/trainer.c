/* trainer.c - gfl_trainer: one step after another */
#pragma once
