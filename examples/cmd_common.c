/* cmd_common.c - what train and eval do alike */
#include "cmd.h"
#include "cmd_os.h"
#include <stdlib.h>
#include <string.h>

static gfl_status write_stream(void *f, const char *bytes, size_t n) {
    return fwrite(bytes, 1, n, (FILE *)f) == n ? GFL_OK : GFL_E_IO;
}

gfl_json_writer json_to(FILE *f) {
    gfl_json_writer json;
    memset(&json, 0, sizeof json);
    json.write = write_stream;
    json.user = f;
    json.spaced = 1;
    return json;
}

/* ---- options --------------------------------------------------------------------------------- */

bool is_same_file(const char *a, const char *b) {
    os_file first, second;
    return os_find(a, &first) && os_find(b, &second) && first.device == second.device &&
           first.number == second.number && first.number != 0;
}

int check_folder(const char *option, const char *path) {
    os_file there;
    if (!path) return CMD_OK;
    if (!os_find(path, &there)) return report_errno("--%s %s", option, path);
    if (there.kind == OS_FOLDER) return CMD_OK;
    talk("gfl: --%s %s: it is not a folder", option, path);
    return CMD_FAILED;
}

int check_replaces(const char *option, const char *path, const char *input) {
    if (!path || !input || !is_same_file(path, input)) return CMD_OK;
    return usage_error("--%s %s would replace %s", option, path, input);
}

int check_thresholds(double *score, double *nms) {
    static const double least = 1e-30;
    if (!(*score >= 0.0 && *score < 1.0))
        return usage_error("--score must be at least 0 and below 1, not %g", *score);
    if (!(*nms >= 0.0 && *nms <= 1.0))
        return usage_error("--nms must be from 0 to 1, not %g", *nms);
    if (*score < least) *score = least;
    if (*nms < least) *nms = least;
    return CMD_OK;
}

int scale_error(const char *text) {
    return usage_error("--scale must be LONGxSHORT, sides of at most %d, not \"%s\"", GFL_MAX_SIDE,
                       text);
}

void warn_of_input(const char *weights, const gfl_origins *from, const gfl_arch *arch,
                   const gfl_preprocess *p) {
    char input[160];
    if (from->style == GFL_ORIGIN_DEFAULT && arch->depth >= 50) /* basic blocks have but one */
        talk("warning: %s does not say where its bottlenecks have their stride: %s style is "
             "assumed; gfl convert --style sets another",
             weights, arch->style == GFL_STYLE_CAFFE ? "caffe" : "pytorch");
    if (from->preprocess != GFL_ORIGIN_DEFAULT) return;
    input_text(p, input, sizeof input);
    talk("warning: %s does not say what input it was trained on: %s is assumed; gfl convert "
         "--mean A,B,C --std A,B,C [--bgr] sets another",
         weights, input);
}

void warn_of_assumed(const char *weights, const gfl_model *model, bool scale_given) {
    gfl_model_info info;
    gfl_model_get_info(model, &info);
    warn_of_input(weights, &info.origins, &info.arch, &info.preprocess);
    if (info.origins.scale == GFL_ORIGIN_DEFAULT && !scale_given)
        talk("warning: %s does not say at which scale it was trained: %dx%d is assumed; --scale "
             "sets another",
             weights, info.preprocess.scale_long, info.preprocess.scale_short);
    if (info.origins.classes == GFL_ORIGIN_DEFAULT)
        talk("warning: %s does not name its classes: %s; gfl convert --classes names them", weights,
             strcmp(info.classes[0].name, "person") ? "they are \"class 0\" and so on"
                                                    : "COCO's 80 names are assumed");
}

/* ---- data sets and their evaluation ---------------------------------------------------------- */

static void warn_count(const char *name, int n, const char *what) {
    if (n) talk("warning: %s: %d %s", name, n, what);
}

static void remark_count(FILE *f, int n, const char *what) {
    if (n) say_line(f, "  %d %s", n, what);
}

