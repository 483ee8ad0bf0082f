/* trainer.h - gfl_trainer as the implementation sees it */
#pragma once
