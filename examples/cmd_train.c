/* cmd_train.c - gfl train: say what will be done, do it, evaluate every epoch, keep last and best */
#define _POSIX_C_SOURCE 200809L
#include "cmd_os.h"
#include "cmd_run.h"
#include <stdlib.h>
#include <string.h>

typedef struct train_options {
    const char *data, *images, *val, *val_images, *steps, *out;
    model_start start;
    int epochs, batch, accumulate, warmup, frozen, threads, loaders, eval_every, save_every;
    double lr, momentum, decay, clip;
    bool resume, overwrite, flip, drop_empty, drop_empty_classes, polygons, grouping;
} train_options;

typedef struct run {
    train_options o;
    opt *table;
    gfl_context *context;
    gfl_dataset *data, *val;
    gfl_model *model;
    gfl_trainer *trainer;
    gfl_train_plan plan;
    run_folder folder;
    double started;
} run;

/* ---- preparation ----------------------------------------------------------------------------- */

static int load_data(run *r) {
    gfl_dataset_opts opts;
    memset(&opts, 0, sizeof opts);
    opts.image_dir = r->o.images;
    opts.boxes_from_polygons = r->o.polygons;
    opts.drop_empty_classes = r->o.drop_empty_classes;
    gfl_status status = gfl_dataset_load_coco(r->context, r->o.data, &opts, &r->data);
    if (status == GFL_OK && r->o.val) {
        opts.image_dir = r->o.val_images;
        opts.drop_empty_classes = 0; /* the model's classes are those of the training data */
        status = gfl_dataset_load_coco(r->context, r->o.val, &opts, &r->val);
    }
    if (status != GFL_OK) {
        int code = report(r->context, status, "reading annotations");
        return status == GFL_E_FORMAT ? CMD_DATA : code;
    }
    gfl_dataset_summary s;
    gfl_dataset_get_summary(r->data, &s);
    describe_dataset(r->o.data, r->data);
    if (s.n_annotations == s.n_crowd) {
        talk("gfl: %s has no box to learn from", r->o.data);
        return CMD_DATA;
    }
    if (!r->val) return CMD_OK;
    describe_dataset(r->o.val, r->val);
    gfl_dataset_get_summary(r->val, &s);
    if (s.n_annotations == s.n_crowd)
        talk("warning: %s has no box to find: AP will be -1, and no weights the best", r->o.val);
    return CMD_OK;
}

static int make_model(run *r) {
    const gfl_model_opts opts = {
        1, (gfl_dialect)opt_choice("dialect", r->o.start.dialect, "mmdet", "gfocal")};
    if (!r->o.resume) return start_model(r->context, &r->o.start, r->data, &r->model);
    gfl_status status =
        gfl_model_load(r->context, run_file(&r->folder, "last.safetensors"), &opts, &r->model);
    return status == GFL_OK ? CMD_OK : report(r->context, status, "--resume");
}

/* "6,7" into the description. */
static int parse_steps(const char *text, gfl_train_desc *desc) {
    char *end;
    for (const char *p = text; p && *p; p = *end ? end + 1 : end) {
        long epoch = strtol(p, &end, 10);
        if (end == p || (*end && *end != ',') || epoch < 0 || epoch > 1000000 ||
            desc->n_milestones == GFL_MAX_MILESTONES)
            return usage_error("--steps wants up to %d epochs as in 8,11, not \"%s\"",
                               GFL_MAX_MILESTONES, text);
        desc->milestones[desc->n_milestones++] = (int)epoch;
    }
    if (text && (!*text || !strcmp(text, "0"))) {
        desc->milestones[0] = 0;
        desc->n_milestones = -1;
    }
    return CMD_OK;
}

