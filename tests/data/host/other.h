/* other.h - what else a host includes, and names that it has in GNU mode alone */
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

static inline double host_uses(char *path) {
    const int anonymous = MAP_ANONYMOUS;
    usleep(0);
    return M_PI + anonymous + (mkstemp(path) >= 0);
}
