/* status.c - names of the status codes, and the version */
#pragma once
