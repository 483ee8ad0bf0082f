/* cmd_convert.c - gfl convert: anyone's checkpoint or backbone as a weight file of gfl */
#include "cmd.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct convert_job {
    const char *in, *out, *dialect, *style, *classes, *mean, *std, *scale;
    bool backbone, bgr, json;
    gfl_json_writer stdout_json;
    gfl_context *context;
    gfl_model *model;
    gfl_import_desc opts;
    gfl_preprocess input; /* that opts points to */
} convert_job;

static bool three_numbers(const char *text, float out[3]) {
    char *end = NULL;
    for (int i = 0; i < 3; i++) {
        const double v = strtod(text, &end);
        if (end == text || *end != (i < 2 ? ',' : 0) || !(fabs(v) < 1e6)) return false;
        out[i] = (float)v;
        text = end + 1;
    }
    return true;
}

static int read_demands(convert_job *job) {
    const int dialect = opt_choice("dialect", job->dialect, "mmdet", "gfocal");
    const int style = opt_choice("style", job->style, "pytorch", "caffe");
    int unused = 0;
    if (dialect < 0 || style < 0) return CMD_USAGE;
    job->opts.trainable = 1;
    job->opts.dialect = (gfl_dialect)dialect;
    job->opts.style = (gfl_style)style;
    job->opts.preprocess = &job->input;
    if (!job->mean != !job->std || (job->bgr && !job->mean))
        return usage_error("--mean and --std must be given together, and --bgr only with them");
    if (job->mean &&
        (!three_numbers(job->mean, job->input.mean) || !three_numbers(job->std, job->input.std) ||
         !(job->input.std[0] > 0) || !(job->input.std[1] > 0) || !(job->input.std[2] > 0)))
        return usage_error("--mean and --std must each be three numbers, as in "
                           "123.675,116.28,103.53, and those of --std positive");
    job->input.bgr = job->bgr;
    if (job->scale &&
        (!opt_scale(job->scale, &job->input.scale_long, &job->input.scale_short, &unused) ||
         unused))
        return scale_error(job->scale);
    return CMD_OK;
}

/* Whatever is written was loaded: what is not is an error, or the end of a backbone. */
static void print_result(convert_job *job) {
    int counts[3];
    count_fates(job->model, counts);
    if (!job->json) {
        print_tensors(stdout, job->model, 1u << GFL_FATE_LEFT_OVER);
        printf("tensors        %d loaded, %d left over\n", counts[GFL_FATE_LOADED],
               counts[GFL_FATE_LEFT_OVER]);
        say_line(stdout, "written        %s", job->out);
        return;
    }
    gfl_json_text(&job->stdout_json, "to", job->out);
    gfl_json_integer(&job->stdout_json, "loaded", counts[GFL_FATE_LOADED]);
    gfl_json_integer(&job->stdout_json, "left_over", counts[GFL_FATE_LEFT_OVER]);
    write_tensors_json(&job->stdout_json, job->model,
                       1u << GFL_FATE_LOADED | 1u << GFL_FATE_LEFT_OVER);
    gfl_json_end(&job->stdout_json);
    gfl_json_line(&job->stdout_json);
}

/* Begins the object on stdout that print_result ends. */
static gfl_json_writer *begin_json(convert_job *job, const char *kind) {
    job->stdout_json = json_to(stdout);
    gfl_json_object(&job->stdout_json, NULL);
    gfl_json_text(&job->stdout_json, "from", job->in);
    gfl_json_text(&job->stdout_json, "kind", kind);
    return &job->stdout_json;
}

/* ---- detectors ------------------------------------------------------------------------------- */

static int convert_detector(convert_job *job) {
    gfl_model_info info;
    class_list classes = {NULL, 0};
    int code = job->classes ? read_classes(job->context, job->classes, &classes) : CMD_OK;
    if (code != CMD_OK) return code;
    job->opts.classes = classes.items;
    job->opts.n_classes = classes.n;
    gfl_status status = gfl_model_import(job->context, job->in, &job->opts, &job->model);
    free_classes(&classes);
    if (status == GFL_OK) status = gfl_model_save(job->model, job->out);
    if (status != GFL_OK) return report(job->context, status, "converting");
    gfl_model_get_info(job->model, &info);
    if (job->json) {
        write_model_json(begin_json(job, "detector"), &info);
    } else {
        print_model(stdout, &info);
    }
    print_result(job);
    return CMD_OK;
}

/* ---- backbones ------------------------------------------------------------------------------- */

