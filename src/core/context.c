/* context.c - gfl_context: creation, error text, logging, memory */
#pragma once
