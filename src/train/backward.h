/* backward.h - the backward pass over a plan */
#pragma once
