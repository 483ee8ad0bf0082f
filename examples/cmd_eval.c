/* cmd_eval.c - gfl eval: COCO's numbers of a model, or of a result file */
#include "cmd_files.h"
#include <string.h>

typedef struct eval_job {
    const char *data, *images, *weights, *detections, *scale, *results;
    device_choice device;
    bool skip, json, compatible, trust_boxes, polygons;
    int threads;
    double score, nms;
    out_file file; /* of the results */
} eval_job;

static int load_detections(gfl_context *context, const eval_job *job, gfl_evaluator *evaluator) {
    gfl_eval_notes notes;
    const bool is_input = !strcmp(job->detections, "-");
    gfl_status status =
        gfl_evaluator_add_results(evaluator, is_input ? "/dev/stdin" : job->detections);
    if (status != GFL_OK) {
        const int code = report(context, status, "reading detections");
        return status == GFL_E_FORMAT ? CMD_DATA : code;
    }
    gfl_evaluator_get_notes(evaluator, &notes);
    talk("%s: %lld detections", job->detections, (long long)notes.n_results);
    if (notes.n_named_images)
        talk("  %lld of them name their picture by its file", (long long)notes.n_named_images);
    return CMD_OK;
}

static int run_model(gfl_context *context, const eval_job *job, const gfl_dataset *dataset,
                     gfl_evaluator *evaluator) {
    gfl_model *model = NULL;
    gfl_detect_opts opts;
    int unused = 0;
    memset(&opts, 0, sizeof opts);
    opts.min_score = (float)job->score;
    opts.nms_iou = (float)job->nms;
    if (job->scale) opt_scale(job->scale, &opts.scale_long, &opts.scale_short, &unused);
    gfl_status status = gfl_model_import(context, job->weights, NULL, &model);
    if (status != GFL_OK) return report(context, status, "loading weights");
    warn_of_assumed(job->weights, model, job->scale != NULL);
    const int code =
        evaluate_images(context, model, gfl_dataset_count_images(dataset), &opts, evaluator);
    gfl_model_destroy(model);
    return code;
}

static int write_results(gfl_context *context, eval_job *job, const gfl_evaluator *evaluator) {
    gfl_json_writer json = json_to(job->file.f);
    json.spaced = 0;
    const gfl_status status = gfl_evaluator_write(evaluator, &json);
    if (status == GFL_OK || status == GFL_E_IO) /* which is said with its reason */
        return out_commit(&job->file) ? CMD_OK : CMD_FAILED;
    return report(context, status, "writing results");
}

static int evaluate(gfl_context *context, eval_job *job, const gfl_dataset *dataset,
                    gfl_evaluator *evaluator) {
    gfl_eval_result result;
    FILE *f = job->file.f == stdout ? stderr : stdout; /* where people read */
    int code = job->detections ? load_detections(context, job, evaluator)
                               : run_model(context, job, dataset, evaluator);
    if (code == CMD_OK && job->results) code = write_results(context, job, evaluator);
    if (code != CMD_OK) return code;
    const gfl_status status = gfl_evaluator_run(evaluator, &result);
    if (status != GFL_OK) return report(context, status, "evaluating");
    if (job->json) {
        gfl_json_writer json = json_to(stdout);
        write_json_result(&json, NULL, evaluator, &result, dataset);
        gfl_json_line(&json);
    } else {
        print_summary(f, evaluator);
        print_class_table(f, evaluator, dataset);
    }
    return CMD_OK;
}

