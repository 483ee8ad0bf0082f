/* loader.c - threads that decode and augment ahead */
#pragma once
