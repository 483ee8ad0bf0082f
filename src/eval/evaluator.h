/* evaluator.h - gfl_evaluator as the implementation sees it */
#pragma once
