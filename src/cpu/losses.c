/* losses.c - QFL, DFL and GIoU losses with their gradients */
#pragma once
