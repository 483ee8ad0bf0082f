/* cmd_model.c - weight files: what they are, and what became of each of their tensors */
#include "cmd.h"
#include "cmd_os.h"
#include <stdlib.h>
#include <string.h>

static const char *const dialects[] = {"", "mmdet", "gfocal"};

/* "C3, C4, C5" */
static const char *stage_names(int stages, char out[20]) {
    size_t used = 0;
    out[0] = 0;
    for (int i = 0; i < 4; i++)
        if (stages >> i & 1)
            used += (size_t)snprintf(out + used, 20 - used, "%sC%d", used ? ", " : "", i + 2);
    return out;
}

static const char *if_assumed(gfl_origin origin, const char *text) {
    return origin == GFL_ORIGIN_DEFAULT ? text : "";
}

void print_backbone(FILE *f, const gfl_arch *a, gfl_origin style) {
    char stages[20];
    fprintf(f, "ResNet-%d", a->depth);
    if (a->groups > 1) fprintf(f, ", %d groups of %d channels (ResNeXt)", a->groups, a->base_width);
    if (a->deform) fprintf(f, ", DCN v%d in %s", a->deform, stage_names(a->deform_stages, stages));
    if (a->depth >= 50) /* basic blocks have but one */
        fprintf(f, ", %s style%s", a->style == GFL_STYLE_CAFFE ? "caffe" : "pytorch",
                if_assumed(style, " (assumed)"));
    fprintf(f, ", base %d", a->base_channels);
}

void input_text(const gfl_preprocess *p, char *out, size_t size) {
    snprintf(out, size, "%s, mean %g %g %g, std %g %g %g", p->bgr ? "BGR" : "RGB",
             (double)p->mean[0], (double)p->mean[1], (double)p->mean[2], (double)p->std[0],
             (double)p->std[1], (double)p->std[2]);
}

void print_input(FILE *f, const gfl_preprocess *p) {
    char text[160];
    input_text(p, text, sizeof text);
    fputs(text, f);
}

void print_model(FILE *f, const gfl_model_info *info) {
    const gfl_arch *a = &info->arch;
    const gfl_origins *from = &info->origins;
    const bool coco =
        from->classes == GFL_ORIGIN_DEFAULT && !strcmp(info->classes[0].name, "person");
    fputs("architecture   ", f);
    print_backbone(f, a, from->style);
    fprintf(f, ", FPN %d, head %d channels, %d convolutions a tower\n", a->fpn_channels,
            a->head_channels, a->stacked_convs);
    fprintf(f, "dialect        %s, distributions of %d bins\n", dialects[a->dialect],
            a->reg_max + 1);
    fprintf(f, "parameters     %lld, of which %lld train with stem and first stage frozen\n",
            (long long)info->n_parameters, (long long)info->n_trainable);
    fputs("input          ", f);
    print_input(f, &info->preprocess);
    fprintf(f, "%s, fits %dx%d%s\n",
            if_assumed(from->preprocess, " (assumed: the file does not say)"),
            info->preprocess.scale_long, info->preprocess.scale_short,
            if_assumed(from->scale, " (assumed: the file does not say)"));
    fprintf(f, "classes        %d%s:", a->n_classes,
            coco ? ", COCO's (the file names none)"
                 : if_assumed(from->classes, " (the file names none)"));
    for (int k = 0; k < a->n_classes; k++)
        say(f, "%s %s (%lld)", k ? "," : "", info->classes[k].name, (long long)info->classes[k].id);
    fputc('\n', f);
}

static const char *origin_name(gfl_origin origin) {
    return origin == GFL_ORIGIN_GIVEN ? "given" : origin == GFL_ORIGIN_FILE ? "file" : "assumed";
}

void write_backbone_json(gfl_json_writer *json, const gfl_arch *a) {
    char name[16];
    gfl_json_integer(json, "depth", a->depth);
    gfl_json_integer(json, "groups", a->groups);
    gfl_json_integer(json, "base_width", a->base_width);
    gfl_json_integer(json, "base_channels", a->base_channels);
    gfl_json_integer(json, "deform", a->deform);
    gfl_json_array(json, "deform_stages");
    for (int i = 0; i < 4; i++) {
        snprintf(name, sizeof name, "C%d", i + 2);
        if (a->deform_stages >> i & 1) gfl_json_text(json, NULL, name);
    }
    gfl_json_end(json);
    gfl_json_text(json, "style", a->style == GFL_STYLE_CAFFE ? "caffe" : "pytorch");
}

void write_input_json(gfl_json_writer *json, const gfl_preprocess *p) {
    gfl_json_text(json, "channel_order", p->bgr ? "BGR" : "RGB");
    gfl_json_array(json, "mean");
    for (int i = 0; i < 3; i++) gfl_json_float(json, NULL, p->mean[i]);
    gfl_json_end(json);
    gfl_json_array(json, "std");
    for (int i = 0; i < 3; i++) gfl_json_float(json, NULL, p->std[i]);
    gfl_json_end(json);
}

