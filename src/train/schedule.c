/* schedule.c - learning rate: warm-up and steps */
#pragma once