void remark_on_dataset(FILE *f, const gfl_dataset_summary *s) {
    remark_count(f, s->n_crowd, "crowd boxes: not learnt, ignored in evaluation as COCO does");
    remark_count(f, s->n_missing_iscrowd, "annotations without iscrowd: taken as 0");
    remark_count(f, s->n_missing_area, "annotations without area: taken as width x height");
    remark_count(f, s->n_unnumbered, "annotations without an id: numbered after the others");
    remark_count(f, s->n_mixed_ids,
                 "annotations write an id as a text that is a number elsewhere "
                 "(\"1\" and 1): taken as the same");
    remark_count(f, s->n_from_polygons, "boxes are those of polygons");
    remark_count(f, s->n_parents,
                 "categories left out: without boxes, and the supercategory of "
                 "others");
}

void describe_dataset(const char *name, const gfl_dataset *dataset) {
    gfl_dataset_summary s;
    const gfl_class *classes = gfl_dataset_get_classes(dataset);
    gfl_dataset_get_summary(dataset, &s);
    talk("%s: %d images (%d without annotations), %d boxes, %d classes", name, s.n_images,
         s.n_empty_images, s.n_annotations, s.n_classes);
    if (s.n_classes <= 20) {
        fputs("  classes:", stderr);
        for (int k = 0; k < s.n_classes; k++)
            say(stderr, "%s %s (id %lld)", k ? "," : "", classes[k].name, (long long)classes[k].id);
        fputc('\n', stderr);
    }
    remark_on_dataset(stderr, &s);
    warn_count(name, s.n_degenerate, "boxes thinner than a pixel or of no area: not trained on");
    warn_count(name, s.n_outside, "boxes outside their image: not trained on");
    warn_count(name, s.n_partly_outside, "boxes reach over the border of their image");
    warn_count(name, s.n_duplicate_ids, "annotation ids are used twice; each box counts once");
    warn_count(name, s.n_zero_ids, "annotations have id 0, which pycocotools scores wrongly");
    warn_count(name, s.n_duplicate_names,
               "classes have the name of another: they cannot be trained");
    warn_count(name, s.n_empty_classes, "classes that no annotation has");
}

static bool is_unnamed(const gfl_class *c, int label) {
    char text[32];
    snprintf(text, sizeof text, "class %d", label);
    return !strcmp(c->name, text);
}

/* Which classes have boxes; NULL after a message. */
static bool *find_used_classes(const gfl_dataset *dataset) {
    bool *used = take((size_t)gfl_dataset_count_classes(dataset), sizeof *used);
    gfl_image_info info;
    for (int k = 0; used && k < gfl_dataset_count_classes(dataset); k++) used[k] = false;
    for (int i = 0; used && i < gfl_dataset_count_images(dataset); i++)
        if (gfl_dataset_get_image(dataset, i, &info) == GFL_OK)
            for (int k = 0; k < info.n_annotations; k++) used[info.annotations[k].label] = true;
    return used;
}

/* Classes of the data set that the model does not know: an exit code after a message, unless no box
 * has them. */
static int check_unknown(const gfl_model_info *info, const gfl_dataset *dataset, const int *map) {
    const gfl_class *classes = gfl_dataset_get_classes(dataset);
    const int n = gfl_dataset_count_classes(dataset);
    int n_unknown = 0, n_common = 0, first = -1;
    bool *used = find_used_classes(dataset);
    if (!used) return CMD_MEMORY;
    for (int j = 0; j < n; j++) {
        bool known = false;
        for (int k = 0; k < info->arch.n_classes; k++) known = known || map[k] == j;
        n_common += known;
        n_unknown += !known && used[j];
        if (!known && used[j] && first < 0) first = j;
    }
    free(used);
    if (n_common == 0)
        talk("gfl: the model and the data set have no class in common: the %d classes of the model "
             "begin with \"%s\", the %d of the data set with \"%s\"",
             info->arch.n_classes, info->classes[0].name, n, classes[0].name);
    else if (first >= 0)
        talk("gfl: the data set has a class \"%s\" that the model does not know (%d such in all); "
             "its %d classes begin with \"%s\"",
             classes[first].name, n_unknown, info->arch.n_classes, info->classes[0].name);
    return n_common == 0 || first >= 0 ? CMD_MISMATCH : CMD_OK;
}

static int check_class_names(const gfl_dataset *dataset) {
    const gfl_class *classes = gfl_dataset_get_classes(dataset);
    gfl_dataset_summary s;
    gfl_dataset_get_summary(dataset, &s);
    for (int j = 1; s.n_duplicate_names && j < s.n_classes; j++)
        for (int k = 0; k < j; k++)
            if (!strcmp(classes[j].name, classes[k].name)) {
                talk("gfl: two categories of the data set, %lld and %lld, are both named \"%s\": "
                     "rename one, or give the boxes of both one id and remove the "
                     "other",
                     (long long)classes[k].id, (long long)classes[j].id, classes[k].name);
                return CMD_DATA;
            }
    return CMD_OK;
}

