/* macros.h - names that hosts' own headers, and well-known ones, define as macros.  What stands for
 * each cannot be compiled, so that a use is seen.  The C library came first, as it does in a host:
 * its own headers do not survive some of these. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
/* <windows.h> */
#define far            ]far[
#define near           ]near[
#define small          ]small[
#define hyper          ]hyper[
#define interface      ]interface[
#define pascal         ]pascal[
#define cdecl          ]cdecl[
#define ERROR          ]ERROR[
#define IN             ]IN[
#define OUT            ]OUT[
#define OPTIONAL       ]OPTIONAL[
#define CONST          ]CONST[
#define VOID           ]VOID[
#define DELETE         ]DELETE[
#define STRICT         ]STRICT[
#define RGB            ]RGB[
#define min(a, b)      ]min[
#define max(a, b)      ]max[
/* Qt */
#define slots          ]slots[
#define signals        ]signals[
#define emit           ]emit[
#define foreach        ]foreach[
#define forever        ]forever[
/* <complex.h> */
#define I              ]I[
#define complex        ]complex[
#define imaginary      ]imaginary[
/* X11 */
#define Bool           ]Bool[
#define True           ]True[
#define False          ]False[
#define None           ]None[
#define Status         ]Status[
#define Success        ]Success[
#define Always         ]Always[
/* macOS, sys/sysmacros.h, termios.h, altivec.h, math.h of System V */
#define check(a)       ]check[
#define verify(a)      ]verify[
#define require(a, b)  ]require[
#define nil            ]nil[
#define major(a)       ]major[
#define minor(a)       ]minor[
#define makedev(a, b)  ]makedev[
#define B0             ]B0[
#define ECHO           ]ECHO[
#define vector         ]vector[
#define pixel          ]pixel[
#define DOMAIN         ]DOMAIN[
#define OVERFLOW       ]OVERFLOW[
/* what loggers and utilities are called */
#define log(...)       ]log[
#define debug(...)     ]debug[
#define trace(...)     ]trace[
#define info(...)      ]info[
#define warn(...)      ]warn[
#define error(...)     ]error[
#define fatal(...)     ]fatal[
#define abs(a)         ]abs[
#define round(a)       ]round[
#define floor(a)       ]floor[
#define ceil(a)        ]ceil[
#define exp(a)         ]exp[
#define pow(a, b)      ]pow[
#define sqrt(a)        ]sqrt[
#define swap(a, b)     ]swap[
#define clamp(a, b, c) ]clamp[
#define sq(a)          ]sq[
#define bit(a)         ]bit[
#define word(a)        ]word[
#define likely(a)      ]likely[
#define unlikely(a)    ]unlikely[
#define unused         ]unused[
#define packed         ]packed[
#define OK             ]OK[
#define FAIL           ]FAIL[
#define TRUE           ]TRUE[
#define FALSE          ]FALSE[
#define PI             ]PI[
#define MIN(a, b)      ]MIN[
#define MAX(a, b)      ]MAX[
#define ABS(a)         ]ABS[
#define SWAP(a, b)     ]SWAP[
#define CLAMP(a, b, c) ]CLAMP[
#define ASSERT(a)      ]ASSERT[
#define CHECK(a)       ]CHECK[
#define ARRAY_SIZE(a)  ]ARRAY_SIZE[
#define COUNT          ]COUNT[
#define LEN            ]LEN[
#define SIZE           ]SIZE[
#define WIDTH          ]WIDTH[
#define HEIGHT         ]HEIGHT[
#define STRING         ]STRING[
#define NUMBER         ]NUMBER[
#define KEY            ]KEY[
#define VALUE          ]VALUE[
#define TYPE           ]TYPE[
#define UNUSED         ]UNUSED[
#define INLINE         ]INLINE[
#define RESTRICT       ]RESTRICT[
#define EXPORT         ]EXPORT[
#define CPU            ]CPU[
#define GPU            ]GPU[
#define CUDA           ]CUDA[
#define DEBUG          ]DEBUG[
#define LOG            ]LOG[
#define INFO           ]INFO[
#define WARN           ]WARN[
/* finders of leaks: memory of the C library is theirs to follow */
#define malloc(n)      malloc(n)
#define free(p)        free(p)
/* single letters: template parameters, and Arduino's F() */
#define A              ]A[
#define B              ]B[
#define C              ]C[
#define D              ]D[
#define E              ]E[
#define F              ]F[
#define G              ]G[
#define H              ]H[
#define K              ]K[
#define L              ]L[
#define M              ]M[
#define N              ]N[
#define P              ]P[
#define Q              ]Q[
#define R              ]R[
#define S              ]S[
#define T              ]T[
#define U              ]U[
#define V              ]V[
#define W              ]W[
#define X              ]X[
#define Y              ]Y[
#define Z              ]Z[
