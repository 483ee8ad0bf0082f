/* cmd_detect.c - gfl detect: pictures in; drawings, COCO results or lines of text out */
#define _XOPEN_SOURCE 700
#include "cmd.h"
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

typedef struct picture {
    char *path;       /* to open */
    const char *name; /* within its folder; points into path */
} picture;

typedef struct detect_job {
    const char *weights, *out, *results, *scale;
    device_choice device;
    bool json, distributions;
    int threads, max;
    double score, nms;
    picture *pictures;
    int n, capacity;
    gfl_context *context;
    gfl_model_info info;
    FILE *file; /* of the results */
    gfl_json_writer results_json, stdout_json;
    int failed; /* pictures */
} detect_job;

/* ---- which pictures -------------------------------------------------------------------------- */

static bool is_picture(const char *name) {
    static const char *const kinds[] = {"jpg", "jpeg", "png", "bmp", "ppm", "pgm"};
    const char *dot = strrchr(name, '.');
    char kind[8];
    size_t n = 0;
    if (!dot || strlen(dot) > 6) return false;
    for (const char *p = dot + 1; *p; p++) kind[n++] = (char)tolower((unsigned char)*p);
    kind[n] = 0;
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        if (!strcmp(kind, kinds[i])) return true;
    return false;
}

/* Takes ownership of path; the name begins `skip` characters into it. */
static bool add_picture(detect_job *job, char *path, size_t skip) {
    if (path && job->n == job->capacity) {
        const int capacity = job->capacity ? 2 * job->capacity : 64;
        picture *more = realloc(job->pictures, (size_t)capacity * sizeof *more);
        if (!more) {
            free(path);
            path = NULL;
        } else {
            job->pictures = more;
            job->capacity = capacity;
        }
    }
    if (!path) {
        talk("gfl: out of memory");
        return false;
    }
    job->pictures[job->n].path = path;
    job->pictures[job->n++].name = path + skip;
    return true;
}

static char *join(const char *folder, const char *name) {
    const size_t n = strlen(folder) + strlen(name) + 2;
    char *path = malloc(n);
    if (path) snprintf(path, n, "%s/%s", folder, name);
    return path;
}

static int compare_names(const void *a, const void *b) {
    return strcmp(((const picture *)a)->name, ((const picture *)b)->name);
}

/* Pictures of a folder and of the folders in it; those whose names begin with a dot are left. */
static bool add_folder(detect_job *job, const char *folder, size_t skip, int depth) {
    DIR *dir = opendir(folder);
    struct dirent *entry;
    struct stat info;
    bool good = true;
    if (!dir) {
        talk("gfl: %s: %s", folder, strerror(errno));
        job->failed++;
        return true;
    }
    while (good && (entry = readdir(dir)) != NULL) {
        if (entry->d_name[0] == '.') continue;
        char *path = join(folder, entry->d_name);
        if (path && stat(path, &info) == 0 && S_ISDIR(info.st_mode)) {
            good = depth > 32 || add_folder(job, path, skip, depth + 1);
            free(path);
        } else if (!path || is_picture(path)) {
            good = add_picture(job, path, skip);
        } else {
            free(path);
        }
    }
    closedir(dir);
    return good;
}

static bool add_argument(detect_job *job, char *path) {
    struct stat info;
    for (size_t n = strlen(path); n > 1 && path[n - 1] == '/'; n--) path[n - 1] = 0;
    if (stat(path, &info) == 0 && S_ISDIR(info.st_mode)) {
        const int first = job->n;
        if (!add_folder(job, path, strlen(path) + 1, 0)) return false;
        if (job->n > first)
            qsort(job->pictures + first, (size_t)(job->n - first), sizeof *job->pictures,
                  compare_names);
        return true;
    }
    char *copy = malloc(strlen(path) + 1);
    if (copy) strcpy(copy, path);
    const char *slash = strrchr(path, '/');
    return add_picture(job, copy, slash ? (size_t)(slash - path) + 1 : 0);
}

