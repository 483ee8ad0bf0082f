/* cmd.h - what the subcommands of gfl share */
#ifndef GFL_CMD_H
#define GFL_CMD_H

#include "gfl.h"
#include <stdbool.h>
#include <stdio.h>

/* Exit codes; 128 + n after signal n. */
enum {
    CMD_OK = 0,
    CMD_FAILED = 1,
    CMD_USAGE = 2,
    CMD_DATA = 3,
    CMD_MEMORY = 4,
    CMD_DEVICE = 5,
    CMD_NONFINITE = 6,
    CMD_MISMATCH = 7,
    CMD_RANK = 8
};

/* ---- options (cmd_options.c) ----------------------------------------------------------------- */

typedef enum opt_kind {
    OPT_END,
    OPT_FLAG, /* bool: --x, --no-x; in files and the environment x = true or false */
    OPT_INT,  /* int */
    OPT_REAL, /* double */
    OPT_TEXT, /* const char *, owned by the table */
    OPT_PATH, /* the same, of a file or folder: written from the root, as it holds elsewhere too */
    OPT_LIST  /* opt_list: the option may be given several times */
} opt_kind;

enum { OPT_LIST_MAX = 256 };
enum { OPT_FROM_DEFAULT, OPT_FROM_FILE, OPT_FROM_ENVIRONMENT, OPT_FROM_ARGUMENT };

typedef struct opt_list {
    const char *items[OPT_LIST_MAX];
    int n;
} opt_list;

typedef struct opt {
    opt_kind kind;
    const char *name;     /* "weight-decay": --weight-decay, GFL_WEIGHT_DECAY, weight-decay = */
    void *value;          /* of the kind's type: holds the default before parsing */
    const char *argument; /* what the help calls the value, e.g. "FILE" */
    const char *help;     /* sentences; a default that `value` holds is added when printed */
    int source;           /* set by parsing: OPT_FROM_... */
} opt;

/* Fill the values from --config FILE, GFL_* and the arguments (later ones win), collect what is not
 * an option in rest[*n_rest], which may be argv itself.  Returns -1 to go on, else the exit code:
 * --help was printed, or an error with its hint.  `usage` are the lines after "usage: gfl". */
int opt_parse(const char *usage, opt *options, int argc, char **argv, const char **rest,
              int *n_rest);

/* The values of a file that opt_write has made, as defaults; an exit code. */
int opt_read(opt *options, const char *path);
/* Write "name = value" lines that --config reads back as they are, whatever is in the values: where
 * a line would not hold one, it stands in quotes with escapes as in C.  False: it failed. */
bool opt_write(const opt *options, FILE *f);
/* The same as a JSON object. */
void opt_write_json(const opt *options, gfl_json_writer *json, const char *key);

/* The option of this name, which is there. */
const opt *opt_find(const opt *options, const char *name);
/* How the value is given, as "--lr 0.02" or "--no-flip"; "": it is not. */
void opt_as_given(const opt *o, char *out, size_t size);
/* Have both the same value? */
bool opt_is_same(const opt *a, const opt *b);

/* What an option that names a set of settings makes of one of them. */
typedef struct opt_setting {
    const char *name, *value;
} opt_setting;
/* Give the options these values because of `reason` ("--recipe paper"); CMD_USAGE after a message
 * where one is given otherwise.  The list ends with a NULL name. */
int opt_settle(opt *options, const opt_setting *settings, const char *reason);

/* Which of the two names `text` is, from 1; 0 for no text, -1 after a message. */
int opt_choice(const char *option, const char *text, const char *first, const char *second);
/* "LxS" or "LxS:MIN"; false when it is neither. */
bool opt_scale(const char *text, int *scale_long, int *scale_short, int *scale_min);

/* The nearest of the names by edit distance, or NULL when none is near. */
const char *opt_nearest(const char *word, const char *const *names, int n);

/* ---- talk (cmd_talk.c) ----------------------------------------------------------------------- */

