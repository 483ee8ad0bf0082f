/* json.c - a pull parser for JSON of any size */
#pragma once