/* Is the tensor of a stage that the file has? */
static bool is_promised(const gfl_tensor_report *t, int stages) {
    int stage = 0;
    return sscanf(t->name, "backbone.layer%d.", &stage) != 1 || stage <= stages;
}

static int check_whole(const convert_job *job, int stages) {
    gfl_tensor_report t;
    for (int i = 0; gfl_model_get_report(job->model, i, &t) == GFL_OK; i++) {
        if (t.fate != GFL_FATE_INITIALISED || !is_promised(&t, stages)) continue;
        talk("gfl: converting: %s: %s: %s; the file is incomplete", job->in, t.name, t.why);
        return CMD_MISMATCH;
    }
    return CMD_OK;
}

static int convert_backbone(convert_job *job) {
    gfl_backbone_info b;
    gfl_model_desc desc;
    memset(&desc, 0, sizeof desc);
    gfl_status status = gfl_backbone_describe(job->context, job->in, &job->opts, &b);
    desc.arch = b.arch;
    desc.preprocess = b.preprocess;
    desc.trainable = 1;
    if (status == GFL_OK) status = gfl_model_create(job->context, &desc, &job->model);
    if (status == GFL_OK) status = gfl_model_load_backbone(job->model, job->in);
    int code = status == GFL_OK ? check_whole(job, b.stages) : CMD_OK;
    if (code != CMD_OK) return code;
    if (status == GFL_OK) status = gfl_model_save_backbone(job->model, b.stages, job->out);
    if (status != GFL_OK) return report(job->context, status, "converting");
    if (job->json) {
        gfl_json_writer *json = begin_json(job, "backbone");
        write_backbone_json(json, &b.arch);
        gfl_json_integer(json, "stages", b.stages);
        write_input_json(json, &b.preprocess);
    } else {
        fputs("backbone       ", stdout);
        print_backbone(stdout, &b.arch, b.style);
        if (b.stages < 4) printf(", without layer%d", b.stages + 1);
        fputs("\ninput          ", stdout);
        print_input(stdout, &b.preprocess);
        puts(b.input == GFL_ORIGIN_DEFAULT ? " (assumed: the file does not say)" : "");
    }
    print_result(job);
    return CMD_OK;
}

int cmd_convert(int argc, char **argv) {
    convert_job job;
    int n_rest = 0;
    memset(&job, 0, sizeof job);
    opt options[] = {
        {OPT_TEXT, "dialect", &job.dialect, "NAME",
         "Refuse weights that are not of this dialect, mmdet or gfocal; where the file does not "
         "say, it is taken to be of it.",
         0},
        {OPT_TEXT, "classes", &job.classes, "LIST",
         "Names of the classes: a,b,c, or a file with one name per line or with COCO annotations.",
         0},
        {OPT_TEXT, "style", &job.style, "NAME",
         "pytorch or caffe: which convolution of a block has the stride, where the file does not "
         "say.",
         0},
        {OPT_TEXT, "mean", &job.mean, "A,B,C",
         "Mean of each input channel, instead of what the file says.", 0},
        {OPT_TEXT, "std", &job.std, "A,B,C",
         "With --mean: standard deviation of each input channel.", 0},
        {OPT_FLAG, "bgr", &job.bgr, NULL, "With --mean: the first channel is blue, not red.", 0},
        {OPT_TEXT, "scale", &job.scale, "LxS",
         "Pictures are resized to fit into this long and short side, instead of what the file "
         "says.",
         0},
        {OPT_FLAG, "backbone", &job.backbone, NULL,
         "Convert only a backbone, for gfl train --weights.", 0},
        JSON_OPTION(job.json),
        {OPT_END, NULL, NULL, NULL, NULL, 0},
    };
    int code = opt_parse("convert IN.pth|IN.safetensors OUT.safetensors [options]", options, argc,
                         argv, (const char **)argv, &n_rest);
    if (code >= 0) return code;
    if (n_rest != 2) return usage_error("convert needs two files: one to read and one to write");
    job.in = argv[0];
    job.out = argv[1];
    if (is_same_file(job.in, job.out))
        return usage_error("%s would be overwritten; name another file", job.in);
    if (job.backbone && (job.classes || job.dialect))
        return usage_error("a backbone has neither classes nor a dialect");
    code = read_demands(&job);
    if (code != CMD_OK) return code;
    code = open_context(1, &job.context);
    if (code != CMD_OK) return code;
    code = job.backbone ? convert_backbone(&job) : convert_detector(&job);
    gfl_model_destroy(job.model);
    gfl_context_destroy(job.context);
    return code;
}