static int make_trainer(run *r) {
    const train_options *o = &r->o;
    gfl_train_desc d;
    int scale_long = 0, scale_short = 0;
    memset(&d, 0, sizeof d);
    int code = parse_steps(o->steps, &d);
    if (code != CMD_OK) return code;
    if (o->start.scale) {
        opt_scale(o->start.scale, &scale_long, &scale_short, &d.scale_short_min);
        d.scale_long = scale_long;
        d.scale_short = scale_short;
    }
    d.batch = o->batch;
    d.accumulate = o->accumulate;
    d.epochs = o->epochs;
    d.lr = o->lr;
    d.momentum = o->momentum > 0 ? o->momentum : -1;
    d.weight_decay = o->decay > 0 ? o->decay : -1;
    d.warmup = o->warmup > 0 ? o->warmup : o->warmup < 0 ? 0 : -1;
    d.clip_norm = o->clip;
    d.frozen_stages = o->frozen > 0 ? o->frozen : -1;
    d.no_flip = !o->flip;
    d.drop_empty = o->drop_empty;
    d.no_grouping = !o->grouping;
    d.loaders = o->loaders > 0 ? o->loaders : -1;
    d.seed = (uint64_t)o->start.seed;
    gfl_status status = gfl_trainer_create(r->context, r->model, r->data, &d, &r->trainer);
    if (status == GFL_OK && o->resume)
        status = gfl_trainer_load_state(r->trainer, run_file(&r->folder, "last.state.safetensors"));
    if (status != GFL_OK) return report(r->context, status, "preparing the training");
    gfl_trainer_get_plan(r->trainer, &r->plan);
    r->o.warmup = r->plan.desc.warmup > 0 ? r->plan.desc.warmup : 0; /* for config.txt */
    return CMD_OK;
}

static void describe_plan(const run *r) {
    const gfl_train_desc *d = &r->plan.desc;
    gfl_model_info info;
    gfl_model_get_info(r->model, &info);
    fputs("model: ", stderr);
    print_backbone(stderr, &info.arch, info.origins.style);
    talk(", %.2f million parameters, %d classes", (double)info.n_parameters * 1e-6,
         info.arch.n_classes);
    fputs("input: ", stderr);
    print_input(stderr, &info.preprocess);
    talk("%s", "");
    talk("images: resized to fit %dx%d%s, %d used, %d left out%s", d->scale_long, d->scale_short,
         d->scale_short_min ? " (short side varies)" : "", r->plan.n_images,
         r->plan.n_dropped_images, d->drop_empty ? " (--drop-empty)" : ", empty ones kept");
    talk("memory: at most %.0f MB for maps, gradients and momentum, beside %.0f MB of weights",
         (double)r->plan.workspace_bytes * 1e-6, (double)info.n_parameters * 8e-6);
    talk("schedule: %d epochs of %d steps of %d images; learning rate %g%s, warm-up %d steps",
         d->epochs, r->plan.steps_per_epoch, d->batch * d->accumulate, d->lr,
         r->o.lr > 0 ? "" : " (0.01 x images / 16)", d->warmup > 0 ? d->warmup : 0);
    if (d->batch < r->o.batch)
        talk("  a batch is all %d images: there are fewer than --batch %d asks for", d->batch,
             r->o.batch);
    else if (d->accumulate < r->o.accumulate)
        talk("  a step is the %d batches of an epoch: fewer than --accumulate %d asks for",
             d->accumulate, r->o.accumulate);
    if (d->warmup >= r->plan.n_steps)
        talk("warning: the warm-up lasts longer than the training, whose rate never gets to %g; "
             "lower --warmup",
             d->lr);
    for (int i = 0; i < d->n_milestones; i++)
        talk("  divided by 10 after epoch %d", d->milestones[i]);
    if (d->frozen_stages < 0)
        talk("frozen: nothing but batch norm's statistics");
    else
        talk("frozen: stem and %d stage%s", d->frozen_stages, d->frozen_stages == 1 ? "" : "s");
}

/* ---- evaluation ------------------------------------------------------------------------------ */

static int evaluate_epoch(run *r, const gfl_step_report *at) {
    gfl_evaluator *evaluator = NULL;
    gfl_eval_result result;
    gfl_detect_opts opts;
    int code = CMD_OK;
    memset(&opts, 0, sizeof opts);
    opts.no_clip = 1;
    gfl_status status = gfl_trainer_sync(r->trainer);
    if (status == GFL_OK) status = gfl_evaluator_create(r->context, r->val, NULL, &evaluator);
    if (status != GFL_OK) return report(r->context, status, "evaluating");
    if (evaluate_images(r->context, r->model, r->val, &opts, evaluator, &code)) {
        status = gfl_evaluator_run(evaluator, &result);
        if (status != GFL_OK) {
            code = report(r->context, status, "evaluating");
        } else {
            print_summary(stdout, evaluator);
            fflush(stdout);
            code = run_log_evaluation(&r->folder, r->context, r->model, evaluator, &result, r->val,
                                      at);
        }
    }
    gfl_evaluator_destroy(evaluator);
    return code;
}

