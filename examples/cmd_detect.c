/* cmd_detect.c - gfl detect: pictures in; drawings, COCO results or lines of text out */
#include "cmd_files.h"
#include <stdlib.h>
#include <string.h>

typedef struct detect_job {
    const char *weights, *out, *results, *scale, *classes;
    device_choice device;
    bool json, distributions, agnostic;
    int threads, max;
    double score, nms;
    picture_list pictures;
    gfl_context *context;
    gfl_model_info info;
    class_list wanted; /* of --classes */
    int *labels;       /* [wanted.n] */
    out_file file;     /* of the results */
    gfl_json_writer results_json, stdout_json;
    int done, failed; /* pictures */
    bool short_of_memory;
} detect_job;

/* ---- output ---------------------------------------------------------------------------------- */

static bool make_folder(const char *path) {
    char failed[4096];
    if (os_make_folder(path, failed)) return true;
    report_errno("%s cannot be made", failed);
    return false;
}

static bool draw(const detect_job *job, const picture *one, gfl_pixels *pixels,
                 const gfl_detection_list *found) {
    char *path = join_path(job->out, one->drawing);
    if (!path) return false;
    draw_detections(pixels, found->items, found->count, job->info.classes);
    const size_t folder = os_folder_length(path); /* at least the --out folder's */
    const char separator = path[folder - 1];
    path[folder - 1] = 0;
    bool good = make_folder(path);
    path[folder - 1] = separator;
    good = good && write_picture(path, pixels);
    free(path);
    return good;
}

