/* cmd_start.c - the model that a training starts from: new, with a backbone, or a checkpoint's */
#include "cmd.h"
#include <stdlib.h>
#include <string.h>

typedef struct job {
    const model_start *s;
    gfl_context *context;
    const gfl_dataset *data;
    gfl_model *model;
} job;

int check_start(model_start *s) {
    int a = 0, b = 0, c = 0;
    if (s->from && (s->weights || s->model || s->base_channels || s->fpn_channels ||
                    s->head_channels || s->stacked_convs))
        return usage_error(
            "--from brings its own network and weights; leave out --weights, --model "
            "and the sizes of its parts");
    if (s->map.n && !s->from)
        return usage_error("--map renames classes of a checkpoint; it goes with --from FILE");
    if (s->seed < 0) return usage_error("--seed must not be negative");
    if (opt_choice("dialect", s->dialect, "mmdet", "gfocal") < 0) return CMD_USAGE;
    if (s->scale && !opt_scale(s->scale, &a, &b, &c))
        return usage_error(
            "--scale must be LONGxSHORT or LONGxSHORT:MIN, sides of at most %d, not \"%s\"",
            GFL_MAX_SIDE, s->scale);
    if (!s->model && !s->from) s->model = "r50";
    return CMD_OK;
}

static void read_scale(const job *j, gfl_preprocess *p) {
    int unused = 0;
    if (j->s->scale) opt_scale(j->s->scale, &p->scale_long, &p->scale_short, &unused);
}

/* Style and input follow from the backbone where its file says them. */
static int choose_model(job *j, gfl_model_desc *desc) {
    gfl_backbone_info backbone;
    gfl_origins from;
    memset(desc, 0, sizeof *desc);
    if (gfl_arch_find_preset(j->context, j->s->model, &desc->arch) != GFL_OK)
        return usage_error("--model %s: there is no such model; gfl info --list names them",
                           j->s->model);
    if (j->s->base_channels) desc->arch.base_channels = j->s->base_channels;
    if (j->s->fpn_channels) desc->arch.fpn_channels = j->s->fpn_channels;
    if (j->s->head_channels) desc->arch.head_channels = j->s->head_channels;
    if (j->s->stacked_convs) desc->arch.stacked_convs = j->s->stacked_convs;
    desc->arch.dialect = (gfl_dialect)opt_choice("dialect", j->s->dialect, "mmdet", "gfocal");
    desc->arch.n_classes = gfl_dataset_count_classes(j->data);
    desc->classes = gfl_dataset_get_classes(j->data);
    desc->seed = (uint64_t)j->s->seed;
    if (j->s->weights) {
        gfl_status status = gfl_backbone_describe(j->context, j->s->weights, NULL, &backbone);
        if (status != GFL_OK) return report(j->context, status, "loading weights");
        memset(&from, 0, sizeof from);
        from.style = backbone.style;
        from.preprocess = backbone.input;
        warn_of_input(j->s->weights, &from, &backbone.arch, &backbone.preprocess);
        desc->arch.style = backbone.arch.style;
        desc->preprocess = backbone.preprocess;
        desc->preprocess.scale_long = 0; /* not the backbone's business */
        desc->preprocess.scale_short = 0;
    }
    read_scale(j, &desc->preprocess);
    return CMD_OK;
}

static void describe_loading(const job *j) {
    gfl_tensor_report t;
    int counts[3];
    count_fates(j->model, counts);
    talk("%s: %d tensors loaded, %d re-initialised, %d left over", j->s->weights,
         counts[GFL_FATE_LOADED], counts[GFL_FATE_INITIALISED], counts[GFL_FATE_LEFT_OVER]);
    for (int fate = GFL_FATE_INITIALISED; fate <= GFL_FATE_LEFT_OVER; fate++) {
        int shown = 0;
        for (int i = 0; gfl_model_get_report(j->model, i, &t) == GFL_OK && shown < 6; i++) {
            if ((int)t.fate != fate) continue;
            talk("  %s: %s (%s)%s", fate == GFL_FATE_INITIALISED ? "re-initialised" : "left over",
                 t.name, t.why, ++shown == 6 && counts[fate] > 6 ? ", and more" : "");
        }
    }
}

static int make_new_model(job *j) {
    gfl_model_desc desc;
    int code = choose_model(j, &desc);
    if (code != CMD_OK) return code;
    desc.trainable = 1;
    gfl_status status = gfl_model_create(j->context, &desc, &j->model);
    if (status != GFL_OK) return report(j->context, status, "making the model");
    if (!j->s->weights) {
        talk("without --weights, all parameters start at random values");
        return CMD_OK;
    }
    status = gfl_model_load_backbone(j->model, j->s->weights);
    if (status != GFL_OK) return report(j->context, status, "loading weights");
    describe_loading(j);
    return CMD_OK;
}

/* ---- from a checkpoint ----------------------------------------------------------------------- */

