/* save.c - weights out */
#pragma once
