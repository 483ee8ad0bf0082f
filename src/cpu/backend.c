/* backend.c - the CPU's table of inference operations */
#pragma once
