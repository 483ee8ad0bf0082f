/* os.c - the operating system: threads, clock, CPU features */
#pragma once
