/* gfl.c - the command: train, evaluate and run detectors */
#include "cmd.h"
#include "cmd_os.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *name, *what;
    int (*run)(int argc, char **argv);
} commands[] = {
    {"train", "Train a detector on data in COCO format.", cmd_train},
    {"eval", "Compute COCO's twelve numbers of a model or of a file of results.", cmd_eval},
    {"detect", "Find objects in pictures, draw them, write results.", cmd_detect},
    {"check", "Find what is wrong with a data set.", cmd_check},
    {"info", "Describe a model, a weight file, or what can compute here.", cmd_info},
    {"convert", "Turn another program's checkpoint or backbone into a weight file.", cmd_convert},
    {"export", "Write a model for mmdetection, PyTorch or ONNX.", cmd_export},
    {"bench", "Time detection.", cmd_bench},
    {"selftest", "Check that this machine computes the right numbers.", cmd_selftest},
};
enum { N_COMMANDS = sizeof commands / sizeof commands[0] };

static void print_usage(FILE *f) {
    fputs("usage: gfl COMMAND [options]\n\n", f);
    for (int i = 0; i < N_COMMANDS; i++)
        fprintf(f, "  %-8s %s\n", commands[i].name, commands[i].what);
    fputs("\ngfl COMMAND --help lists the options of a command.\n"
          "gfl --version prints the version.\n",
          f);
}

/* Whoever reads standard output must not take half of it for all.  Lack of memory has a code of its
 * own wherever it was met. */
static int finish(int code) {
    if (code == CMD_FAILED && was_short_of_memory()) code = CMD_MEMORY;
    const bool failed = fflush(stdout) != 0;
    if (!failed && !ferror(stdout)) return code;
    talk("gfl: writing to standard output failed%s%s", failed ? ": " : "",
         failed ? strerror(errno) : "");
    return code == CMD_OK ? CMD_FAILED : code;
}

static int run_command(int argc, char **argv) {
    const char *names[N_COMMANDS];
    for (int i = 0; i < N_COMMANDS; i++) {
        names[i] = commands[i].name;
        if (!strcmp(argv[0], names[i])) return finish(commands[i].run(argc, argv));
    }
    const char *near = opt_nearest(argv[0], names, N_COMMANDS);
    if (near) return usage_error("there is no command \"%s\"; did you mean \"%s\"?", argv[0], near);
    return usage_error("there is no command \"%s\"; gfl --help lists them", argv[0]);
}

int main(int argc, char **argv) {
    static char help[] = "--help";
    os_prepare(&argc, &argv);
    if (argc < 2) {
        print_usage(stderr);
        return CMD_USAGE;
    }
    if (!strcmp(argv[1], "help") && argc > 2) { /* of a command: the same as its --help */
        char *of[] = {argv[2], help};
        return run_command(2, of);
    }
    if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") || !strcmp(argv[1], "help")) {
        print_usage(stdout);
        return finish(CMD_OK);
    }
    if (!strcmp(argv[1], "--version")) {
        puts("gfl " GFL_VERSION_TEXT);
        return finish(CMD_OK);
    }
    return run_command(argc - 1, argv + 1);
}