#if defined(__MINGW_PRINTF_FORMAT) /* stdio.h's word for which printf it is */
#    define CMD_PRINTF(a, b) __attribute__((format(__MINGW_PRINTF_FORMAT, a, b)))
#elif defined(__GNUC__)
#    define CMD_PRINTF(a, b) __attribute__((format(printf, a, b)))
#else
#    define CMD_PRINTF(a, b)
#endif

/* Texts for people.  Class names, file names and what files say are foreign: they may hold what a
 * terminal obeys, or new lines, which are shown escaped.  So whatever has a foreign text in it is
 * said by one of these, a piece of a line or a whole one; format has no control characters. */
void say(FILE *f, const char *format, ...) CMD_PRINTF(2, 3);
void say_line(FILE *f, const char *format, ...) CMD_PRINTF(2, 3);
void talk(const char *format, ...) CMD_PRINTF(1, 2);       /* a line to stderr */
int usage_error(const char *format, ...) CMD_PRINTF(1, 2); /* "gfl: ..." and a hint; CMD_USAGE */
/* "gfl: DOING: text of the context"; the exit code of the status. */
int report(gfl_context *context, gfl_status status, const char *doing);
/* "gfl: WHAT: reason" after a call of the system that failed; CMD_FAILED, or CMD_MEMORY. */
int report_errno(const char *format, ...) CMD_PRINTF(1, 2);
/* Memory of the command's own, cleared, and more of it; NULL after a message: then the exit code is
 * CMD_MEMORY, or GFL_E_MEMORY goes to report(), which says no more. */
void *take(size_t n, size_t size);
void *take_more(void *p, size_t n, size_t size);
bool was_short_of_memory(void); /* it was said then */
/* A context with so many threads (0: OMP_NUM_THREADS, else all) whose warnings go to stderr; NULL
 * after a message. */
int open_context(int threads, gfl_context **out); /* an exit code; NULL but for CMD_OK */
/* Where and how to compute.  NULL: on the CPU, in fp32, with the best kernels. */
typedef struct device_choice {
    const char *name, *precision, *kernel;
    bool tune;
} device_choice;
const char *precision_of(const device_choice *choice); /* as chosen; else the device's default */
#define DEVICE_OPTIONS(choice)                                                                     \
    {OPT_TEXT,                                                                                     \
     "device",                                                                                     \
     &(choice).name,                                                                               \
     "NAME",                                                                                       \
     "cpu, cuda, or cuda:N, the N-th NVIDIA GPU counted from 0. GPUs need a gfl that was built "   \
     "with nvcc. Default: cpu.",                                                                   \
     0},                                                                                           \
        {OPT_TEXT,                                                                                 \
         "precision",                                                                              \
         &(choice).precision,                                                                      \
         "NAME",                                                                                   \
         "Number format of feature maps and products: fp32, or on a GPU also tf32, bf16 or fp16. " \
         "Default: fp32 on the CPU, bf16 on a GPU.",                                               \
         0},                                                                                       \
        {OPT_TEXT,                                                                                 \
         "kernel",                                                                                 \
         &(choice).kernel,                                                                         \
         "NAME",                                                                                   \
         "On the CPU: compute with this instruction set, one of those that gfl info --devices "    \
         "lists. On a GPU: use this convolution kernel wherever it applies. gfl info --plan "      \
         "names those in use; mma means none of those that only Hopper GPUs have.",                \
         0},                                                                                       \
    {                                                                                              \
        OPT_FLAG, "tune", &(choice).tune, NULL,                                                    \
            "On a GPU, except in fp32: time the kernels that apply, once, and use the fastest, "   \
            "instead "                                                                             \
            "of estimating.",                                                                      \
            0                                                                                      \
    }
int open_context_on(const device_choice *device, int threads, gfl_context **out);
/* GPUs, or NULL: without gfl_cuda.cu in it a program has none. */
const gfl_backend *cuda_backend(void);

