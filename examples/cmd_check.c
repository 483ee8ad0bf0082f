/* cmd_check.c - gfl check: is a data set sane?  Every finding names the file and what to do */
#include "cmd.h"
#include "cmd_os.h"
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

enum { MISTAKES_SHOWN = 50 };
enum { SHEET_COLUMNS = 6, SHEET_ROWS = 4, CELL_W = 240, CELL_H = 180 };

typedef struct hashed {
    uint64_t hash;
    int image;
} hashed;

typedef struct check_job {
    const char *data, *images, *out;
    int threads;
    gfl_context *context;
    gfl_dataset *dataset;
    gfl_pixels sheet;
    hashed *hashes;
    int n_hashes, n_shown;
    long findings;
} check_job;

static void finding(check_job *job, const char *format, ...) CMD_PRINTF(2, 3);

static void finding(check_job *job, const char *format, ...) {
    char text[4096];
    va_list args;
    job->findings++;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    say_line(stdout, "%s", text);
}

/* Told by the reader of annotations: another one is wanted as long as they are few. */
static int take_mistake(void *user, const char *text) {
    check_job *job = (check_job *)user;
    finding(job, "%s", text);
    return job->findings >= MISTAKES_SHOWN;
}

static const char *id_text(gfl_id id, char out[64]) {
    if (id.text)
        snprintf(out, 64, "\"%.50s\"", id.text);
    else
        snprintf(out, 64, "%lld", (long long)id.number);
    return out;
}

/* ---- annotations ----------------------------------------------------------------------------- */

