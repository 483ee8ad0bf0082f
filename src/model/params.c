/* params.c - the parameters and layers of an architecture, and their initial values */
#pragma once