static void write_origins(gfl_json_writer *json, const gfl_origins *from) {
    gfl_json_object(json, "origins");
    gfl_json_text(json, "dialect", origin_name(from->dialect));
    gfl_json_text(json, "style", origin_name(from->style));
    gfl_json_text(json, "input", origin_name(from->preprocess));
    gfl_json_text(json, "scale", origin_name(from->scale));
    gfl_json_text(json, "classes", origin_name(from->classes));
    gfl_json_end(json);
}

void write_model_json(gfl_json_writer *json, const gfl_model_info *info) {
    const gfl_arch *a = &info->arch;
    write_backbone_json(json, a);
    gfl_json_integer(json, "fpn_channels", a->fpn_channels);
    gfl_json_integer(json, "head_channels", a->head_channels);
    gfl_json_integer(json, "stacked_convs", a->stacked_convs);
    gfl_json_integer(json, "reg_max", a->reg_max);
    gfl_json_text(json, "dialect", dialects[a->dialect]);
    gfl_json_integer(json, "parameters", info->n_parameters);
    gfl_json_integer(json, "trainable", info->n_trainable);
    write_input_json(json, &info->preprocess);
    gfl_json_array(json, "scale");
    gfl_json_integer(json, NULL, info->preprocess.scale_long);
    gfl_json_integer(json, NULL, info->preprocess.scale_short);
    gfl_json_end(json);
    write_origins(json, &info->origins);
    gfl_json_array(json, "classes");
    for (int k = 0; k < a->n_classes; k++) {
        gfl_json_object(json, NULL);
        gfl_json_integer(json, "id", info->classes[k].id);
        gfl_json_text(json, "name", info->classes[k].name);
        gfl_json_end(json);
    }
    gfl_json_end(json);
}

/* ---- what became of the tensors -------------------------------------------------------------- */

static const char *const fates[] = {"loaded", "re-initialised", "left over"};

void count_fates(const gfl_model *model, int counts[3]) {
    gfl_tensor_report t;
    memset(counts, 0, 3 * sizeof *counts);
    for (int i = 0; gfl_model_get_report(model, i, &t) == GFL_OK; i++) counts[t.fate]++;
}

void print_tensors(FILE *f, const gfl_model *model, unsigned wanted) {
    gfl_tensor_report t;
    for (int i = 0; gfl_model_get_report(model, i, &t) == GFL_OK; i++) {
        if (!(wanted >> t.fate & 1)) continue;
        say(f, "%-14s %s [", fates[t.fate], t.name);
        for (int k = 0; k < t.rank; k++) fprintf(f, "%s%lld", k ? ", " : "", (long long)t.shape[k]);
        say_line(f, "]%s%s", *t.why ? " " : "", t.why);
    }
}

void write_tensors_json(gfl_json_writer *json, const gfl_model *model, unsigned wanted) {
    gfl_tensor_report t;
    gfl_json_array(json, "tensors");
    for (int i = 0; gfl_model_get_report(model, i, &t) == GFL_OK; i++) {
        if (!(wanted >> t.fate & 1)) continue;
        gfl_json_line(json);
        gfl_json_object(json, NULL);
        gfl_json_text(json, "name", t.name);
        gfl_json_text(json, "fate", fates[t.fate]);
        gfl_json_array(json, "shape");
        for (int k = 0; k < t.rank; k++) gfl_json_integer(json, NULL, t.shape[k]);
        gfl_json_end(json);
        gfl_json_text(json, "why", t.why);
        gfl_json_end(json);
    }
    gfl_json_end(json);
}

/* ---- lists of classes ------------------------------------------------------------------------ */

void free_classes(class_list *list) {
    for (int k = 0; k < list->n; k++) free((void *)(uintptr_t)list->items[k].name);
    free(list->items);
    list->items = NULL;
    list->n = 0;
}

/* A name without the blanks around it; none at all is left out. */
static int add_class(class_list *list, const char *name, size_t length, int64_t id) {
    while (length && strchr(" \t\r", *name)) name++, length--;
    while (length && strchr(" \t\r", name[length - 1])) length--;
    if (!length) return CMD_OK;
    if (list->n == GFL_MAX_CLASSES)
        return usage_error(
            "--classes: there are more than %d classes, the most that a model can have",
            GFL_MAX_CLASSES);
    gfl_class *items = take_more(list->items, (size_t)list->n + 1, sizeof *items);
    char *own = take(length + 1, 1);
    if (items) list->items = items;
    if (!items || !own) {
        free(own);
        return CMD_MEMORY;
    }
    memcpy(own, name, length);
    own[length] = 0;
    items[list->n].name = own;
    items[list->n++].id = id;
    return CMD_OK;
}