static int compare_areas(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void print_histograms(const check_job *job) {
    const gfl_class *classes = gfl_dataset_get_classes(job->dataset);
    const int n_classes = gfl_dataset_count_classes(job->dataset);
    const int n_images = gfl_dataset_count_images(job->dataset);
    gfl_dataset_summary s;
    gfl_dataset_get_summary(job->dataset, &s);
    long *count = take((size_t)n_classes, sizeof *count), sizes[3] = {0, 0, 0};
    double *sides = take((size_t)s.n_annotations, sizeof *sides);
    int n = 0;
    for (int i = 0; count && sides && i < n_images; i++) {
        gfl_image_info info;
        if (gfl_dataset_get_image(job->dataset, i, &info) != GFL_OK) continue;
        for (int k = 0; k < info.n_annotations; k++) {
            const gfl_annotation *a = &info.annotations[k];
            count[a->label]++;
            sizes[a->area < 32 * 32 ? 0 : a->area < 96 * 96 ? 1 : 2]++;
            sides[n++] = a->w > a->h ? a->w : a->h;
        }
    }
    for (int k = 0; count && k < n_classes; k++)
        say_line(stdout, "  %-24s %8ld boxes", classes[k].name, count[k]);
    printf("  sizes (COCO's areas): %ld small, %ld medium, %ld large\n", sizes[0], sizes[1],
           sizes[2]);
    if (n) {
        qsort(sides, (size_t)n, sizeof *sides, compare_areas);
        printf(
            "  longer sides: smallest %.1f, quarter %.1f, half %.1f, three quarters %.1f, largest "
            "%.1f pixels\n",
            sides[0], sides[n / 4], sides[n / 2], sides[n * 3 / 4], sides[n - 1]);
    }
    free(sides);
    free(count);
}

static void check_boxes(check_job *job, const gfl_image_info *info) {
    char id[64];
    for (int k = 0; k < info->n_annotations; k++) {
        const gfl_annotation *a = &info->annotations[k];
        const double right = a->x + a->w, bottom = a->y + a->h;
        id_text(a->id, id);
        if (a->w < 1 || a->h < 1 || a->area <= 0)
            finding(job,
                    "%s: annotation %s is %g x %g with area %g: it is not trained on; remove or "
                    "redraw it",
                    info->file_name, id, a->w, a->h, a->area);
        else if (info->width > 0 &&
                 (right <= 0 || bottom <= 0 || a->x >= info->width || a->y >= info->height))
            finding(job,
                    "%s: annotation %s lies outside the %dx%d image: are x and y, or corner and "
                    "size, mixed up?",
                    info->file_name, id, info->width, info->height);
        else if (info->width > 0 &&
                 (a->x < -1 || a->y < -1 || right > info->width + 1 || bottom > info->height + 1))
            finding(job, "%s: annotation %s reaches %g x %g, over the border of the %dx%d image",
                    info->file_name, id, right, bottom, info->width, info->height);
    }
}

/* ---- images ---------------------------------------------------------------------------------- */

/* FNV-1a of the decoded pixels: copies under other names and formats are found too. */
static uint64_t hash_pixels(const gfl_pixels *p) {
    uint64_t h = 0xcbf29ce484222325u ^ (uint64_t)p->width;
    const size_t n = (size_t)p->width * (size_t)p->height * 3;
    for (size_t i = 0; i < n; i++) h = (h ^ p->rgb[i]) * 0x100000001b3u;
    return h;
}

/* A quick look at the sheet: the picture made small by picking pixels, its boxes drawn. */
static void add_to_sheet(check_job *job, const gfl_pixels *p, const gfl_image_info *info) {
    const gfl_class *classes = gfl_dataset_get_classes(job->dataset);
    if (!job->sheet.rgb || job->n_shown >= SHEET_COLUMNS * SHEET_ROWS) return;
    const int left = job->n_shown % SHEET_COLUMNS * CELL_W;
    const int top = job->n_shown / SHEET_COLUMNS * CELL_H;
    const double sx = (double)p->width / (int)CELL_W, sy = (double)p->height / (int)CELL_H;
    const double scale = sx > sy ? sx : sy;
    job->n_shown++;
    for (int y = 0; y < CELL_H && (int)(y * scale) < p->height; y++) {
        for (int x = 0; x < CELL_W && (int)(x * scale) < p->width; x++) {
            const size_t from = (size_t)(y * scale) * (size_t)p->width + (size_t)(x * scale);
            const size_t to = (size_t)(top + y) * (size_t)job->sheet.width + (size_t)(left + x);
            memcpy(job->sheet.rgb + 3 * to, p->rgb + 3 * from, 3);
        }
    }
    for (int k = 0; k < info->n_annotations; k++) {
        const gfl_annotation *a = &info->annotations[k];
        draw_box(&job->sheet, left + a->x / scale, top + a->y / scale, left + (a->x + a->w) / scale,
                 top + (a->y + a->h) / scale, a->label,
                 info->n_annotations > 6 ? "" : classes[a->label].name);
    }
}

/* Does the name lead out of the folder of the images? */
static bool leaves_folder(const char *name) {
    if (name[0] == '/' || name[0] == '\\' || (name[0] && name[1] == ':')) return true;
    for (const char *p = name; (p = strstr(p, "..")) != NULL; p += 2) {
        const bool begins = p == name || p[-1] == '/' || p[-1] == '\\';
        if (begins && (!p[2] || p[2] == '/' || p[2] == '\\')) return true;
    }
    return false;
}

static void picture_finding(void *user, int image, gfl_status status, const char *text) {
    (void)image;
    (void)status;
    finding(user, "%s", text);
}

static int picture_stop(void *user, int done, int total) {
    (void)user;
    (void)done;
    (void)total;
    return caught_signal() != 0;
}

/* An exit code of what can be read; the rest has become findings. */
static int check_image(check_job *job, int i) {
    gfl_image_info info;
    gfl_pixels p;
    if (gfl_dataset_get_image(job->dataset, i, &info) != GFL_OK) return CMD_OK;
    check_boxes(job, &info);
    if (leaves_folder(info.file_name))
        finding(job,
                "%s: the name leads out of the folder of the images; put the picture into that "
                "folder and name it relative to it",
                info.file_name);
    if (info.unreadable) return CMD_OK;
    const gfl_status status = gfl_dataset_read(job->context, job->dataset, i, &p);
    if (status == GFL_E_MEMORY) return report(job->context, status, "reading a picture");
    if (status != GFL_OK) {
        finding(job, "%s", gfl_context_get_error(job->context));
        return CMD_OK;
    }
    if (p.bits == 16)
        finding(job,
                "%s: it has 16 bits per sample, of which the lower 8 are dropped; scale the values "
                "first if they matter",
                info.file_name);
    job->hashes[job->n_hashes].hash = hash_pixels(&p);
    job->hashes[job->n_hashes++].image = i;
    add_to_sheet(job, &p, &info);
    gfl_pixels_free(job->context, &p);
    return CMD_OK;
}

static int compare_hashes(const void *a, const void *b) {
    const hashed *x = a, *y = b;
    if (x->hash != y->hash) return x->hash < y->hash ? -1 : 1;
    return (x->image > y->image) - (x->image < y->image);
}

static void check_duplicates(check_job *job) {
    gfl_image_info a, b;
    qsort(job->hashes, (size_t)job->n_hashes, sizeof *job->hashes, compare_hashes);
    for (int i = 1; i < job->n_hashes; i++) {
        if (job->hashes[i].hash != job->hashes[i - 1].hash) continue;
        gfl_dataset_get_image(job->dataset, job->hashes[i - 1].image, &a);
        gfl_dataset_get_image(job->dataset, job->hashes[i].image, &b);
        finding(job,
                "%s: it has the same pixels as %s; keep one of them, so that no picture is in both "
                "training and validation",
                b.file_name, a.file_name);
    }
}

static int check_all(check_job *job) {
    const int n = gfl_dataset_count_images(job->dataset);
    gfl_dataset_summary s;
    progress bar;
    gfl_dataset_get_summary(job->dataset, &s);
    job->hashes = take((size_t)n, sizeof *job->hashes);
    if (!job->hashes) return CMD_MEMORY;
    if (job->out) {
        gfl_status status = gfl_pixels_alloc(job->context, SHEET_COLUMNS * CELL_W,
                                             SHEET_ROWS * CELL_H, &job->sheet);
        if (status != GFL_OK) return report(job->context, status, "making the sheet");
        memset(job->sheet.rgb, 255, (size_t)job->sheet.width * (size_t)job->sheet.height * 3);
    }
    say_line(stdout, "%s: %d images (%d without annotations), %d boxes, %d classes", job->data,
             s.n_images, s.n_empty_images, s.n_annotations, s.n_classes);
    remark_on_dataset(stdout, &s);
    if (s.n_empty_classes)
        say_line(stdout, "  %d classes have no boxes; train --drop-empty-classes leaves them out",
                 s.n_empty_classes);
    print_histograms(job);
    if (!s.n_annotations) finding(job, "no image has a box: there is nothing to learn or to find");
    if (s.n_duplicate_ids)
        finding(job, "%d annotation ids are used more than once: number them anew",
                s.n_duplicate_ids);
    if (s.n_zero_ids)
        finding(job, "%d annotations have id 0, which pycocotools scores wrongly: number from 1",
                s.n_zero_ids);
    progress_begin(&bar, "checking", n);
    catch_signals();
    gfl_dataset_check_opts look = {0};
    look.found = picture_finding;
    look.progress = picture_stop;
    look.user = job;
    const gfl_status status = gfl_dataset_check(job->context, job->dataset, &look, NULL);
    int code = CMD_OK;
    if (status != GFL_OK && status != GFL_E_STOPPED)
        code = report(job->context, status, "looking at pictures");
    for (int i = 0; code == CMD_OK && i < n && !caught_signal(); i++) {
        code = check_image(job, i);
        progress_step(&bar, i + 1, "%ld findings", job->findings);
    }
    progress_end(&bar);
    if (caught_signal()) return 128 + caught_signal();
    if (code != CMD_OK) return code;
    check_duplicates(job);
    if (job->out && !write_picture(job->out, &job->sheet)) return CMD_FAILED;
    printf("%ld finding%s\n", job->findings, job->findings == 1 ? "" : "s");
    return job->findings ? CMD_DATA : CMD_OK;
}

int cmd_check(int argc, char **argv) {
    check_job job;
    gfl_dataset_desc opts;
    bool polygons = false;
    int n_rest = 0;
    memset(&job, 0, sizeof job);
    memset(&opts, 0, sizeof opts);
    opt options[] = {
        {OPT_TEXT, "data", &job.data, "FILE", "COCO annotations to check.", 0},
        IMAGES_OPTION(OPT_TEXT, job.images),
        POLYGON_OPTION(polygons),
        {OPT_TEXT, "out", &job.out, "FILE",
         "Write a contact sheet: the first pictures with their boxes, as PNG.", 0},
        THREADS_OPTION(job.threads),
        {OPT_END, NULL, NULL, NULL, NULL, 0},
    };
    int code = opt_parse("check --data X.json --images DIR [--out SHEET.png] [options]", options,
                         argc, argv, (const char **)argv, &n_rest);
    if (code >= 0) return code;
    if (!job.data || n_rest) return usage_error("check needs --data FILE, and takes options only");
    code = check_folder("images", job.images);
    if (code == CMD_OK) code = check_replaces("out", job.out, job.data);
    if (code != CMD_OK) return code;
    code = open_context(job.threads, &job.context);
    if (code != CMD_OK) return code;
    opts.image_dir = job.images;
    opts.boxes_from_polygons = polygons;
    opts.skip_unreadable = 1; /* they are findings, and the others are looked at further */
    opts.found = take_mistake;
    opts.found_user = &job;
    gfl_status status = gfl_dataset_load_coco(job.context, job.data, &opts, &job.dataset);
    if (job.findings >= MISTAKES_SHOWN) {
        say_line(stdout, "these are the first %ld mistakes: there may be more behind them",
                 job.findings);
        code = CMD_DATA;
    } else if (status == GFL_E_FORMAT || status == GFL_E_DATA) {
        finding(&job, "%s", gfl_context_get_error(job.context));
        code = CMD_DATA;
    } else {
        code =
            status == GFL_OK ? check_all(&job) : report(job.context, status, "reading annotations");
    }
    gfl_pixels_free(job.context, &job.sheet);
    free(job.hashes);
    gfl_dataset_destroy(job.dataset);
    gfl_context_destroy(job.context);
    return code;
}