/* Drawings and results go by the pictures' names, so no two may share one. */
static int check_names(const detect_job *job) {
    if (!job->n && !job->failed) talk("gfl: there is no picture in these folders");
    if (!job->n) return CMD_FAILED;
    picture *sorted = malloc((size_t)job->n * sizeof *sorted);
    int code = sorted ? CMD_OK : CMD_MEMORY;
    if (sorted) {
        memcpy(sorted, job->pictures, (size_t)job->n * sizeof *sorted);
        qsort(sorted, (size_t)job->n, sizeof *sorted, compare_names);
    }
    for (int i = 1; code == CMD_OK && (job->out || job->results) && i < job->n; i++)
        if (!strcmp(sorted[i].name, sorted[i - 1].name))
            code = usage_error("%s and %s have the same name in --out and --results: take their "
                               "common folder as the argument, or run them apart",
                               sorted[i - 1].path, sorted[i].path);
    free(sorted);
    return code;
}

/* ---- output ---------------------------------------------------------------------------------- */

static bool make_folders(char *path) {
    for (char *p = path + 1; *p; p++) {
        if (*p != '/') continue;
        *p = 0;
        const bool good = mkdir(path, 0777) == 0 || errno == EEXIST;
        if (!good) talk("gfl: %s: %s", path, strerror(errno));
        *p = '/';
        if (!good) return false;
    }
    return true;
}

static bool draw(const detect_job *job, const picture *one, gfl_pixels *pixels,
                 const gfl_detections *found) {
    char *path = join(job->out, one->name);
    if (!path) return false;
    draw_detections(pixels, found->items, found->count, job->info.classes);
    /* Formats that cannot be written become PNG. */
    char *dot = strrchr(path, '.');
    if (dot && (!strcmp(dot, ".bmp") || !strcmp(dot, ".ppm") || !strcmp(dot, ".pgm")))
        memcpy(dot, ".png", 4);
    bool good = !is_same_file(path, one->path);
    if (!good) talk("gfl: %s: the drawing would replace the picture; choose another --out", path);
    good = good && make_folders(path) && write_picture(path, pixels);
    free(path);
    return good;
}

static void write_results(detect_job *job, const picture *one, const gfl_detections *found) {
    gfl_json_writer *json = &job->results_json;
    for (int i = 0; i < found->count; i++) {
        const gfl_detection *d = &found->items[i];
        gfl_json_line(json);
        gfl_json_object(json, NULL);
        gfl_json_text(json, "image_id", one->name);
        gfl_json_integer(json, "category_id", job->info.classes[d->label].id);
        gfl_json_array(json, "bbox");
        gfl_json_float(json, NULL, d->x1);
        gfl_json_float(json, NULL, d->y1);
        gfl_json_number(json, NULL, (double)d->x2 - (double)d->x1);
        gfl_json_number(json, NULL, (double)d->y2 - (double)d->y1);
        gfl_json_end(json);
        gfl_json_float(json, "score", d->score);
        gfl_json_end(json);
    }
}

static void write_four(gfl_json_writer *json, const char *key, const float v[4]) {
    gfl_json_array(json, key);
    for (int i = 0; i < 4; i++) gfl_json_float(json, NULL, v[i]);
    gfl_json_end(json);
}

static void write_picture_json(detect_job *job, const picture *one, const gfl_pixels *pixels,
                               const gfl_detections *found) {
    gfl_json_writer *json = &job->stdout_json;
    gfl_json_line(json);
    gfl_json_object(json, NULL);
    gfl_json_text(json, "file", one->path);
    gfl_json_integer(json, "width", pixels->width);
    gfl_json_integer(json, "height", pixels->height);
    gfl_json_array(json, "detections");
    for (int i = 0; i < found->count; i++) {
        const gfl_detection *d = &found->items[i];
        const float box[4] = {d->x1, d->y1, d->x2, d->y2};
        gfl_json_line(json);
        gfl_json_object(json, NULL);
        gfl_json_text(json, "class", job->info.classes[d->label].name);
        gfl_json_integer(json, "label", d->label);
        gfl_json_float(json, "score", d->score);
        write_four(json, "box", box);
        if (found->distributions) {
            write_four(json, "side_distance", found->distributions[i].mean);
            write_four(json, "side_stddev", found->distributions[i].stddev);
        }
        gfl_json_end(json);
    }
    gfl_json_end(json);
    gfl_json_end(json);
}