/* "old=new" of each --map; *text holds the names, to be freed. */
static int read_renames(const opt_list *map, gfl_rename *renames, char **text) {
    size_t size = 1;
    for (int i = 0; i < map->n; i++) size += strlen(map->items[i]) + 1;
    char *at = *text = take(size, 1);
    if (!at) return CMD_MEMORY;
    for (int i = 0; i < map->n; i++) {
        const size_t length = strlen(map->items[i]), old = strcspn(map->items[i], "=");
        if (old == 0 || old + 1 >= length)
            return usage_error("--map must be OLD=NEW, not \"%s\"", map->items[i]);
        memcpy(at, map->items[i], length + 1);
        at[old] = 0;
        renames[i].from = at;
        renames[i].to = at + old + 1;
        at += length + 1;
    }
    return CMD_OK;
}

/* Labels of the checkpoint for the labels of the data set; *map is malloc'ed. */
static int map_classes(const job *j, const gfl_model_info *old, int **map) {
    const int n = gfl_dataset_count_classes(j->data);
    gfl_rename *renames = take(OPT_LIST_MAX, sizeof *renames);
    char *text = NULL;
    *map = take((size_t)n, sizeof **map);
    int code = renames && *map ? read_renames(&j->s->map, renames, &text) : CMD_MEMORY;
    const bool unnamed =
        old->origins.classes == GFL_ORIGIN_DEFAULT && !strcmp(old->classes[0].name, "class 0");
    if (code == CMD_OK && unnamed && old->arch.n_classes == n) {
        talk("%s does not name its classes; they are taken in the data set's order", j->s->from);
        for (int k = 0; k < n; k++) (*map)[k] = k;
    } else if (code == CMD_OK) {
        gfl_status status =
            gfl_match_classes(j->context, old->classes, old->arch.n_classes,
                              gfl_dataset_get_classes(j->data), n, renames, j->s->map.n, *map);
        if (status != GFL_OK) code = report(j->context, status, "--map");
    }
    free(text);
    free(renames);
    return code;
}

/* "what N: a, b (was c)", nothing where there is none. */
static void list_classes(const char *what, const gfl_class *classes, const int *from, int n,
                         const gfl_class *old) {
    int shown = 0;
    for (int k = 0; k < n; k++) {
        if ((from[k] >= 0) != (old != NULL)) continue;
        say(stderr, "%s%s", shown++ ? ", " : what, classes[k].name);
        if (old && strcmp(old[from[k]].name, classes[k].name) != 0)
            say(stderr, " (was %s)", old[from[k]].name);
    }
    if (shown) fputc('\n', stderr);
}

static void describe_transfer(const job *j, const gfl_model_info *old, const int *map) {
    const int n = gfl_dataset_count_classes(j->data), n_old = old->arch.n_classes;
    int *taken = take((size_t)n_old, sizeof *taken), counts[3];
    count_fates(j->model, counts);
    talk("%s: %d of %d tensors taken over", j->s->from, counts[GFL_FATE_LOADED],
         counts[GFL_FATE_LOADED] + counts[GFL_FATE_INITIALISED]);
    list_classes("  classes taken over: ", gfl_dataset_get_classes(j->data), map, n, old->classes);
    list_classes("  new classes, initialised afresh: ", gfl_dataset_get_classes(j->data), map, n,
                 NULL);
    for (int k = 0; taken && k < n_old; k++) taken[k] = -1;
    for (int k = 0; taken && k < n; k++)
        if (map[k] >= 0) taken[map[k]] = k;
    if (taken) list_classes("  classes dropped: ", old->classes, taken, n_old, NULL);
    free(taken);
}

static int transfer(job *j, const gfl_model *source) {
    gfl_model_info old;
    int *map = NULL;
    gfl_model_get_info(source, &old);
    gfl_preprocess input = old.preprocess;
    warn_of_assumed(j->s->from, source, j->s->scale != NULL);
    read_scale(j, &input);
    int code = map_classes(j, &old, &map);
    if (code == CMD_OK) {
        gfl_transfer_desc how = {0};
        how.classes = gfl_dataset_get_classes(j->data);
        how.n_classes = gfl_dataset_count_classes(j->data);
        how.map = map;
        how.preprocess = &input;
        how.seed = (uint64_t)j->s->seed;
        gfl_status status = gfl_model_create_from(j->context, source, &how, &j->model);
        if (status == GFL_OK)
            describe_transfer(j, &old, map);
        else
            code = report(j->context, status, "--from");
    }
    free(map);
    return code;
}

static int make_model_from(job *j) {
    gfl_import_desc opts;
    gfl_model *source = NULL;
    memset(&opts, 0, sizeof opts);
    opts.trainable = 1;
    opts.dialect = (gfl_dialect)opt_choice("dialect", j->s->dialect, "mmdet", "gfocal");
    gfl_status status = gfl_model_import(j->context, j->s->from, &opts, &source);
    if (status != GFL_OK) return report(j->context, status, "--from");
    int code = transfer(j, source);
    gfl_model_destroy(source);
    return code;
}

int start_model(gfl_context *context, const model_start *s, const gfl_dataset *data,
                gfl_model **out) {
    job j = {s, context, data, NULL};
    const int code = s->from ? make_model_from(&j) : make_new_model(&j);
    *out = j.model;
    return code;
}
