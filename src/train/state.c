/* state.c - training state out and in: exact resume */
#pragma once