static void print_lines(const detect_job *job, const picture *one, const gfl_detections *found) {
    for (int i = 0; i < found->count; i++) {
        const gfl_detection *d = &found->items[i];
        printf("%s\t%s\t%.4f\t%.1f\t%.1f\t%.1f\t%.1f\n", one->path,
               job->info.classes[d->label].name, (double)d->score, (double)d->x1, (double)d->y1,
               (double)d->x2, (double)d->y2);
    }
}

/* ---- the work -------------------------------------------------------------------------------- */

/* One picture; CMD_OK also when it could not be read, which is counted. */
static int detect_one(detect_job *job, gfl_detector *detector, const gfl_detect_opts *opts,
                      const picture *one) {
    gfl_pixels pixels;
    gfl_detections found;
    if (gfl_image_read(job->context, one->path, &pixels) != GFL_OK) {
        talk("gfl: %s", gfl_context_error(job->context));
        job->failed++;
        return CMD_OK;
    }
    const gfl_image image = image_of(&pixels);
    int code = CMD_OK;
    gfl_status status = gfl_detect(detector, &image, 1, opts, &found);
    if (status != GFL_OK) {
        code = report(job->context, status, one->path);
    } else {
        if (job->json)
            write_picture_json(job, one, &pixels, &found);
        else if (!job->out && !job->results)
            print_lines(job, one, &found);
        if (job->file) write_results(job, one, &found);
        if (job->out && !draw(job, one, &pixels, &found)) code = CMD_FAILED;
    }
    gfl_pixels_free(job->context, &pixels);
    return code;
}

static int detect_all(detect_job *job, gfl_detector *detector) {
    gfl_detect_opts opts;
    progress bar;
    int code = CMD_OK, unused = 0, done = 0;
    memset(&opts, 0, sizeof opts);
    opts.min_score = (float)job->score;
    opts.nms_iou = (float)job->nms;
    opts.max_detections = job->max;
    if (job->scale) opt_scale(job->scale, &opts.scale_long, &opts.scale_short, &unused);
    progress_begin(&bar, "detecting", job->n);
    catch_signals();
    job->stdout_json = json_to(stdout);
    if (job->json) gfl_json_object(&job->stdout_json, NULL);
    if (job->json) gfl_json_array(&job->stdout_json, "images");
    for (; code == CMD_OK && done < job->n && !caught_signal(); done++) {
        code = detect_one(job, detector, &opts, &job->pictures[done]);
        progress_step(&bar, done + 1, "%s", "");
    }
    for (int i = 0; job->json && i < 2; i++) gfl_json_end(&job->stdout_json);
    if (job->json) gfl_json_line(&job->stdout_json);
    progress_end(&bar);
    if (code == CMD_OK && caught_signal()) code = 128 + caught_signal();
    if (code == CMD_OK && job->failed) {
        talk("gfl: %d of %d pictures could not be read", job->failed, job->n);
        code = CMD_FAILED;
    }
    return code;
}

/* The result file is complete or not there; what a link names is replaced, not the link, and a pipe
 * or a device is written to as it is. */