/* ---- the loop -------------------------------------------------------------------------------- */

static int save_last(run *r) {
    return run_save(&r->folder, r->context, r->model, r->trainer);
}

/* Save and, where it is due, evaluate at the end of an epoch. */
static int end_epoch(run *r, const gfl_step_report *at) {
    const int epoch = at->epoch + 1;
    int code = save_last(r);
    const bool due =
        r->o.eval_every > 0 && (epoch % r->o.eval_every == 0 || epoch == r->plan.desc.epochs);
    if (code == CMD_OK && r->val && due && r->folder.evaluated < epoch && !caught_signal())
        code = evaluate_epoch(r, at);
    run_end_epoch(&r->folder);
    return code;
}

/* A run that was stopped between the last step of an epoch and its evaluation makes it up. */
static int make_up_evaluation(run *r) {
    gfl_step_report at;
    memset(&at, 0, sizeof at);
    if (!r->plan.n_done || r->plan.n_done % r->plan.steps_per_epoch) return CMD_OK;
    at.step = r->plan.n_done;
    at.epoch = (int)(at.step / r->plan.steps_per_epoch) - 1;
    return end_epoch(r, &at);
}

static double seconds_left(const run *r, int64_t step) {
    const double each = (seconds_now() - r->started) / (double)(step - r->plan.n_done);
    return each * (double)(r->plan.n_steps - step);
}

static int train_steps(run *r) {
    gfl_step_report s;
    progress bar;
    int code = CMD_OK;
    memset(&s, 0, sizeof s);
    s.step = r->plan.n_done;
    s.training_done = r->plan.n_done >= r->plan.n_steps;
    progress_begin(&bar, "training", (long)(r->plan.n_steps - r->plan.n_done));
    r->started = seconds_now();
    while (code == CMD_OK && !s.training_done && !caught_signal()) {
        gfl_status status = gfl_trainer_step(r->trainer, &s);
        if (status != GFL_OK) {
            progress_end(&bar);
            code = report(r->context, status, "training");
            if (save_last(r) == CMD_OK && code == CMD_NONFINITE)
                talk("the last good state is in %s; lower --lr, or look at these images",
                     run_file(&r->folder, "last.safetensors"));
            return code;
        }
        r->folder.unsaved = true;
        run_log_step(&r->folder, &s, seconds_left(r, s.step));
        progress_step(&bar, (long)(s.step - r->plan.n_done),
                      "epoch %d, loss %.3f (cls %.3f, bbox %.3f, dfl %.3f), %.2f s a step",
                      s.epoch + 1, s.loss, s.loss_cls, s.loss_bbox, s.loss_dfl, s.seconds);
        if (s.epoch_done) {
            progress_end(&bar);
            code = end_epoch(r, &s);
        } else if (r->o.save_every > 0 && s.step % r->o.save_every == 0) {
            code = save_last(r);
        }
    }
    progress_end(&bar);
    return code;
}

static int train(run *r) {
    int code = make_up_evaluation(r);
    if (code == CMD_OK) code = train_steps(r);
    if (code != CMD_OK && code < 128) return code;
    const int saved = save_last(r);
    if (saved != CMD_OK) return saved;
    if (caught_signal()) {
        talk("stopped by signal %d; --resume goes on from here", caught_signal());
        return 128 + caught_signal();
    }
    talk("weights: %s%s%s", run_file(&r->folder, "last.safetensors"),
         r->folder.best > -1 ? ", best: " : "",
         r->folder.best > -1 ? run_file(&r->folder, "best_bbox_mAP.safetensors") : "");
    return CMD_OK;
}

static int open_logs(run *r) {
    run_facts facts;
    facts.options = r->table;
    facts.data = r->o.data;
    facts.seed = r->o.start.seed;
    facts.threads = gfl_context_threads(r->context);
    facts.plan = &r->plan;
    return run_open_logs(&r->folder, r->o.resume, &facts);
}