int match_classes(const gfl_model *model, const gfl_dataset *dataset, int **map) {
    gfl_model_info info;
    gfl_model_get_info(model, &info);
    const gfl_class *theirs = gfl_dataset_get_classes(dataset);
    const int n = gfl_dataset_count_classes(dataset), n_model = info.arch.n_classes;
    bool named = false;
    *map = NULL;
    int code = check_class_names(dataset);
    if (code != CMD_OK) return code;
    *map = take((size_t)n_model, sizeof **map);
    if (!*map) return CMD_MEMORY;
    for (int k = 0; k < n_model; k++) {
        named = named || !is_unnamed(&info.classes[k], k);
        (*map)[k] = -1;
        for (int j = 0; j < n; j++)
            if (!strcmp(info.classes[k].name, theirs[j].name)) (*map)[k] = j;
    }
    if (!named && n == n_model) {
        talk("the weights do not name their classes; they are taken in the data set's order");
        for (int k = 0; k < n; k++) (*map)[k] = k;
    }
    code = check_unknown(&info, dataset, *map);
    if (code == CMD_OK) return CMD_OK;
    free(*map);
    *map = NULL;
    return code;
}

/* Detections with the labels of the data set, those of other classes left out. */
static int translate(const gfl_detections *found, const int *map, gfl_detection *out) {
    int n = 0;
    for (int i = 0; i < found->count; i++) {
        out[n] = found->items[i];
        out[n].label = map[found->items[i].label];
        n += out[n].label >= 0;
    }
    return n;
}

static gfl_status evaluate_one(gfl_detector *detector, const gfl_pixels *pixels, int image,
                               const gfl_detect_opts *opts, const int *map,
                               gfl_evaluator *evaluator) {
    gfl_detections found;
    const gfl_image view = gfl_image_from_rgb(pixels->rgb, pixels->width, pixels->height);
    gfl_status status = gfl_detect(detector, &view, 1, opts, &found);
    if (status == GFL_OK) {
        gfl_detection *own = take((size_t)found.count, sizeof *own);
        status =
            own ? gfl_evaluator_add_detections(evaluator, image, own, translate(&found, map, own))
                : GFL_E_MEMORY;
        free(own);
    }
    return status;
}

/* ---- a look at every picture ---- */

enum { PICTURES_NAMED = 20 };

typedef struct picture_check {
    progress bar;
    bool skip;
    int found;
} picture_check;

static void picture_found(void *user, int image, gfl_status status, const char *text) {
    picture_check *c = user;
    (void)image;
    (void)status;
    if (c->found++ < PICTURES_NAMED) talk("%s%s", c->skip ? "warning: not used: " : "gfl: ", text);
}

static int picture_progress(void *user, int done, int total) {
    picture_check *c = user;
    (void)total;
    progress_step(&c->bar, done, "%d cannot be read", c->found);
    return caught_signal() != 0;
}

int check_pictures(gfl_context *context, const char *name, gfl_dataset *dataset, bool skip) {
    picture_check c;
    gfl_dataset_check_opts opts = {0};
    int n = 0;
    const int total = gfl_dataset_count_images(dataset);
    memset(&c, 0, sizeof c);
    c.skip = skip;
    opts.found = picture_found;
    opts.progress = picture_progress;
    opts.user = &c;
    progress_begin(&c.bar, "looking at pictures", total);
    const gfl_status status = gfl_dataset_check(context, dataset, &opts, &n);
    progress_end(&c.bar);
    if (status == GFL_E_STOPPED) return 128 + caught_signal();
    if (n)
        talk("%s%s: %d of %d pictures cannot be read", c.skip ? "warning: " : "gfl: ", name, n,
             total);
    if (status != GFL_OK && n) return CMD_DATA;
    return status == GFL_OK ? CMD_OK : report(context, status, "looking at pictures");
}

/* With skip, one that cannot be read. */
static gfl_status leave_out(gfl_context *context, gfl_evaluator *evaluator, int image) {
    talk("warning: left out: %s", gfl_context_get_error(context));
    return gfl_evaluator_leave_out(evaluator, image);
}

