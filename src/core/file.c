/* file.c - files that are whole or absent */
#pragma once
