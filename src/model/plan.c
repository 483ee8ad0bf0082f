/* plan.c - compile an architecture for an input size into steps and memory, and run it */
#pragma once
