/* cmd_talk.c - messages and progress: everything here goes to stderr */
#include "cmd.h"
#include "cmd_os.h"
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

/* The one way of foreign text to a terminal: nothing in it is obeyed, and a line stays a line. */
static void show(FILE *f, const char *text, bool end) {
    char few[1024], *all = NULL, *out = few;
    const size_t need = gfl_text_show(text, few, sizeof few - 1);
    if (need + 2 > sizeof few) all = malloc(need + 2);
    if (all) {
        gfl_text_show(text, all, need + 1);
        out = all;
    }
    if (end) strcat(out, "\n");
    fputs(out, f);
    free(all);
}

/* A bar that stands on the last line of the terminal; whatever is said takes its place. */
static bool bar_drawn;

static void clear_bar(void) {
    if (bar_drawn) fputs("\r\033[K", stderr);
    bar_drawn = false;
}

static void say_list(FILE *f, const char *format, va_list args, bool end) {
    char few[1024] = "", *all = NULL;
    va_list again;
    clear_bar();
    va_copy(again, args);
    const int n = vsnprintf(few, sizeof few, format, args);
    if (n >= (int)sizeof few) all = malloc((size_t)n + 1);
    if (all) vsnprintf(all, (size_t)n + 1, format, again);
    va_end(again);
    show(f, all ? all : few, end);
    free(all);
}

void say(FILE *f, const char *format, ...) {
    va_list args;
    va_start(args, format);
    say_list(f, format, args, false);
    va_end(args);
}

void say_line(FILE *f, const char *format, ...) {
    va_list args;
    va_start(args, format);
    say_list(f, format, args, true);
    va_end(args);
}

void talk(const char *format, ...) {
    va_list args;
    va_start(args, format);
    say_list(stderr, format, args, true);
    va_end(args);
}

int usage_error(const char *format, ...) {
    va_list args;
    clear_bar();
    fputs("gfl: ", stderr);
    va_start(args, format);
    say_list(stderr, format, args, true);
    va_end(args);
    return CMD_USAGE;
}

/* ---- memory ---------------------------------------------------------------------------------- */

static bool memory_is_short;

static void *check_memory(void *p) {
    if (!p) talk("gfl: out of memory");
    memory_is_short = memory_is_short || !p;
    return p;
}

void *take(size_t n, size_t size) {
    return check_memory(calloc(n ? n : 1, size));
}

void *take_more(void *p, size_t n, size_t size) {
    return check_memory(n > SIZE_MAX / size ? NULL : realloc(p, n * size));
}

bool was_short_of_memory(void) {
    return memory_is_short;
}

/* ---- errors and warnings --------------------------------------------------------------------- */

static int exit_code(gfl_status status) {
    switch (status) {
    case GFL_OK: return CMD_OK;
    case GFL_E_ARG: return CMD_USAGE; /* an option's value */
    case GFL_E_DATA: return CMD_DATA;
    case GFL_E_MEMORY: return CMD_MEMORY;
    case GFL_E_DEVICE: return CMD_DEVICE;
    case GFL_E_NONFINITE: return CMD_NONFINITE;
    case GFL_E_MISMATCH: return CMD_MISMATCH;
    case GFL_E_RANK: return CMD_RANK;
    default: return CMD_FAILED;
    }
}

int report(gfl_context *context, gfl_status status, const char *doing) {
    const char *text = gfl_context_get_error(context);
    if (status == GFL_E_MEMORY && memory_is_short) return CMD_MEMORY; /* said by take() */
    talk("gfl: %s: %s", doing, *text ? text : gfl_status_get_name(status));
    return exit_code(status);
}

int report_errno(const char *format, ...) {
    char what[4400];
    va_list args;
    const int e = errno;
    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    talk("gfl: %s: %s", what, e ? strerror(e) : "it failed");
    memory_is_short = memory_is_short || e == ENOMEM;
    return e == ENOMEM ? CMD_MEMORY : CMD_FAILED;
}

static void log_to_stderr(void *user, gfl_log_level level, const char *message) {
    (void)user;
    if (level >= GFL_LOG_WARNING) talk("warning: %s", message);
}

const gfl_backend *cuda_backend(void) {
#ifdef GFL_WITH_CUDA
    return gfl_cuda();
#else
    return NULL;
#endif
}

const char *precision_of(const device_choice *choice) {
    if (choice->precision) return choice->precision;
    return choice->name && !strncmp(choice->name, "cuda", 4) ? "bf16" : "fp32";
}

static int choose_precision(const char *name, gfl_context_desc *desc) {
    static const char *const names[] = {"fp32", "tf32", "bf16", "fp16"};
    for (int i = 0; i < (int)(sizeof names / sizeof *names); i++) {
        desc->precision = (gfl_precision)i;
        if (!strcmp(name, names[i])) return CMD_OK;
    }
    return usage_error("--precision must be fp32, tf32, bf16 or fp16, not \"%s\"", name);
}