static int prepare(run *r) {
    r->folder.path = r->o.out;
    int code = run_open(&r->folder, r->o.resume, r->o.overwrite);
    r->o.overwrite = false; /* config.txt is not to ask for it again */
    if (code == CMD_OK) code = load_data(r);
    if (code == CMD_OK) code = make_model(r);
    if (code == CMD_OK && r->val) { /* classes that do not fit are better known before the epoch */
        int *map = NULL;
        code = match_classes(r->model, r->val, &map);
        free(map);
    }
    if (code == CMD_OK) code = make_trainer(r);
    if (code == CMD_OK) code = open_logs(r);
    return code;
}

static int run_training(run *r) {
    int code = open_context(r->o.threads, &r->context);
    if (code != CMD_OK) return code;
    code = prepare(r);
    if (code == CMD_OK) {
        describe_plan(r);
        catch_signals();
        code = train(r);
    }
    const int closed = run_close(&r->folder);
    if (code == CMD_OK) code = closed;
    gfl_trainer_destroy(r->trainer);
    gfl_model_destroy(r->model);
    gfl_dataset_destroy(r->val);
    gfl_dataset_destroy(r->data);
    gfl_context_destroy(r->context);
    return code;
}

/* Of a run that goes on, config.txt stands for the options that are not given again: the arguments
 * with --config before them, which the caller frees, or NULL. */
static char **with_settings(int argc, char **argv, char *config, size_t room) {
    const char *out = getenv("GFL_OUT");
    bool resume = false;
    if (!out) out = "run";
    for (int i = 1; i < argc; i++) {
        if (!strncmp(argv[i], "--config", 8)) return NULL;
        if (!strncmp(argv[i], "--out=", 6)) out = argv[i] + 6;
        if (!strcmp(argv[i], "--out") && i + 1 < argc) out = argv[i + 1];
        resume = resume || !strcmp(argv[i], "--resume");
    }
    snprintf(config, room, "--config=%.4000s/config.txt", out);
    if (!resume || !os_exists(config + strlen("--config="))) return NULL;
    char **more = take((size_t)argc + 2, sizeof *more);
    if (!more) return NULL;
    more[0] = argv[0];
    more[1] = config;
    memcpy(more + 2, argv + 1, (size_t)argc * sizeof *argv);
    return more;
}