static int compare_names(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static int check_names(const class_list *list) {
    const char **names = take((size_t)list->n, sizeof *names);
    int code = CMD_OK;
    if (!names) return CMD_MEMORY;
    for (int k = 0; k < list->n; k++) names[k] = list->items[k].name;
    qsort(names, (size_t)list->n, sizeof *names, compare_names);
    for (int k = 1; k < list->n && code == CMD_OK; k++)
        if (!strcmp(names[k - 1], names[k]))
            code = usage_error("--classes: \"%s\" is there twice", names[k]);
    free(names);
    return code;
}

/* A name a line, or names between commas. */
static int split_classes(const char *text, const char *ends, class_list *list) {
    int code = CMD_OK;
    for (; code == CMD_OK; text++) {
        const size_t length = strcspn(text, ends);
        code = add_class(list, text, length, list->n + 1);
        text += length;
        if (!*text) break;
    }
    return code;
}

static int read_class_lines(const char *path, class_list *list) {
    enum { LIMIT = 64 << 20 };
    static const char mark[] = "\xEF\xBB\xBF"; /* that editors of Windows put before UTF-8 */
    char *bytes;
    size_t size;
    const char *why = os_read(path, LIMIT, &bytes, &size);
    if (why) {
        talk("gfl: --classes %s: %s", path, why);
        return CMD_FAILED;
    }
    int code;
    if (size >= 2 && (!memcmp(bytes, "\xFF\xFE", 2) || !memcmp(bytes, "\xFE\xFF", 2)))
        code = usage_error("--classes %s: this is UTF-16; save it as UTF-8", path);
    else
        code = split_classes(bytes + (strncmp(bytes, mark, 3) ? 0 : 3), "\n", list);
    free(bytes);
    return code;
}

static int read_categories(gfl_context *context, const char *path, class_list *list) {
    gfl_dataset *dataset = NULL;
    int code = CMD_OK;
    gfl_status status = gfl_dataset_load_coco(context, path, NULL, &dataset);
    if (status != GFL_OK) return report(context, status, "--classes");
    const gfl_class *classes = gfl_dataset_get_classes(dataset);
    for (int k = 0; k < gfl_dataset_count_classes(dataset) && code == CMD_OK; k++)
        code = add_class(list, classes[k].name, strlen(classes[k].name), classes[k].id);
    gfl_dataset_destroy(dataset);
    return code;
}

/* Would nobody call a class that? */
static bool is_file_name(const char *text) {
    static const char *const endings[] = {".txt", ".json", ".names", ".csv", ".yaml", ".yml"};
    const size_t n = strlen(text);
    if (strchr(text, ',')) return false;
    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++) {
        const size_t m = strlen(endings[i]);
        if (n > m && !strcmp(text + n - m, endings[i])) return true;
    }
    return strpbrk(text, "/\\") != NULL;
}

/* The class whose name is the nearest, or else the first few. */
static int no_such_class(const gfl_model_info *info, const char *name) {
    enum { MOST = 12 };
    const gfl_class *classes = info->classes;
    const int n = info->arch.n_classes;
    const char **names = take((size_t)n, sizeof *names);
    if (!names) return CMD_MEMORY;
    for (int k = 0; k < n; k++) names[k] = classes[k].name;
    const char *near = opt_nearest(name, names, n);
    if (near) {
        usage_error("--classes: the model has no class \"%s\"; did you mean \"%s\"?", name, near);
    } else {
        usage_error(
            "--classes: the model has no class \"%s\"; it has these, with the labels 0..%d:", name,
            n - 1);
        for (int k = 0; k < n && k < MOST; k++) talk("  %d %s", k, classes[k].name);
        if (n > MOST) talk("  and %d others; gfl info lists them", n - MOST);
    }
    free(names);
    return CMD_USAGE;
}

/* A name before a number, since a class may be called "2". */
static int find_label(const gfl_model_info *info, const char *name, int *label) {
    const int n = info->arch.n_classes;
    char *end;
    for (*label = 0; *label < n; ++*label)
        if (!strcmp(info->classes[*label].name, name)) return CMD_OK;
    const long number = strtol(name, &end, 10);
    if (*name < '0' || *name > '9' || *end || number >= n) return no_such_class(info, name);
    *label = (int)number;
    return CMD_OK;
}

int find_labels(const gfl_model_info *info, const class_list *list, int **labels) {
    int code = CMD_OK;
    *labels = take((size_t)list->n, sizeof **labels);
    if (!*labels) return CMD_MEMORY;
    for (int k = 0; k < list->n && code == CMD_OK; k++)
        code = find_label(info, list->items[k].name, &(*labels)[k]);
    return code;
}

int read_classes(gfl_context *context, const char *text, class_list *list) {
    const size_t n = strlen(text);
    const bool is_file = os_exists(text);
    int code;
    memset(list, 0, sizeof *list);
    if (is_file && n > 5 && !strcmp(text + n - 5, ".json"))
        code = read_categories(context, text, list);
    else if (is_file)
        code = read_class_lines(text, list);
    else if (is_file_name(text))
        code =
            usage_error("--classes %s: there is no such file; classes are listed as a,b,c", text);
    else
        code = split_classes(text, ",", list);
    if (code == CMD_OK && !list->n) code = usage_error("--classes %s: it names no class", text);
    if (code == CMD_OK) code = check_names(list);
    if (code != CMD_OK) free_classes(list);
    return code;
}
