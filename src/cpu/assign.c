/* assign.c - ATSS: which locations learn which box */
#pragma once