/* A bar with ETA on a terminal, a plain line every ten seconds elsewhere. */
typedef struct progress {
    const char *what;
    long total;
    double start, shown;
    bool terminal, drawn;
} progress;
void progress_begin(progress *p, const char *what, long total);
void progress_step(progress *p, long done, const char *format, ...) CMD_PRINTF(3, 4);
void progress_end(progress *p);
/* "1:02:03" */
const char *clock_text(double seconds, char out[32]);

/* Set by SIGINT and SIGTERM after catch_signals(): the signal's number, else 0 (cmd_os.c). */
void catch_signals(void);
int caught_signal(void);

/* ---- shared work (cmd_common.c) -------------------------------------------------------------- */

/* The library's writer of JSON, to a stream; a failure is the stream's too (ferror). */
gfl_json_writer json_to(FILE *f);

bool is_same_file(const char *a, const char *b);

/* Of options that could not be used later: CMD_OK, or an exit code after a message.  A threshold
 * of 0, which means the default to the library, becomes the least above it. */
int check_folder(const char *option, const char *path); /* NULL is fine */
/* Would what an option writes replace an input?  Either may be NULL. */
int check_replaces(const char *option, const char *path, const char *input);
int check_thresholds(double *score, double *nms);
int scale_error(const char *text);

/* Say what the weights do not say and is assumed; of a backbone, or of a model. */
void warn_of_input(const char *weights, const gfl_origins *from, const gfl_arch *arch,
                   const gfl_preprocess *p);
void warn_of_assumed(const char *weights, const gfl_model *model, bool scale_given);

/* Print the warnings that a data set deserves, and one line about what it is. */
void describe_dataset(const char *name, const gfl_dataset *dataset);
/* A line for each thing that was taken to be meant, and for classes without boxes. */
void remark_on_dataset(FILE *f, const gfl_dataset_summary *s);

/* Options that several commands have. */
#define THREADS_OPTION(n)                                                                          \
    {                                                                                              \
        OPT_INT, "threads", &(n), "N",                                                             \
            "Threads to compute with; results do not depend on their number. Default: "            \
            "OMP_NUM_THREADS, else as many as there are processors to use.",                       \
            0                                                                                      \
    }
#define JSON_OPTION(flag)                                                                          \
    { OPT_FLAG, "json", &(flag), NULL, "Print one JSON object on standard output.", 0 }
#define IMAGES_OPTION(kind, path)                                                                  \
    {                                                                                              \
        kind, "images", &(path), "DIR",                                                            \
            "Folder of their pictures. Default: the folder of the annotations.", 0                 \
    }
#define WEIGHTS_OPTION(path)                                                                       \
    { OPT_TEXT, "weights", &(path), "FILE", "The model: safetensors or .pth.", 0 }
#define SCALE_OPTION(text)                                                                         \
    {                                                                                              \
        OPT_TEXT, "scale", &(text), "LxS",                                                         \
            "Pictures are resized to fit into this long and short side. Default: as trained.", 0   \
    }
#define SCORE_OPTION(x)                                                                            \
    { OPT_REAL, "score", &(x), "X", "Leave out detections with a lower score.", 0 }
#define NMS_OPTION(x)                                                                              \
    {                                                                                              \
        OPT_REAL, "nms", &(x), "X",                                                                \
            "Of two boxes of a class whose IoU is above X, keep the one with the higher score.", 0 \
    }
#define POLYGON_OPTION(flag)                                                                       \
    {                                                                                              \
        OPT_FLAG, "boxes-from-polygons", &(flag), NULL,                                            \
            "Give annotations without a bbox the box around their polygons.", 0                    \
    }
#define SKIP_OPTION(flag)                                                                          \
    {                                                                                              \
        OPT_FLAG, "skip-unreadable", &(flag), NULL,                                                \
            "Leave out pictures that cannot be read, or whose size is not the annotated one, "     \
            "instead of stopping. They are named and counted. In training, the next picture of "   \
            "the data set stands in for each.",                                                    \
            0                                                                                      \
    }

/* Run the model over every image of the evaluator's data set, which has n_images, and add what it
 * finds; CMD_OK, or an exit code after a message. */