static int parse_and_train(int argc, char **argv) {
    run r;
    gfl_train_desc steps;
    int n_rest = 0;
    memset(&r, 0, sizeof r);
    train_options *o = &r.o;
    o->out = "run";
    o->epochs = 12;
    o->batch = 16;
    o->accumulate = 1;
    o->momentum = 0.9;
    o->decay = 0.0001;
    o->warmup = -1;
    o->frozen = -1;
    o->loaders = 2;
    o->eval_every = 1;
    o->flip = o->grouping = true;
    opt options[] = {
        {OPT_TEXT, "data", &o->data, "FILE", "COCO annotations to train on", 0},
        {OPT_TEXT, "images", &o->images, "DIR", "their images; default: the annotations' folder",
         0},
        {OPT_TEXT, "val", &o->val, "FILE", "COCO annotations to evaluate on", 0},
        {OPT_TEXT, "val-images", &o->val_images, "DIR", "their images", 0},
        {OPT_TEXT, "model", &o->start.model, "NAME", "gfl info --list names them; default r50", 0},
        {OPT_TEXT, "weights", &o->start.weights, "FILE", "ImageNet backbone, safetensors or .pth",
         0},
        {OPT_TEXT, "from", &o->start.from, "FILE", "fine-tune this detector, safetensors or .pth",
         0},
        {OPT_LIST, "map", &o->start.map, "OLD=NEW", "with --from: a class renamed; may be repeated",
         0},
        {OPT_TEXT, "dialect", &o->start.dialect, "NAME",
         "mmdet (default) or gfocal, the original's; demanded of the file with --from, --resume",
         0},
        {OPT_INT, "base-channels", &o->start.base_channels, "N", "of the stem; a narrow model: 16",
         0},
        {OPT_INT, "fpn-channels", &o->start.fpn_channels, "N", "of the pyramid", 0},
        {OPT_INT, "head-channels", &o->start.head_channels, "N", "of the head, a multiple of 32",
         0},
        {OPT_INT, "stacked-convs", &o->start.stacked_convs, "N", "convolutions a head tower", 0},
        {OPT_TEXT, "scale", &o->start.scale, "LxS[:MIN]",
         "long and short side; short varies from MIN", 0},
        {OPT_INT, "epochs", &o->epochs, "N", "passes over the data", 0},
        {OPT_TEXT, "steps", &o->steps, "A,B", "divide lr by 10 after these epochs; 0: never", 0},
        {OPT_INT, "batch", &o->batch, "N", "images a step", 0},
        {OPT_INT, "accumulate", &o->accumulate, "N", "batches an update", 0},
        {OPT_REAL, "lr", &o->lr, "X", "learning rate; default 0.01 x images of a step / 16", 0},
        {OPT_REAL, "momentum", &o->momentum, "X", "0: none", 0},
        {OPT_REAL, "weight-decay", &o->decay, "X", "0: none", 0},
        {OPT_INT, "warmup", &o->warmup, "N",
         "steps of rising lr; 0: none; default 500, at most an epoch", 0},
        {OPT_REAL, "clip", &o->clip, "X", "largest norm of the gradients; 0: no limit", 0},
        {OPT_INT, "frozen-stages", &o->frozen, "N",
         "stem and N stages stay; 0: none; default 1 with --weights or --from, else 0", 0},
        {OPT_FLAG, "flip", &o->flip, NULL, "flip every other image (on)", 0},
        {OPT_FLAG, "grouping", &o->grouping, NULL, "landscape and portrait apart (on)", 0},
        {OPT_FLAG, "drop-empty", &o->drop_empty, NULL, "leave out images without boxes", 0},
        {OPT_FLAG, "drop-empty-classes", &o->drop_empty_classes, NULL,
         "leave out classes without boxes", 0},
        POLYGON_OPTION(o->polygons),
        {OPT_INT, "seed", &o->start.seed, "N", "of weights, order, flips and scales", 0},
        {OPT_INT, "threads", &o->threads, "N", "0: OMP_NUM_THREADS, else all that may be used", 0},
        {OPT_INT, "loaders", &o->loaders, "N", "threads that decode ahead", 0},
        {OPT_INT, "eval-every", &o->eval_every, "N", "epochs; 0: never", 0},
        {OPT_INT, "save-every", &o->save_every, "N", "steps, beside the end of each epoch", 0},
        {OPT_TEXT, "out", &o->out, "DIR", "folder of the run", 0},
        {OPT_FLAG, "resume", &o->resume, NULL, "go on where the run in --out stopped", 0},
        {OPT_FLAG, "overwrite", &o->overwrite, NULL, "begin anew where --out holds a run", 0},
        {OPT_END, NULL, NULL, NULL, NULL, 0},
    };
    int code = opt_parse("train --data TRAIN.json --images DIR --val VAL.json --val-images DIR "
                         "[options]",
                         options, argc, argv, (const char **)argv, &n_rest);
    if (code >= 0) return code;
    if (n_rest) return usage_error("train takes options only; \"%s\" is not one", argv[0]);
    if (!o->data) return usage_error("train needs --data FILE");
    code = check_start(&o->start);
    if (code != CMD_OK) return code;
    if (o->epochs < 1 || o->batch < 1 || o->accumulate < 1)
        return usage_error("--epochs, --batch and --accumulate count from 1");
    if (o->frozen < 0) o->frozen = o->start.weights || o->start.from ? 1 : 0;
    if (o->lr < 0) return usage_error("--lr %g must not be negative", o->lr);
    if (o->momentum >= 1) return usage_error("--momentum %g must be below 1", o->momentum);
    if (o->clip < 0) return usage_error("--clip %g must not be negative", o->clip);
    memset(&steps, 0, sizeof steps);
    code = parse_steps(o->steps, &steps);
    if (code == CMD_OK) code = check_folder("images", o->images);
    if (code == CMD_OK) code = check_folder("val-images", o->val_images);
    if (code != CMD_OK) return code;
    r.table = options;
    return run_training(&r);
}

int cmd_train(int argc, char **argv) {
    static char config[4200]; /* options may point into it until the program ends */
    char **more = with_settings(argc, argv, config, sizeof config);
    const int code = more ? parse_and_train(argc + 1, more) : parse_and_train(argc, argv);
    free(more);
    return code;
}