static void write_results(detect_job *job, const picture *one, const gfl_detection_list *found) {
    gfl_json_writer *json = &job->results_json;
    for (int i = 0; i < found->count; i++) {
        const gfl_detection *d = &found->items[i];
        gfl_json_line(json);
        gfl_json_object(json, NULL);
        write_name(json, "image_id", one->name);
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

static void write_failure_json(gfl_json_writer *json, const picture *one, const char *why) {
    gfl_json_line(json);
    gfl_json_object(json, NULL);
    write_name(json, "file", one->shown);
    gfl_json_text(json, "error", why);
    gfl_json_end(json);
}

static void write_picture_json(detect_job *job, const picture *one, const gfl_pixels *pixels,
                               const gfl_detection_list *found) {
    gfl_json_writer *json = &job->stdout_json;
    gfl_json_line(json);
    gfl_json_object(json, NULL);
    write_name(json, "file", one->shown);
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

static void print_lines(const detect_job *job, const picture *one,
                        const gfl_detection_list *found) {
    for (int i = 0; i < found->count; i++) {
        const gfl_detection *d = &found->items[i];
        say(stdout, "%s", one->shown);
        putchar('\t');
        say(stdout, "%s", job->info.classes[d->label].name);
        printf("\t%.4f\t%.1f\t%.1f\t%.1f\t%.1f\n", (double)d->score, (double)d->x1, (double)d->y1,
               (double)d->x2, (double)d->y2);
    }
}

/* ---- the work -------------------------------------------------------------------------------- */

static int skip_picture(detect_job *job, const picture *one, gfl_status status) {
    const char *why = gfl_context_get_error(job->context);
    talk("gfl: %s", why);
    if (job->json) write_failure_json(&job->stdout_json, one, why);
    job->short_of_memory = job->short_of_memory || status == GFL_E_MEMORY;
    job->failed++;
    return CMD_OK;
}

/* One picture; CMD_OK also when it could not be read, which is counted. */
static int detect_one(detect_job *job, gfl_detector *detector, const gfl_detect_opts *opts,
                      const picture *one) {
    gfl_pixels pixels;
    gfl_detection_list found;
    gfl_status status = gfl_image_read(job->context, one->path, &pixels);
    if (status != GFL_OK) return skip_picture(job, one, status);
    const gfl_image image = gfl_image_from_rgb(pixels.rgb, pixels.width, pixels.height);
    int code = CMD_OK;
    status = gfl_detect(detector, &image, 1, opts, &found);
    if (status != GFL_OK) {
        code = report(job->context, status, one->path);
    } else {
        if (job->json)
            write_picture_json(job, one, &pixels, &found);
        else if (!job->out && !job->results)
            print_lines(job, one, &found);
        if (job->file.f) write_results(job, one, &found);
        if (job->out && !draw(job, one, &pixels, &found)) code = CMD_FAILED;
    }
    gfl_pixels_free(job->context, &pixels);
    return code;
}

/* Whoever reads what is written gets each picture at once; nobody may read any more. */
static bool is_heard(const detect_job *job) {
    return fflush(stdout) == 0 && !(job->file.f && ferror(job->file.f));
}

static int detect_each(detect_job *job, gfl_detector *detector, const gfl_detect_opts *opts) {
    progress bar;
    int code = CMD_OK;
    progress_begin(&bar, "detecting", job->pictures.n);
    catch_signals();
    while (code == CMD_OK && job->done < job->pictures.n && !caught_signal()) {
        code = detect_one(job, detector, opts, &job->pictures.items[job->done]);
        if (code == CMD_OK) progress_step(&bar, ++job->done, "%s", "");
        if (code == CMD_OK && !is_heard(job)) code = CMD_FAILED; /* said where files are closed */
    }
    progress_end(&bar);
    return code == CMD_OK && caught_signal() ? 128 + caught_signal() : code;
}

static int detect_all(detect_job *job, gfl_detector *detector) {
    gfl_detect_opts opts;
    int unused = 0;
    memset(&opts, 0, sizeof opts);
    opts.min_score = (float)job->score;
    opts.nms_iou = (float)job->nms;
    opts.max_detections = job->max;
    opts.labels = job->labels;
    opts.n_labels = job->labels ? job->wanted.n : 0;
    opts.agnostic = job->agnostic;
    if (job->scale) opt_scale(job->scale, &opts.scale_long, &opts.scale_short, &unused);
    job->stdout_json = json_to(stdout);
    if (job->json) gfl_json_object(&job->stdout_json, NULL);
    if (job->json) gfl_json_array(&job->stdout_json, "images");
    const int code = detect_each(job, detector, &opts);
    if (job->json) {
        gfl_json_end(&job->stdout_json);
        gfl_json_bool(&job->stdout_json, "complete", job->done == job->pictures.n);
        gfl_json_end(&job->stdout_json);
        gfl_json_line(&job->stdout_json);
    }
    if (code != CMD_OK || !(job->failed + job->pictures.unreadable)) return code;
    if (job->failed) talk("gfl: %d of %d pictures could not be read", job->failed, job->pictures.n);
    return job->short_of_memory ? CMD_MEMORY : CMD_FAILED;
}

static int with_model(detect_job *job) {
    gfl_model *model = NULL;
    gfl_detector *detector = NULL;
    gfl_detector_desc desc = {0};
    desc.distributions = job->distributions;
    gfl_status status = gfl_model_import(job->context, job->weights, NULL, &model);
    if (status == GFL_OK) {
        gfl_model_get_info(model, &job->info);
        warn_of_assumed(job->weights, model, job->scale != NULL);
        status = gfl_detector_create(job->context, model, &desc, &detector);
    }
    int code = status == GFL_OK ? CMD_OK : report(job->context, status, "loading weights");
    if (code == CMD_OK && job->classes) code = find_labels(&job->info, &job->wanted, &job->labels);
    if (code == CMD_OK) code = detect_all(job, detector);
    free(job->labels);
    gfl_detector_destroy(detector);
    gfl_model_destroy(model);
    return code;
}

/* The file of results is opened before hours of work, and gets its name only when every picture has
 * been looked at: a complete one is never replaced by a part. */
static int with_results(detect_job *job) {
    if (!job->results) return with_model(job);
    if (!out_open(&job->file, job->results)) return CMD_FAILED;
    job->results_json = json_to(job->file.f);
    gfl_json_array(&job->results_json, NULL);
    const int code = with_model(job);
    gfl_json_end(&job->results_json);
    gfl_json_line(&job->results_json);
    if (job->done == job->pictures.n) return out_commit(&job->file) ? code : CMD_FAILED;
    if (job->done > 0)
        out_keep_part(&job->file);
    else
        out_abandon(&job->file);
    return code;
}

/* Do the results replace what they are made of? */
static int check_results(const detect_job *job) {
    if (!job->results) return CMD_OK;
    int code = check_replaces("results", job->results, job->weights);
    for (int i = 0; code == CMD_OK && i < job->pictures.n; i++)
        code = check_replaces("results", job->results, job->pictures.items[i].path);
    return code == CMD_OK ? check_names(&job->pictures) : code;
}

static int find_pictures(detect_job *job, char **arguments, int n) {
    int code = CMD_OK;
    for (int i = 0; code == CMD_OK && i < n; i++)
        code = add_pictures(&job->pictures, arguments[i], job->out);
    if (code == CMD_OK && !job->pictures.n) {
        if (!job->pictures.unreadable) talk("gfl: there is no picture in these folders");
        code = CMD_FAILED;
    }
    if (code == CMD_OK) code = check_results(job);
    if (code == CMD_OK && job->out) code = name_drawings(&job->pictures, job->out);
    if (code == CMD_OK && job->out && !make_folder(job->out)) code = CMD_FAILED;
    return code == CMD_OK ? check_folder("out", job->out) : code;
}

static int run(detect_job *job) {
    int code = open_context_on(&job->device, job->threads, &job->context);
    if (code == CMD_OK && job->classes)
        code = read_classes(job->context, job->classes, &job->wanted);
    if (code == CMD_OK) code = with_results(job);
    free_classes(&job->wanted);
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
        WEIGHTS_OPTION(job.weights),
        {OPT_TEXT, "out", &job.out, "DIR",
         "Draw the detections into copies of the pictures, in this folder and under the same "
         "names. A copy of what is not JPEG or PNG is PNG and has .png behind its name; where two "
         "drawings would have the same name, the later one gets a number (x-2.jpg). A picture is "
         "never replaced.",
         0},
        {OPT_TEXT, "results", &job.results, "FILE",
         "Write COCO results, whose image_id is the name of the picture within the folder that was "
         "given; - is standard output. The file is replaced only when every picture has been "
         "looked at: what an interrupted run found is in FILE.partial.",
         0},
        SCORE_OPTION(job.score),
        NMS_OPTION(job.nms),
        {OPT_INT, "max", &job.max, "N", "Keep at most N detections per picture.", 0},
        {OPT_TEXT, "classes", &job.classes, "LIST",
         "Find objects of these classes alone: names or labels a,b,c, or a file with one name per "
         "line. The other classes are left out before the N best detections are chosen.",
         0},
        {OPT_FLAG, "agnostic", &job.agnostic, NULL,
         "Compare a box with better boxes of every class, not with those of its own class alone, "
         "so "
         "that an object is found once, with its best class.",
         0},
        SCALE_OPTION(job.scale),
        JSON_OPTION(job.json),
        {OPT_FLAG, "distributions", &job.distributions, NULL,
         "With --json: the distance of each side of a box and its standard deviation.", 0},
        DEVICE_OPTIONS(job.device),
        THREADS_OPTION(job.threads),
        {OPT_END, NULL, NULL, NULL, NULL, 0},
    };
    int code = opt_parse("detect --weights W [options] PICTURE|FOLDER ...", options, argc, argv,
                         (const char **)argv, &n_rest);
    if (code >= 0) return code;
    if (!job.weights) return usage_error("detect needs --weights FILE");
    if (!n_rest) return usage_error("detect needs a picture or a folder");
    if (job.scale && (!opt_scale(job.scale, &a, &b, &c) || c)) return scale_error(job.scale);
    if (job.distributions && !job.json) return usage_error("--distributions goes with --json");
    if (job.max < 1) return usage_error("--max must be at least 1");
    if (job.json && job.results && !strcmp(job.results, "-"))
        return usage_error("--json and --results - cannot both write to standard output");
    code = check_thresholds(&job.score, &job.nms);
    if (code != CMD_OK) return code;
    code = find_pictures(&job, argv, n_rest);
    if (code == CMD_OK) code = run(&job);
    free_pictures(&job.pictures);
    return code;
}