int evaluate_images(gfl_context *context, const gfl_model *model, int n_images,
                    const gfl_detect_opts *opts, gfl_evaluator *evaluator);

/* Look at every picture before work begins that could end on one: CMD_OK, or an exit code after
 * messages.  Where the data set skips unreadable ones, they are named and counted. */
int check_pictures(gfl_context *context, const char *name, gfl_dataset *dataset, bool skip);
/* The twelve numbers, on stdout or in a file; or as a JSON object with per_class. */
void print_summary(FILE *f, const gfl_evaluator *evaluator);
void print_class_table(FILE *f, const gfl_evaluator *evaluator, const gfl_dataset *dataset);
void write_json_result(gfl_json_writer *json, const char *key, const gfl_evaluator *evaluator,
                       const gfl_eval_result *result, const gfl_dataset *dataset);

/* ---- weight files (cmd_model.c) -------------------------------------------------------------- */

/* What a model is; of a backbone alone; of an input. */
void print_model(FILE *f, const gfl_model_info *info);
void print_backbone(FILE *f, const gfl_arch *arch, gfl_origin style);
void print_input(FILE *f, const gfl_preprocess *p);
/* The same as a text. */
void input_text(const gfl_preprocess *p, char *out, size_t size);
/* The same as members of the JSON object that is open. */
void write_model_json(gfl_json_writer *json, const gfl_model_info *info);
void write_backbone_json(gfl_json_writer *json, const gfl_arch *arch);
void write_input_json(gfl_json_writer *json, const gfl_preprocess *p);

/* What became of the tensors at the last load: counts by gfl_fate; a line each, or a JSON member,
 * of those whose fate's bit is in `wanted`. */
void count_fates(const gfl_model *model, int counts[3]);
void print_tensors(FILE *f, const gfl_model *model, unsigned wanted);
void write_tensors_json(gfl_json_writer *json, const gfl_model *model, unsigned wanted);

/* Class names from "a,b,c" or from a file; names and items are malloc'ed. */
typedef struct class_list {
    gfl_class *items;
    int n;
} class_list;
int read_classes(gfl_context *context, const char *text, class_list *list); /* an exit code */
void free_classes(class_list *list);
/* The labels [list->n] that a model gives to classes, which are named or numbered from 0;
 * malloc'ed.  CMD_OK, or an exit code after a message that says what classes there are. */
int find_labels(const gfl_model_info *info, const class_list *list, int **labels);

/* ---- where a training starts (cmd_start.c) --------------------------------------------------- */

typedef struct model_start {
    const char *model, *weights, *from, *scale, *dialect;
    opt_list map; /* "old=new" */
    int base_channels, fpn_channels, head_channels, stacked_convs, seed;
} model_start;

/* Do the options go together?  Fills in the default model.  An exit code. */
int check_start(model_start *s);
/* Make the model and say what it was made of; an exit code. */
int start_model(gfl_context *context, const model_start *s, const gfl_dataset *data,
                gfl_model **out);

/* ---- pictures (cmd_draw.c) ------------------------------------------------------------------- */

/* Boxes with labels in class colours (line width by image size, built-in 5x7 font). */
void draw_detections(gfl_pixels *pixels, const gfl_detection *items, int n,
                     const gfl_class *classes);
void draw_box(gfl_pixels *pixels, double x1, double y1, double x2, double y2, int label,
              const char *text);
/* PNG, or JPEG where the name ends in .jpg, .jpeg, .jpe or .jfif; false after a message. */
bool write_picture(const char *path, const gfl_pixels *pixels);

/* ---- the subcommands: argv[0] is the subcommand's name; the exit code ------------------------ */

int cmd_train(int argc, char **argv);
int cmd_eval(int argc, char **argv);
int cmd_detect(int argc, char **argv);
int cmd_check(int argc, char **argv);
int cmd_info(int argc, char **argv);
int cmd_convert(int argc, char **argv);
int cmd_bench(int argc, char **argv);
int cmd_selftest(int argc, char **argv);
int cmd_export(int argc, char **argv);

#endif