bool evaluate_images(gfl_context *context, const gfl_model *model, const gfl_dataset *dataset,
                     const gfl_detect_opts *opts, bool skip, gfl_evaluator *evaluator, int *code) {
    const int n = gfl_dataset_count_images(dataset);
    int *map = NULL;
    gfl_detector *detector = NULL;
    progress bar;
    *code = match_classes(model, dataset, &map);
    if (*code != CMD_OK) return false;
    gfl_status status = gfl_detector_create(context, model, NULL, &detector);
    progress_begin(&bar, "evaluating", n);
    for (int i = 0; status == GFL_OK && i < n && !caught_signal(); i++) {
        gfl_pixels pixels;
        gfl_image_info info;
        gfl_dataset_get_image(dataset, i, &info);
        if (info.unreadable) continue; /* and known to the evaluator */
        status = gfl_dataset_read(context, dataset, i, &pixels);
        if (status == GFL_OK)
            status = evaluate_one(detector, &pixels, i, opts, map, evaluator);
        else if (skip && (status == GFL_E_IO || status == GFL_E_FORMAT || status == GFL_E_DATA ||
                          status == GFL_E_UNSUPPORTED))
            status = leave_out(context, evaluator, i);
        gfl_pixels_free(context, &pixels);
        progress_step(&bar, i + 1, "%s", "");
    }
    progress_end(&bar);
    if (status != GFL_OK)
        *code = report(context, status, "evaluating");
    else if (caught_signal())
        *code = 128 + caught_signal();
    gfl_detector_destroy(detector);
    free(map);
    return *code == CMD_OK;
}

void print_summary(FILE *f, const gfl_evaluator *evaluator) {
    char text[2048];
    gfl_evaluator_get_summary(evaluator, text, sizeof text);
    fputs(text, f);
}

void print_class_table(FILE *f, const gfl_evaluator *evaluator, const gfl_dataset *dataset) {
    const gfl_class *classes = gfl_dataset_get_classes(dataset);
    gfl_eval_result r;
    fprintf(f, "\n%-24s %7s %7s %7s %7s %7s %7s\n", "class", "mAP", "mAP_50", "mAP_75", "mAP_s",
            "mAP_m", "mAP_l");
    for (int k = 0; k < gfl_dataset_count_classes(dataset); k++) {
        if (gfl_evaluator_get_class_result(evaluator, k, &r) != GFL_OK) continue;
        say_line(f, "%-24s %7.3f %7.3f %7.3f %7.3f %7.3f %7.3f", classes[k].name, r.ap, r.ap50,
                 r.ap75, r.ap_small, r.ap_medium, r.ap_large);
    }
}

static void write_numbers(gfl_json_writer *json, const gfl_eval_result *r) {
    const struct {
        const char *key;
        double value;
    } numbers[] = {
        {"bbox_mAP", r->ap},         {"bbox_mAP_50", r->ap50},     {"bbox_mAP_75", r->ap75},
        {"bbox_mAP_s", r->ap_small}, {"bbox_mAP_m", r->ap_medium}, {"bbox_mAP_l", r->ap_large},
        {"AR_1", r->ar[0]},          {"AR_10", r->ar[1]},          {"AR_100", r->ar[2]},
        {"AR_s", r->ar_small},       {"AR_m", r->ar_medium},       {"AR_l", r->ar_large}};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        gfl_json_number(json, numbers[i].key, numbers[i].value);
}

void write_json_result(gfl_json_writer *json, const char *key, const gfl_evaluator *evaluator,
                       const gfl_eval_result *result, const gfl_dataset *dataset) {
    const gfl_class *classes = gfl_dataset_get_classes(dataset);
    gfl_eval_result r;
    gfl_json_object(json, key);
    write_numbers(json, result);
    gfl_json_array(json, "per_class");
    for (int k = 0; k < gfl_dataset_count_classes(dataset); k++) {
        if (gfl_evaluator_get_class_result(evaluator, k, &r) != GFL_OK) continue;
        gfl_json_object(json, NULL);
        gfl_json_integer(json, "id", classes[k].id);
        gfl_json_text(json, "name", classes[k].name);
        write_numbers(json, &r);
        gfl_json_end(json);
    }
    gfl_json_end(json);
    gfl_json_end(json);
}