static int with_results(detect_job *job, gfl_detector *detector) {
    char temporary[4200];
    struct stat info;
    if (!job->results) return detect_all(job, detector);
    char *resolved = realpath(job->results, NULL);
    const char *path = resolved ? resolved : job->results;
    const bool direct = stat(path, &info) == 0 && !S_ISREG(info.st_mode);
    snprintf(temporary, sizeof temporary, "%.4100s%s", path, direct ? "" : ".tmp");
    job->file = fopen(temporary, "w");
    int code = CMD_FAILED;
    bool good = job->file != NULL;
    if (good) {
        job->results_json = json_to(job->file);
        gfl_json_array(&job->results_json, NULL);
        code = detect_all(job, detector);
        gfl_json_end(&job->results_json);
        gfl_json_line(&job->results_json);
        good = !ferror(job->file);
        if (fclose(job->file) != 0) good = false;
        if (good && !direct) good = rename(temporary, path) == 0;
    }
    if (!good) {
        talk("gfl: %s cannot be written: %s", job->results, strerror(errno));
        if (job->file && !direct) remove(temporary);
        code = CMD_FAILED;
    }
    free(resolved);
    return code;
}

static int run(detect_job *job) {
    gfl_model *model = NULL;
    gfl_detector *detector = NULL;
    int code = open_context_on(&job->device, job->threads, &job->context);
    if (code != CMD_OK) return code;
    gfl_status status = gfl_model_import(job->context, job->weights, NULL, &model);
    if (status == GFL_OK) {
        gfl_model_get_info(model, &job->info);
        if (!job->scale) warn_of_scale(job->weights, model);
        status = gfl_detector_create(job->context, model, job->distributions, &detector);
    }
    code = status == GFL_OK ? with_results(job, detector)
                            : report(job->context, status, "loading weights");
    gfl_detector_destroy(detector);
    gfl_model_destroy(model);
    gfl_context_destroy(job->context);
    return code;
}

int cmd_detect(int argc, char **argv) {
    detect_job job;
    int n_rest = 0, a = 0, b = 0, c = 0;
    memset(&job, 0, sizeof job);
    job.score = 0.3;
    job.nms = 0.6;
    job.max = 100;
    opt options[] = {
        {OPT_TEXT, "weights", &job.weights, "FILE", "the model, safetensors or .pth", 0},
        {OPT_TEXT, "out", &job.out, "DIR", "draw the detections into pictures here", 0},
        {OPT_TEXT, "results", &job.results, "FILE", "write COCO results; image_id is the file", 0},
        {OPT_REAL, "score", &job.score, "X", "lowest score", 0},
        {OPT_REAL, "nms", &job.nms, "X", "IoU above which a weaker box goes", 0},
        {OPT_INT, "max", &job.max, "N", "most detections a picture", 0},
        {OPT_TEXT, "scale", &job.scale, "LxS", "long and short side; default: as trained", 0},
        {OPT_FLAG, "json", &job.json, NULL, "one JSON object on stdout", 0},
        {OPT_FLAG, "distributions", &job.distributions, NULL, "with --json: how sure each side is",
         0},
        DEVICE_OPTIONS(job.device),
        {OPT_INT, "threads", &job.threads, "N", "0: OMP_NUM_THREADS, else all that may be used", 0},
        {OPT_END, NULL, NULL, NULL, NULL, 0},
    };
    int code = opt_parse("detect --weights W [--out DIR] [--results FILE] PICTURE|FOLDER ...",
                         options, argc, argv, (const char **)argv, &n_rest);
    if (code >= 0) return code;
    if (!job.weights) return usage_error("detect needs --weights FILE");
    if (!n_rest) return usage_error("detect needs a picture or a folder");
    if (job.scale && (!opt_scale(job.scale, &a, &b, &c) || c)) return scale_error(job.scale);
    if (job.max < 1) return usage_error("--max counts from 1");
    code = check_thresholds(&job.score, &job.nms);
    if (code != CMD_OK) return code;
    bool good = true;
    for (int i = 0; good && i < n_rest; i++) good = add_argument(&job, argv[i]);
    code = good ? check_names(&job) : CMD_MEMORY;
    if (code == CMD_OK) code = run(&job);
    for (int i = 0; i < job.n; i++) free(job.pictures[i].path);
    free(job.pictures);
    return code;
}
