/* cmd_train.c - gfl train: say what will be done, do it, evaluate epochs, keep last and best */
#include "cmd_os.h"
#include "cmd_run.h"
#include <stdlib.h>
#include <string.h>

typedef struct train_options {
    const char *data, *images, *val, *val_images, *recipe, *steps, *out;
    model_start start;
    int epochs, batch, accumulate, warmup, frozen, threads, loaders, eval_every, save_every;
    double lr, momentum, decay, clip;
    bool skip, resume, overwrite, flip, drop_empty, drop_empty_classes, polygons, grouping;
} train_options;

typedef struct run {
    train_options o;
    opt *table;
    gfl_context *context;
    gfl_dataset *data, *val;
    gfl_model *model;
    gfl_trainer *trainer;
    gfl_trainer_info plan;
    run_folder folder;
    bool rate_given, warmup_given;
    double started;
} run;

static const char *plural(int64_t n) {
    return n == 1 ? "" : "s";
}

static const char may_change[] =
    "what may change is --epochs, --steps, where the data are (--data, --images, --val, "
    "--val-images), --skip-unreadable, --eval-every, --save-every, --threads and --loaders";

/* gfl_r50_fpn_1x_coco of mmdetection, with which the paper's numbers come out. */
static const opt_setting paper[] = {
    {"scale", "1333x800"}, {"epochs", "12"},           {"steps", "8,11"},
    {"batch", "16"},       {"accumulate", "1"},        {"lr", "0.01"},
    {"momentum", "0.9"},   {"weight-decay", "0.0001"}, {"warmup", "500"},
    {"clip", "0"},         {"frozen-stages", "1"},     {"flip", "true"},
    {"grouping", "true"},  {"drop-empty", "true"},     {NULL, NULL}};

/* ---- preparation ----------------------------------------------------------------------------- */