static int run(eval_job *job) {
    gfl_context *context;
    gfl_dataset *dataset = NULL;
    gfl_evaluator *evaluator = NULL;
    gfl_dataset_desc data_opts;
    gfl_evaluator_desc opts;
    int code = open_context_on(&job->device, job->threads, &context);
    if (code != CMD_OK) return code;
    memset(&data_opts, 0, sizeof data_opts);
    memset(&opts, 0, sizeof opts);
    data_opts.image_dir = job->images;
    data_opts.trust_boxes = job->trust_boxes;
    data_opts.skip_unreadable = job->skip;
    data_opts.boxes_from_polygons = job->polygons;
    opts.compatible = job->compatible;
    gfl_status status = gfl_dataset_load_coco(context, job->data, &data_opts, &dataset);
    if (status != GFL_OK) {
        code = report(context, status, "reading annotations");
        if (status == GFL_E_FORMAT) code = CMD_DATA;
    } else {
        describe_dataset(job->data, dataset);
        if (job->weights) {
            catch_signals();
            code = check_pictures(context, job->data, dataset, job->skip);
        }
        if (code == CMD_OK) status = gfl_evaluator_create(context, dataset, &opts, &evaluator);
        if (status != GFL_OK) code = report(context, status, "preparing the evaluation");
        if (code == CMD_OK) code = evaluate(context, job, dataset, evaluator);
    }
    gfl_evaluator_destroy(evaluator);
    gfl_dataset_destroy(dataset);
    gfl_context_destroy(context);
    return code;
}

/* Options that do not go together or could not be used later: an exit code. */
static int check_options(eval_job *job) {
    const char *const inputs[] = {job->data, job->weights, job->detections};
    int a = 0, b = 0, c = 0;
    if (!job->data) return usage_error("eval needs --data FILE");
    if (job->json && job->results && !strcmp(job->results, "-"))
        return usage_error("--json and --results - both want standard output");
    if (!job->weights == !job->detections)
        return usage_error("eval needs either --weights FILE or --detections FILE");
    if (job->scale && (!opt_scale(job->scale, &a, &b, &c) || c)) return scale_error(job->scale);
    int code = check_thresholds(&job->score, &job->nms);
    if (code == CMD_OK) code = check_folder("images", job->images);
    for (int i = 0; i < 3 && code == CMD_OK; i++)
        code = check_replaces("results", job->results, inputs[i]);
    return code;
}

int cmd_eval(int argc, char **argv) {
    eval_job job;
    int n_rest = 0;
    memset(&job, 0, sizeof job);
    job.score = 0.05;
    job.nms = 0.6;
    opt options[] = {
        {OPT_TEXT, "data", &job.data, "FILE", "COCO annotations to compare with.", 0},
        IMAGES_OPTION(OPT_TEXT, job.images),
        WEIGHTS_OPTION(job.weights),
        {OPT_TEXT, "detections", &job.detections, "FILE",
         "COCO results to evaluate instead of a model; - is standard input. An image_id may also "
         "be the file name of a picture, as gfl detect writes it.",
         0},
        SCALE_OPTION(job.scale),
        {OPT_TEXT, "results", &job.results, "FILE",
         "Write the detections of the model as COCO results, for example OUT.bbox.json; - is "
         "standard output, and the numbers go to standard error then.",
         0},
        JSON_OPTION(job.json),
        {OPT_FLAG, "trust-boxes", &job.trust_boxes, NULL,
         "Evaluate pictures, too, whose size is not the annotated one. Without this option they "
         "are an error.",
         0},
        POLYGON_OPTION(job.polygons),
        SKIP_OPTION(job.skip),
        {OPT_FLAG, "compatible", &job.compatible, NULL,
         "Do as pycocotools does even where it is wrong: a match with annotation id 0 counts as "
         "false, the last of several annotations with one id stands for all, and results of "
         "unknown images are refused.",
         0},
        SCORE_OPTION(job.score),
        NMS_OPTION(job.nms),
        DEVICE_OPTIONS(job.device),
        THREADS_OPTION(job.threads),
        {OPT_END, NULL, NULL, NULL, NULL, 0},
    };
    int code = opt_parse("eval --weights W --data X.json --images DIR [options]\n"
                         "       gfl eval --detections RESULTS.json --data X.json [options]",
                         options, argc, argv, (const char **)argv, &n_rest);
    if (code >= 0) return code;
    if (n_rest) return usage_error("eval takes options only; \"%s\" is not one", argv[0]);
    code = check_options(&job);
    if (code != CMD_OK) return code;
    /* Before hours of work, to know that it can be written. */
    if (job.results && !out_open(&job.file, job.results)) return CMD_FAILED;
    code = run(&job);
    out_abandon(&job.file);
    return code;
}