/* Whether the text names a device that this program can ask for; else a message. */
static int choose_device(const char *device, gfl_context_desc *desc) {
    char *end = NULL;
    if (!device || !strcmp(device, "cpu")) return CMD_OK;
    if (strncmp(device, "cuda", 4) != 0 || (device[4] && device[4] != ':'))
        return usage_error("--device must be cpu, cuda or cuda:N, not \"%s\"", device);
    if (device[4]) {
        const long n = strtol(device + 5, &end, 10);
        if (device[5] < '0' || device[5] > '9' || *end || n > 1000)
            return usage_error("--device %s: a number must follow cuda:", device);
        desc->device_index = (int)n;
    }
    desc->backend = cuda_backend();
    if (desc->backend) return CMD_OK;
    talk("gfl: --device %s: this gfl was built without CUDA", device);
    return CMD_DEVICE;
}

enum { MOST_THREADS = 256 }; /* of a context */

int open_context_on(const device_choice *choice, int threads, gfl_context **out) {
    static const device_choice cpu = {NULL, NULL, NULL, false};
    const device_choice *c = choice ? choice : &cpu;
    gfl_context_desc desc;
    char text[300];
    const char *wish = getenv("OMP_NUM_THREADS");
    if (!threads && wish) {
        const long n = strtol(wish, NULL, 10); /* made for every program: too many is no error */
        if (n >= 1) threads = n < MOST_THREADS ? (int)n : MOST_THREADS;
    }
    memset(&desc, 0, sizeof desc);
    desc.n_threads = threads;
    desc.logger.log = log_to_stderr;
    desc.error = text;
    desc.error_size = sizeof text;
    desc.kernel = c->kernel;
    desc.tune = c->tune;
    *out = NULL;
    int code = choose_device(c->name, &desc);
    if (code == CMD_OK) code = choose_precision(precision_of(c), &desc);
    if (code == CMD_OK && !desc.backend && c->tune) code = usage_error("--tune is for GPUs");
    if (code != CMD_OK) return code;
    gfl_status status = gfl_context_create(&desc, out);
    if (status != GFL_OK && text[0])
        talk("gfl: --device %s: %s", c->name ? c->name : "cpu", text);
    else if (status != GFL_OK)
        talk("gfl: --threads %d: %s", threads,
             status == GFL_E_ARG ? "it must be 0 or a number of threads that a machine can have"
                                 : gfl_status_get_name(status));
    return status == GFL_E_UNSUPPORTED ? CMD_USAGE : exit_code(status);
}

int open_context(int threads, gfl_context **out) {
    return open_context_on(NULL, threads, out);
}

const char *clock_text(double seconds, char out[32]) {
    long s = seconds > 0 && seconds < 1e8 ? lround(seconds) : 0;
    if (s >= 3600)
        snprintf(out, 32, "%ld:%02ld:%02ld", s / 3600, s / 60 % 60, s % 60);
    else
        snprintf(out, 32, "%ld:%02ld", s / 60, s % 60);
    return out;
}

void progress_begin(progress *p, const char *what, long total) {
    const char *term = getenv("TERM");
    memset(p, 0, sizeof *p);
    p->what = what;
    p->total = total;
    p->start = p->shown = os_seconds();
    p->terminal = os_is_terminal(2) && !(term && !strcmp(term, "dumb"));
}

void progress_step(progress *p, long done, const char *format, ...) {
    const double now = os_seconds();
    char text[256], left[32];
    va_list args;
    if (done < p->total && now - p->shown < (p->terminal ? 0.1 : 10.0)) return;
    if (!p->terminal && done == p->total && !p->drawn && now - p->start < 10.0) return;
    p->shown = now;
    p->drawn = true;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    const double each = done ? (now - p->start) / (double)done : 0.0;
    clock_text(each * (double)(p->total - done), left);
    if (!p->terminal) {
        talk("%s %ld/%ld, %s left%s%s", p->what, done, p->total, left, *text ? ", " : "", text);
        return;
    }
    char bar[21];
    int filled = p->total ? (int)(20 * done / p->total) : 20;
    for (int i = 0; i < 20; i++) bar[i] = i < filled ? '#' : '.';
    bar[20] = 0;
    fputc('\r', stderr);
    bar_drawn = false; /* written over, which does not flicker */
    say(stderr, "%s [%s] %ld/%ld, %s left%s%s", p->what, bar, done, p->total, left,
        *text ? ", " : "", text);
    fputs("\033[K", stderr);
    fflush(stderr);
    bar_drawn = true;
}

void progress_end(progress *p) {
    clear_bar();
    p->drawn = false;
}
