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

static int evaluation_progress(void *user, int done, int total) {
    (void)total;
    progress_step(user, done, "%s", "");
    return caught_signal() != 0;
}

int evaluate_images(gfl_context *context, const gfl_model *model, int n_images,
                    const gfl_detect_opts *opts, gfl_evaluator *evaluator) {
    gfl_evaluate_desc how = {0};
    progress bar;
    how.detect = opts;
    how.progress = evaluation_progress;
    how.user = &bar;
    progress_begin(&bar, "evaluating", n_images);
    const gfl_status status = gfl_evaluator_add_model(evaluator, model, &how);
    progress_end(&bar);
    if (status == GFL_E_STOPPED) return 128 + caught_signal();
    return status == GFL_OK ? CMD_OK : report(context, status, "evaluating");
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