static int load_data(run *r) {
    gfl_dataset_desc opts;
    memset(&opts, 0, sizeof opts);
    opts.image_dir = r->o.images;
    opts.boxes_from_polygons = r->o.polygons;
    opts.drop_empty_classes = r->o.drop_empty_classes;
    opts.skip_unreadable = r->o.skip;
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

/* "6,7" into the description; "0" and "" are none. */
static int parse_steps(const char *text, gfl_trainer_desc *desc) {
    char *end;
    long before = 0;
    if (text && (!*text || !strcmp(text, "0"))) {
        desc->n_milestones = -1;
        return CMD_OK;
    }
    for (const char *p = text; p && *p; p = *end ? end + 1 : end) {
        long epoch = strtol(p, &end, 10);
        if (end == p || (*end && *end != ',') || epoch < 0 || epoch > 1000000 ||
            desc->n_milestones == GFL_MAX_MILESTONES)
            return usage_error("--steps must be up to %d epochs, as in 8,11, not \"%s\"",
                               GFL_MAX_MILESTONES, text);
        if (epoch <= before)
            return usage_error("--steps must ascend from 1 on, as in 8,11, not \"%s\"", text);
        before = epoch;
        desc->milestones[desc->n_milestones++] = (int)epoch;
    }
    return CMD_OK;
}

static int describe_training(const run *r, gfl_trainer_desc *d) {
    const train_options *o = &r->o;
    memset(d, 0, sizeof *d);
    const int code = parse_steps(o->steps, d);
    if (code != CMD_OK) return code;
    if (o->start.scale)
        opt_scale(o->start.scale, &d->scale_long, &d->scale_short, &d->scale_short_min);
    d->batch = o->batch;
    d->accumulate = o->accumulate;
    d->epochs = o->epochs;
    d->lr = o->lr;
    d->momentum = o->momentum > 0 ? o->momentum : -1;
    d->weight_decay = o->decay > 0 ? o->decay : -1;
    d->warmup = o->warmup > 0 ? o->warmup : o->warmup < 0 ? 0 : -1;
    d->clip_norm = o->clip;
    d->frozen_stages = o->frozen > 0 ? o->frozen : -1;
    d->no_flip = !o->flip;
    d->drop_empty = o->drop_empty;
    d->no_grouping = !o->grouping;
    d->loaders = o->loaders > 0 ? o->loaders : -1;
    d->seed = (uint64_t)o->start.seed;
    return CMD_OK;
}

/* Model and trainer of a run that goes on. */
static gfl_status load_pair(run *r, const gfl_trainer_desc *d, const char *weights,
                            const char *state) {
    gfl_load_desc opts;
    memset(&opts, 0, sizeof opts);
    opts.trainable = 1;
    opts.dialect = (gfl_dialect)opt_choice("dialect", r->o.start.dialect, "mmdet", "gfocal");
    gfl_status status = gfl_model_load(r->context, weights, &opts, &r->model);
    if (status == GFL_OK)
        status = gfl_trainer_create(r->context, r->model, r->data, d, &r->trainer);
    if (status == GFL_OK) status = gfl_trainer_load_state(r->trainer, state);
    return status;
}

static void drop_pair(run *r) {
    gfl_trainer_destroy(r->trainer);
    gfl_model_destroy(r->model);
    r->trainer = NULL;
    r->model = NULL;
}

/* The number of epochs has no say in whether two files belong together. */
static gfl_status probe_pair(void *user, const char *weights, const char *state) {
    run *r = user;
    gfl_trainer_desc d;
    if (describe_training(r, &d) != CMD_OK) return GFL_E_ARG;
    d.epochs = 1000000;
    const gfl_status status = load_pair(r, &d, weights, state);
    drop_pair(r);
    return status;
}

/* Before a trainer takes the data: pictures that it cannot use would end the run late. */
static int check_data(run *r) {
    const int code = check_pictures(r->context, r->o.data, r->data, r->o.skip);
    if (code != CMD_OK || !r->val) return code;
    return check_pictures(r->context, r->o.val, r->val, r->o.skip);
}

static int go_on(run *r, const gfl_trainer_desc *d) {
    int code = check_data(r);
    if (code == CMD_OK) code = run_settle(&r->folder, r->context, probe_pair, r);
    if (code != CMD_OK) return code;
    gfl_status status = load_pair(r, d, run_file(&r->folder, "last.safetensors"),
                                  run_file(&r->folder, "last.state.safetensors"));
    if (status == GFL_OK) return CMD_OK;
    code = report(r->context, status, "--resume");
    if (status == GFL_E_MISMATCH) talk("%s", may_change);
    return code;
}

static int begin(run *r, const gfl_trainer_desc *d) {
    if (r->o.resume) talk("%s: nothing was saved yet: the run begins again", r->o.out);
    int code = start_model(r->context, &r->o.start, r->data, &r->model);
    if (code == CMD_OK) code = check_data(r);
    if (code != CMD_OK) return code;
    gfl_status status = gfl_trainer_create(r->context, r->model, r->data, d, &r->trainer);
    return status == GFL_OK ? CMD_OK : report(r->context, status, "preparing the training");
}

static int make_trainer(run *r) {
    gfl_trainer_desc d;
    int code = describe_training(r, &d);
    if (code == CMD_OK) code = r->folder.fresh ? begin(r, &d) : go_on(r, &d);
    if (code != CMD_OK) return code;
    gfl_trainer_get_info(r->trainer, &r->plan);
    return CMD_OK;
}

static void describe_schedule(const run *r) {
    const gfl_trainer_desc *d = &r->plan.desc;
    const int images = (int)r->plan.images_per_update, warmup = d->warmup > 0 ? d->warmup : 0;
    talk("schedule: %d epoch%s of %d step%s of %d image%s; learning rate %g%s, warm-up %d step%s",
         d->epochs, plural(d->epochs), r->plan.steps_per_epoch, plural(r->plan.steps_per_epoch),
         images, plural(images), d->lr, r->rate_given ? "" : " (0.01 x images / 16)", warmup,
         plural(warmup));
    if (d->batch < r->o.batch)
        talk("  a batch is all %d image%s: there are fewer than --batch %d asks for", d->batch,
             plural(d->batch), r->o.batch);
    else if (d->accumulate < r->o.accumulate)
        talk("  a step is the %d batch%s of an epoch: fewer than --accumulate %d asks for",
             d->accumulate, d->accumulate == 1 ? "" : "es", r->o.accumulate);
    if (warmup >= r->plan.n_steps && r->folder.fresh)
        talk("%sthe warm-up lasts %s the training, whose rate stays below %g; lower --warmup",
             r->warmup_given ? "warning: " : "  ",
             warmup > r->plan.n_steps ? "longer than" : "as long as", d->lr);
    for (int i = 0; i < d->n_milestones && d->milestones[i] < d->epochs; i++)
        talk("  divided by 10 after epoch %d", d->milestones[i]);
}

static void describe_recipe(const run *r) {
    char text[256];
    fprintf(stderr, "recipe: %s:", r->o.recipe);
    for (const opt_setting *s = paper; s->name; s++) {
        opt_as_given(opt_find(r->table, s->name), text, sizeof text);
        fprintf(stderr, " %s", text);
    }
    fputc('\n', stderr);
}

static void describe_plan(const run *r) {
    const gfl_trainer_desc *d = &r->plan.desc;
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
    describe_schedule(r);
    if (r->o.recipe && r->folder.fresh) describe_recipe(r);
    if (!r->val)
        talk("without --val, nothing is evaluated and there will be no best_bbox_mAP.safetensors");
    if (d->frozen_stages < 0)
        talk("frozen: nothing but batch norm's statistics");
    else
        talk("frozen: stem and %d stage%s", d->frozen_stages, d->frozen_stages == 1 ? "" : "s");
}

/* ---- evaluation ------------------------------------------------------------------------------ */

static int evaluate_epoch(run *r, int epoch, int64_t step) {
    gfl_evaluator *evaluator = NULL;
    gfl_eval_result result;
    gfl_status status = gfl_model_sync(r->model);
    if (status == GFL_OK) status = gfl_evaluator_create(r->context, r->val, NULL, &evaluator);
    if (status != GFL_OK) return report(r->context, status, "evaluating");
    int code =
        evaluate_images(r->context, r->model, gfl_dataset_count_images(r->val), NULL, evaluator);
    if (code == CMD_OK) {
        status = gfl_evaluator_run(evaluator, &result);
        if (status != GFL_OK) {
            code = report(r->context, status, "evaluating");
        } else {
            print_summary(stdout, evaluator);
            fflush(stdout);
            code = run_log_evaluation(&r->folder, r->context, r->model, evaluator, &result, r->val,
                                      epoch, step);
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
static int end_epoch(run *r, int epoch, int64_t step) {
    int code = save_last(r);
    const int every = r->o.eval_every;
    const bool due = every > 0 && (epoch % every == 0 || epoch == r->plan.desc.epochs);
    if (code == CMD_OK && r->val && (due || r->folder.owed) && r->folder.evaluated < epoch &&
        !caught_signal())
        code = evaluate_epoch(r, epoch, step);
    run_end_epoch(&r->folder);
    return code;
}

/* A run that was stopped between the last step of an epoch and its evaluation makes it up. */
static int make_up_evaluation(run *r) {
    const int64_t done = r->plan.n_done, each = r->plan.steps_per_epoch;
    return done && done % each == 0 ? end_epoch(r, (int)(done / each), done) : CMD_OK;
}

static double seconds_left(const run *r, int64_t step) {
    const double each = (os_seconds() - r->started) / (double)(step - r->plan.n_done);
    return each * (double)(r->plan.n_steps - step);
}

/* A step has failed: what the steps before it learnt is kept. */
static int stop(run *r, int code) {
    if (save_last(r) != CMD_OK || code != CMD_NONFINITE) return code;
    run_say_saved(&r->folder);
    if (r->folder.saved >= 0)
        talk("--resume keeps the learning rate: a new run with a lower --lr goes on from weights "
             "with "
             "--from");
    return code;
}

static int train_steps(run *r) {
    gfl_step_report s;
    progress bar;
    int code = CMD_OK;
    memset(&s, 0, sizeof s);
    s.step = r->plan.n_done;
    s.training_done = r->plan.n_done >= r->plan.n_steps;
    progress_begin(&bar, "training", (long)(r->plan.n_steps - r->plan.n_done));
    r->started = os_seconds();
    while (code == CMD_OK && !s.training_done && !caught_signal()) {
        gfl_status status = gfl_trainer_step(r->trainer, &s);
        if (status != GFL_OK) {
            progress_end(&bar);
            return stop(r, report(r->context, status, "training"));
        }
        code = run_log_step(&r->folder, &s, seconds_left(r, s.step));
        if (code != CMD_OK) break;
        progress_step(&bar, (long)(s.step - r->plan.n_done),
                      "epoch %d, loss %.3f (cls %.3f, bbox %.3f, dfl %.3f), %.2f s a step",
                      s.epoch + 1, s.loss, s.loss_cls, s.loss_bbox, s.loss_dfl, s.seconds);
        if (s.epoch_done) {
            progress_end(&bar);
            code = end_epoch(r, s.epoch + 1, s.step);
        } else if (r->o.save_every > 0 && s.step % r->o.save_every == 0) {
            code = save_last(r);
        }
    }
    progress_end(&bar);
    return code;
}

static int or_stopped(int code) {
    return code == CMD_OK && caught_signal() ? 128 + caught_signal() : code;
}

static int train(run *r) {
    const int epochs = r->plan.desc.epochs;
    if (r->plan.n_done >= r->plan.n_steps)
        talk("%s %d epoch%s done; --epochs N trains longer", epochs == 1 ? "the" : "all", epochs,
             epochs == 1 ? " is" : "s are");
    int code = make_up_evaluation(r);
    if (code == CMD_OK) code = train_steps(r);
    if (code != CMD_OK && code < 128) return code;
    const int saved = save_last(r);
    if (saved != CMD_OK) return saved;
    code = or_stopped(CMD_OK);
    if (code != CMD_OK) {
        talk("stopped by signal %d; --resume continues from here", caught_signal());
        return code;
    }
    talk("weights: %s%s%s", run_file(&r->folder, "last.safetensors"),
         r->folder.best > -1 ? ", best: " : "",
         r->folder.best > -1 ? run_file(&r->folder, "best_bbox_mAP.safetensors") : "");
    return CMD_OK;
}

static int begin_run(run *r) {
    run_facts facts;
    facts.options = r->table;
    facts.overwrite = &r->o.overwrite;
    facts.data = r->o.data;
    facts.seed = r->o.start.seed;
    facts.threads = gfl_context_count_threads(r->context);
    facts.plan = &r->plan;
    /* config.txt holds what was chosen, and does not ask to resume. */
    r->warmup_given = r->o.warmup >= 0;
    r->o.warmup = r->plan.desc.warmup > 0 ? r->plan.desc.warmup : 0;
    r->rate_given = r->o.lr > 0;
    r->o.lr = r->plan.desc.lr;
    r->o.resume = false;
    return run_begin(&r->folder, &facts);
}

/* Classes that do not fit are better known before the epoch. */
static int check_classes(const run *r) {
    gfl_model_info info;
    gfl_model_get_info(r->model, &info);
    int *map = take((size_t)info.arch.n_classes, sizeof *map);
    if (!map) return CMD_MEMORY;
    const gfl_status status = gfl_match_dataset(r->context, r->model, r->val, NULL, 0, map);
    free(map);
    return status == GFL_OK ? CMD_OK : report(r->context, status, "comparing classes");
}

static int prepare(run *r) {
    r->folder.path = r->o.out;
    int code = run_open(&r->folder, r->o.resume, r->o.overwrite);
    if (code == CMD_OK) code = or_stopped(load_data(r));
    if (code == CMD_OK) code = or_stopped(make_trainer(r));
    if (code == CMD_OK && r->val) code = check_classes(r);
    if (code == CMD_OK) code = begin_run(r);
    return code;
}

static int run_training(run *r) {
    int code = open_context(r->o.threads, &r->context);
    if (code != CMD_OK) return code;
    catch_signals(); /* from here on, whatever ends it leaves the folder as it is to be found */
    code = prepare(r);
    if (code >= 128)
        talk("stopped by signal %d before the first step; the same command starts it again",
             caught_signal());
    if (code == CMD_OK) {
        describe_plan(r);
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

/* ---- options --------------------------------------------------------------------------------- */

enum { MOST_OPTIONS = 48 };

static void set_defaults(train_options *o) {
    memset(o, 0, sizeof *o);
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
}

/* A third of the table; how many it has. */
#define PUT_OPTIONS(table, options)                                                                \
    _Static_assert(sizeof(options) <= MOST_OPTIONS / 3 * sizeof(opt), "too many options");         \
    memcpy(table, options, sizeof(options));                                                       \
    return (int)(sizeof(options) / sizeof(opt))

static int put_start_options(train_options *o, opt *table) {
    const opt options[] = {
        {OPT_PATH, "data", &o->data, "FILE", "COCO annotations to train on.", 0},
        IMAGES_OPTION(OPT_PATH, o->images),
        {OPT_PATH, "val", &o->val, "FILE", "COCO annotations to evaluate on.", 0},
        {OPT_PATH, "val-images", &o->val_images, "DIR",
         "Folder of the pictures of --val. Default: the folder of those annotations.", 0},
        {OPT_TEXT, "model", &o->start.model, "NAME",
         "The preset to train; gfl info --list names them. Default: r50.", 0},
        {OPT_PATH, "weights", &o->start.weights, "FILE",
         "Start from this ImageNet backbone: safetensors or .pth.", 0},
        {OPT_PATH, "from", &o->start.from, "FILE",
         "Fine-tune this detector: safetensors or .pth. What its classifier knows goes over by "
         "class name.",
         0},
        {OPT_LIST, "map", &o->start.map, "OLD=NEW",
         "With --from: what the file calls OLD is called NEW in the data. May be repeated.", 0},
        {OPT_TEXT, "dialect", &o->start.dialect, "NAME",
         "mmdet: boxes, assignment and losses as in mmdetection 2.18 and later. gfocal: as in the "
         "original, implus/GFocal. With --from or --resume the file must be of this dialect. "
         "Default: mmdet.",
         0},
        {OPT_INT, "base-channels", &o->start.base_channels, "N",
         "Channels of the stem; a small number, such as 16, makes a narrow model. Default: 64.", 0},
        {OPT_INT, "fpn-channels", &o->start.fpn_channels, "N",
         "Channels of the pyramid. Default: 256.", 0},
        {OPT_INT, "head-channels", &o->start.head_channels, "N",
         "Channels of the head, a multiple of 32. Default: 256.", 0},
        {OPT_INT, "stacked-convs", &o->start.stacked_convs, "N",
         "Convolutions in each tower of the head. Default: 4.", 0},
    };
    PUT_OPTIONS(table, options);
}

static int put_recipe_options(train_options *o, opt *table) {
    const opt options[] = {
        {OPT_TEXT, "recipe", &o->recipe, "NAME",
         "paper: train as the published R50 was trained. Without it, the learning rate and the "
         "warm-up follow the size of the batch and of the data, pictures without boxes are kept, "
         "and the scale is that of --from. It needs --weights or --from, and refuses options that "
         "say something else.",
         0},
        {OPT_TEXT, "scale", &o->start.scale, "LxS[:MIN]",
         "Pictures are resized to fit into this long and short side. With MIN, the short side "
         "varies at random from MIN to S. Default: 1333x800, or that of --from.",
         0},
        {OPT_INT, "epochs", &o->epochs, "N", "Passes over the data.", 0},
        {OPT_TEXT, "steps", &o->steps, "A,B",
         "Divide the learning rate by 10 after these epochs; 0 means never. Default: after 8/12 "
         "and 11/12 of the epochs, rounded down.",
         0},
        {OPT_INT, "batch", &o->batch, "N", "Pictures per batch.", 0},
        {OPT_INT, "accumulate", &o->accumulate, "N",
         "Batches per step, that is, per update of the weights.", 0},
        {OPT_REAL, "lr", &o->lr, "X", "Learning rate. Default: 0.01 x pictures per step / 16.", 0},
        {OPT_REAL, "momentum", &o->momentum, "X", "Momentum of the updates; 0 means none.", 0},
        {OPT_REAL, "weight-decay", &o->decay, "X", "Weight decay; 0 means none.", 0},
        {OPT_INT, "warmup", &o->warmup, "N",
         "Steps in which the learning rate rises; 0 means none. Default: 500, or one epoch where "
         "that is shorter.",
         0},
        {OPT_REAL, "clip", &o->clip, "X",
         "Scale gradients down to this norm where theirs is larger; 0 means never. Default: 0.", 0},
        {OPT_INT, "frozen-stages", &o->frozen, "N",
         "The stem and the first N stages stay as they are; with 0 everything is trained. Default: "
         "1 with --weights or --from, otherwise 0.",
         0},
        {OPT_FLAG, "flip", &o->flip, NULL, "Mirror half of the pictures, chosen at random.", 0},
        {OPT_FLAG, "grouping", &o->grouping, NULL,
         "Keep landscape and portrait pictures in separate batches.", 0},
    };
    PUT_OPTIONS(table, options);
}

static int put_run_options(train_options *o, opt *table) {
    const opt options[] = {
        SKIP_OPTION(o->skip),
        {OPT_FLAG, "drop-empty", &o->drop_empty, NULL, "Leave out pictures without boxes.", 0},
        {OPT_FLAG, "drop-empty-classes", &o->drop_empty_classes, NULL,
         "Leave out classes without boxes. A category without boxes that is the supercategory of "
         "others is always left out.",
         0},
        POLYGON_OPTION(o->polygons),
        {OPT_INT, "seed", &o->start.seed, "N",
         "Seed of initial weights, order, flips and scales. Default: 0.", 0},
        THREADS_OPTION(o->threads),
        {OPT_INT, "loaders", &o->loaders, "N",
         "Threads that read and decode pictures ahead of the training.", 0},
        {OPT_INT, "eval-every", &o->eval_every, "N", "Epochs between evaluations; 0 means never.",
         0},
        {OPT_INT, "save-every", &o->save_every, "N",
         "Steps between saves, besides the one at the end of each epoch; 0 means only that one. "
         "Default: 0.",
         0},
        {OPT_PATH, "out", &o->out, "DIR", "Folder of the run.", 0},
        {OPT_FLAG, "resume", &o->resume, NULL,
         "Go on, to the bit, where the run in --out stopped, with the settings of its config.txt "
         "except those that are given again. Only --epochs, --steps, --data, --images, --val, "
         "--val-images, --skip-unreadable, --eval-every, --save-every, --threads and --loaders may "
         "change. A run that was stopped before its first save begins again.",
         0},
        {OPT_FLAG, "overwrite", &o->overwrite, NULL,
         "Begin anew in a folder that holds a run. Without this option that is refused.", 0},
        {OPT_END, NULL, NULL, NULL, NULL, 0},
    };
    PUT_OPTIONS(table, options);
}

static void make_table(train_options *o, opt table[MOST_OPTIONS]) {
    set_defaults(o);
    table += put_start_options(o, table);
    table += put_recipe_options(o, table);
    put_run_options(o, table);
}

/* May it be another when a run goes on?  The dialect may not, but is demanded of the weights. */
static bool is_free(const char *name) {
    static const char *const names[] = {"data",      "images",          "val",        "val-images",
                                        "epochs",    "steps",           "eval-every", "save-every",
                                        "threads",   "loaders",         "out",        "resume",
                                        "overwrite", "skip-unreadable", "dialect"};
    for (int i = 0; i < (int)(sizeof names / sizeof *names); i++)
        if (!strcmp(names[i], name)) return true;
    return false;
}

/* Of a run that goes on, config.txt stands for the options that are not given again.  What is
 * decided when a run begins may not be given otherwise. */
static int check_changes(const opt *begun, const opt *now) {
    char was[256], is[256];
    for (const opt *o = begun; o->kind != OPT_END; o++) {
        const opt *given = opt_find(now, o->name);
        if (is_free(o->name) || opt_is_same(o, given)) continue;
        opt_as_given(o, was, sizeof was);
        opt_as_given(given, is, sizeof is);
        if (!*was)
            return usage_error("--resume: the run was trained without --%s: leave it out, or begin "
                               "another run; %s",
                               o->name, may_change);
        return usage_error("--resume: the run was trained with %s, not %s: leave that out, or "
                           "begin another run; %s",
                           was, is, may_change);
    }
    return CMD_OK;
}

static int apply_recipe(const train_options *o, opt *table) {
    if (!o->recipe) return -1;
    if (strcmp(o->recipe, "paper") != 0)
        return usage_error("--recipe must be paper, not \"%s\"", o->recipe);
    if (!o->start.weights && !o->start.from)
        return usage_error("--recipe paper leaves the first stage as it is: add --weights FILE, an "
                           "ImageNet backbone, or --from FILE, a detector");
    const int code = opt_settle(table, paper, "--recipe paper");
    return code == CMD_OK ? -1 : code;
}

static int parse_options(train_options *o, opt table[MOST_OPTIONS], int argc, char **argv) {
    static const char usage[] = "train --data TRAIN.json --images DIR [--val VAL.json] [options]\n"
                                "       gfl train --out DIR --resume [options]";
    train_options before;
    opt begun[MOST_OPTIONS];
    os_file file;
    char config[4200];
    int n_rest = 0;
    make_table(o, table);
    int code = opt_parse(usage, table, argc, argv, (const char **)argv, &n_rest);
    if (code >= 0) return code;
    if (n_rest) return usage_error("train takes options only; \"%s\" is not one", argv[0]);
    if (o->resume && o->overwrite && opt_find(table, "overwrite")->source > OPT_FROM_FILE)
        return usage_error("--resume goes on with a run, --overwrite begins anew: choose one");
    snprintf(config, sizeof config, "%.4000s/config.txt", o->out);
    if (!o->resume || !os_find(config, &file)) return apply_recipe(o, table);
    if (file.kind == OS_FILE && !file.size) /* of a process that ended before it began */
        return apply_recipe(o, table);
    const char *out = o->out;
    make_table(&before, begun);
    code = opt_read(begun, config);
    if (code != CMD_OK) return code;
    make_table(o, table);
    code = opt_read(table, config);
    if (code == CMD_OK) code = opt_parse(usage, table, argc, argv, (const char **)argv, &n_rest);
    o->out = out; /* wherever the folder is now */
    return code == -1 && check_changes(begun, table) != CMD_OK ? CMD_USAGE : code;
}

static int check_numbers(const train_options *o, bool rate_given) {
    if (o->epochs < 1 || o->batch < 1 || o->accumulate < 1)
        return usage_error("--epochs, --batch and --accumulate must be at least 1");
    if (o->lr < 0) return usage_error("--lr %g must not be negative", o->lr);
    if (o->lr == 0 && rate_given)
        return usage_error(
            "with --lr 0 nothing would be learnt; without --lr it is 0.01 x images per step / 16");
    if (o->momentum < 0 || o->momentum >= 1)
        return usage_error("--momentum %g must be at least 0 and below 1", o->momentum);
    if (o->decay < 0) return usage_error("--weight-decay %g must not be negative", o->decay);
    if (o->clip < 0) return usage_error("--clip %g must not be negative", o->clip);
    if (o->batch > 65536 || o->accumulate > 65536 || o->loaders > 256)
        return usage_error(
            "--batch and --accumulate must be at most 65536, and --loaders at most 256");
    if (o->frozen < -1 || o->frozen > 4)
        return usage_error("--frozen-stages must be from 0 to 4, not %d", o->frozen);
    if (o->warmup < -1) return usage_error("--warmup %d must not be negative", o->warmup);
    if (o->loaders < 0 || o->eval_every < 0 || o->save_every < 0)
        return usage_error("--loaders, --eval-every and --save-every must not be negative");
    return CMD_OK;
}

int cmd_train(int argc, char **argv) {
    opt table[MOST_OPTIONS];
    gfl_trainer_desc steps;
    run r;
    memset(&r, 0, sizeof r);
    train_options *o = &r.o;
    int code = parse_options(o, table, argc, argv);
    if (code >= 0) return code;
    if (!o->data && o->resume)
        return usage_error("--resume: %s holds no run: there is no %s/config.txt", o->out, o->out);
    if (!o->data) return usage_error("train needs --data FILE");
    if (!o->val && opt_find(table, "val-images")->source != OPT_FROM_DEFAULT)
        return usage_error("--val-images goes with --val FILE");
    code = check_start(&o->start);
    if (code == CMD_OK) code = check_numbers(o, opt_find(table, "lr")->source > OPT_FROM_FILE);
    if (code != CMD_OK) return code;
    if (o->frozen < 0) o->frozen = o->start.weights || o->start.from ? 1 : 0;
    memset(&steps, 0, sizeof steps);
    code = parse_steps(o->steps, &steps);
    if (code == CMD_OK) code = check_folder("images", o->images);
    if (code == CMD_OK) code = check_folder("val-images", o->val_images);
    if (code != CMD_OK) return code;
    r.table = table;
    return run_training(&r);
}
