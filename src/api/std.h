/* std.h - the C headers that the public declarations need */
#pragma once
#include <stddef.h>
#include <stdint.h>
