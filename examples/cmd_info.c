/* cmd_info.c - gfl info and gfl bench: what a model is, and what it costs */
#include "cmd.h"
#include "cmd_os.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

static gfl_status make_preset(gfl_context *context, const char *name, gfl_model **out) {
    gfl_model_desc desc;
    memset(&desc, 0, sizeof desc);
    *out = NULL;
    gfl_status status = gfl_arch_find_preset(context, name, &desc.arch);
    return status == GFL_OK ? gfl_model_create(context, &desc, out) : status;
}

static void print_preset(const gfl_preset *p, const gfl_model_cost *cost) {
    char ap[80] = "-";
    if (p->ap > 0) snprintf(ap, sizeof ap, "%.1f (%s)", p->ap, p->published);
    printf("%-17s %9.2f M   %16.1f   %s\n", p->name, (double)cost->n_parameters * 1e-6,
           (double)cost->macs * 1e-9, ap);
}

static void write_preset(gfl_json_writer *out, const gfl_preset *p, const gfl_model_cost *cost) {
    gfl_json_line(out);
    gfl_json_object(out, NULL);
    gfl_json_text(out, "model", p->name);
    gfl_json_integer(out, "parameters", cost->n_parameters);
    gfl_json_integer(out, "macs", cost->macs);
    gfl_json_number(out, "published_ap", p->ap > 0 ? p->ap : NAN);
    gfl_json_text(out, "published_by", p->published);
    gfl_json_end(out);
}

/* Published AP, none of it measured with this library. */
static int list_presets(gfl_context *context, bool json) {
    gfl_preset p;
    gfl_json_writer out = json_to(stdout);
    if (json)
        gfl_json_array(&out, NULL);
    else
        puts("model              parameters   GMAC at 1333x800   published COCO AP");
    for (int i = 0; gfl_arch_get_preset(i, &p) == GFL_OK; i++) {
        gfl_model_cost cost;
        gfl_status status = gfl_arch_get_cost(context, &p.arch, 1333, 800, 1, &cost);
        if (status != GFL_OK) return report(context, status, p.name);
        if (json)
            write_preset(&out, &p, &cost);
        else
            print_preset(&p, &cost);
    }
    if (!json) return CMD_OK;
    gfl_json_end(&out);
    gfl_json_line(&out);
    return CMD_OK;
}

/* What --kernel takes on the CPU, in its table or in a line of its own. */
static void print_cpu_kernels(gfl_json_writer *json) {
    const char *name;
    if (json)
        gfl_json_array(json, "kernels");
    else
        fputs("CPU, kernels:", stdout);
    for (int i = 0; (name = gfl_cpu_get_kernel(i)) != NULL; i++) {
        if (json)
            gfl_json_text(json, NULL, name);
        else
            printf("%s %s", i ? "," : "", name);
    }
    if (json)
        gfl_json_end(json);
    else
        putchar('\n');
}

static void print_device(gfl_json_writer *json, const char *name, bool usable, const char *text) {
    const bool cpu = strcmp(name, "cpu") == 0;
    if (json) {
        gfl_json_line(json);
        gfl_json_object(json, NULL);
        gfl_json_text(json, "device", name);
        gfl_json_bool(json, "usable", usable);
        gfl_json_text(json, "is", text);
        if (cpu) print_cpu_kernels(json);
        gfl_json_end(json);
    } else if (usable) {
        say_line(stdout, "%s", text);
        if (cpu) print_cpu_kernels(NULL);
    } else {
        say_line(stdout, "%s cannot be used: %s", name, text);
    }
}

/* Asks for each GPU until there are no more; the first answer tells where there is none. */
static int list_devices(bool json) {
    char name[32] = "cpu", text[300];
    gfl_json_writer out = json_to(stdout);
    if (json) gfl_json_array(&out, NULL);
    for (int i = -1; i <= 64; i++) {
        gfl_context_desc desc;
        gfl_context *context = NULL;
        memset(&desc, 0, sizeof desc);
        snprintf(text, sizeof text, "this gfl was built without CUDA");
        desc.error = text;
        desc.error_size = sizeof text;
        desc.backend = i < 0 ? NULL : cuda_backend();
        desc.device_index = i < 0 ? 0 : i;
        if (i >= 0) snprintf(name, sizeof name, "cuda:%d", i);
        const bool usable =
            (i < 0 || desc.backend) && gfl_context_create(&desc, &context) == GFL_OK;
        const bool past = !usable && i > 0 && !strncmp(text, "there is no GPU", 15);
        if (!past)
            print_device(json ? &out : NULL, name, usable,
                         usable ? gfl_context_get_device(context) : text);
        gfl_context_destroy(context);
        if (past || (!usable && (!desc.backend || !strncmp(text, "no NVIDIA", 9)))) break;
    }
    if (!json) return CMD_OK;
    gfl_json_end(&out);
    gfl_json_line(&out);
    return CMD_OK;
}

static void print_step(void *user, const gfl_plan_step *s) {
    int *n = user;
    char in[40], out[40], kernel[40] = "";
    if (*n == 0)
        puts(
            "step op            in                out             levels     MMAC   out MB  live MB"
            "  kernel           weights");
    snprintf(in, sizeof in, "%dx%dx%d", s->in_channels, s->in_height, s->in_width);
    snprintf(out, sizeof out, "%dx%dx%d", s->out_channels, s->out_height, s->out_width);
    snprintf(kernel, sizeof kernel, s->splits > 1 ? "%s/%d" : "%s", s->kernel, s->splits);
    say_line(stdout, "%4d %-13s %-17s %-17s %4d %8.1f %8.2f %8.2f  %-16s %s%s%s", (*n)++, s->op, in,
             out, s->levels, (double)s->macs * 1e-6, (double)s->out_bytes * 1e-6,
             (double)s->live_bytes * 1e-6, kernel, s->weights, s->twin[0] ? " + " : "", s->twin);
}

static void print_cost(const gfl_model_cost *cost, int w, int h) {
    printf("cost at %dx%d  %.2f GMAC, %d steps, %d locations; weights %.1f MB, workspace %.1f MB\n",
           w, h, (double)cost->macs * 1e-9, cost->n_steps, cost->points,
           (double)cost->weight_bytes * 1e-6, (double)cost->workspace_bytes * 1e-6);
}

static void print_info_json(const gfl_model_info *info, const gfl_model_cost *cost) {
    gfl_json_writer out = json_to(stdout);
    gfl_json_object(&out, NULL);
    gfl_json_integer(&out, "macs", cost->macs);
    gfl_json_integer(&out, "weight_bytes", (int64_t)cost->weight_bytes);
    gfl_json_integer(&out, "workspace_bytes", (int64_t)cost->workspace_bytes);
    write_model_json(&out, info);
    gfl_json_end(&out);
    gfl_json_line(&out);
}

typedef struct model_choice {
    const char *weights, *name, *scale;
    device_choice device;
    int scale_long, scale_short, threads;
} model_choice;

/* The model of a file or a preset, and the size to look at it in. */
static int open_model(gfl_context *context, model_choice *c, gfl_model **model) {
    gfl_model_info info;
    int unused = 0;
    gfl_status status = c->weights ? gfl_model_import(context, c->weights, NULL, model)
                                   : make_preset(context, c->name, model);
    if (status == GFL_E_ARG && !c->weights)
        return usage_error("--model %s: there is no such model; gfl info --list names them",
                           c->name);
    if (status != GFL_OK) return report(context, status, "opening the model");
    gfl_model_get_info(*model, &info);
    c->scale_long = info.preprocess.scale_long;
    c->scale_short = info.preprocess.scale_short;
    if (c->scale && (!opt_scale(c->scale, &c->scale_long, &c->scale_short, &unused) || unused))
        return scale_error(c->scale);
    return CMD_OK;
}

typedef struct info_options {
    model_choice model;
    bool list, devices, json, tensors, plan;
} info_options;

static int show_model(gfl_context *context, info_options *o, gfl_model *model) {
    const int w = o->model.scale_long, h = o->model.scale_short;
    int n_steps = 0;
    gfl_model_info info;
    gfl_model_cost cost;
    gfl_status status = gfl_model_get_cost(model, w, h, 1, &cost);
    if (status != GFL_OK) return report(context, status, "planning");
    gfl_model_get_info(model, &info);
    if (o->json) {
        print_info_json(&info, &cost);
    } else {
        print_model(stdout, &info);
        print_cost(&cost, w, h);
    }
    if (o->plan) status = gfl_model_get_plan(model, w, h, 1, print_step, &n_steps);
    if (o->tensors) print_tensors(stdout, model, ~0u);
    return status == GFL_OK ? CMD_OK : report(context, status, "planning");
}

static int parse_info(info_options *o, int argc, char **argv) {
    int n_rest = 0;
    opt options[] = {
        {OPT_TEXT, "model", &o->model.name, "NAME", "A preset instead of a file.", 0},
        {OPT_FLAG, "list", &o->list, NULL,
         "List the presets with their size, the published AP and who published it.", 0},
        {OPT_FLAG, "devices", &o->devices, NULL,
         "List what can compute here: the CPU, and each GPU with its compute capability and "
         "memory, or why no GPU can be used.",
         0},
        {OPT_FLAG, "tensors", &o->tensors, NULL, "Say what became of each tensor of the file.", 0},
        {OPT_FLAG, "plan", &o->plan, NULL,
         "List the steps of a forward pass with their shapes, multiply-adds, memory and weights.",
         0},
        {OPT_TEXT, "scale", &o->model.scale, "LxS",
         "State the cost for pictures that fit into this long and short side. Default: as trained.",
         0},
        DEVICE_OPTIONS(o->model.device),
        JSON_OPTION(o->json),
        {OPT_END, NULL, NULL, NULL, NULL, 0},
    };
    int code = opt_parse("info WEIGHTS | --model NAME | --list | --devices [options]", options,
                         argc, argv, (const char **)argv, &n_rest);
    if (code >= 0) return code;
    if (n_rest) o->model.weights = argv[0];
    if (o->json && o->plan) return usage_error("--plan prints a table, not JSON");
    if ((n_rest == 1) + (o->model.name != NULL) + o->list + o->devices != 1)
        return usage_error("info needs one of a weight file, --model NAME, --list, and --devices");
    return -1;
}

int cmd_info(int argc, char **argv) {
    info_options o;
    gfl_context *context;
    gfl_model *model = NULL;
    memset(&o, 0, sizeof o);
    int code = parse_info(&o, argc, argv);
    if (code >= 0) return code;
    if (o.devices) return list_devices(o.json);
    code = open_context_on(&o.model.device, 1, &context);
    if (code != CMD_OK) return code;
    if (o.list) {
        code = list_presets(context, o.json);
    } else {
        code = open_model(context, &o.model, &model);
        if (code == CMD_OK) code = show_model(context, &o, model);
    }
    gfl_model_destroy(model);
    gfl_context_destroy(context);
    return code;
}

/* ---- bench ----------------------------------------------------------------------------------- */

static int compare_doubles(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static gfl_status time_detection(gfl_detector *detector, const gfl_image *images, int batch,
                                 const gfl_detect_opts *opts, double *times, int repeats) {
    gfl_detection_list *found = take((size_t)batch, sizeof *found);
    gfl_status status = found ? GFL_OK : GFL_E_MEMORY;
    for (int i = -1; status == GFL_OK && i < repeats; i++) {
        const double start = os_seconds();
        status = gfl_detect(detector, images, batch, opts, found);
        if (i >= 0) times[i] = os_seconds() - start;
    }
    free(found);
    return status;
}

static void print_times(double median, double best, int batch, int threads, bool json) {
    if (!json) {
        printf("median %.4f s, best %.4f s, %.2f images a second (batch %d, %d threads)\n", median,
               best, batch / median, batch, threads);
        return;
    }
    gfl_json_writer out = json_to(stdout);
    gfl_json_object(&out, NULL);
    gfl_json_number(&out, "median", median);
    gfl_json_number(&out, "best", best);
    gfl_json_number(&out, "images_per_second", batch / median);
    gfl_json_integer(&out, "batch", batch);
    gfl_json_integer(&out, "threads", threads);
    gfl_json_end(&out);
    gfl_json_line(&out);
}

static int bench(gfl_context *context, const model_choice *c, const gfl_model *model, int batch,
                 int repeats, bool json) {
    const size_t bytes = (size_t)c->scale_long * (size_t)c->scale_short * 3;
    gfl_detector *detector = NULL;
    gfl_detect_opts opts;
    double *times = take((size_t)repeats, sizeof *times);
    gfl_image *images = take((size_t)batch, sizeof *images);
    uint8_t *noise = take(bytes, 1);
    uint32_t x = 1;
    memset(&opts, 0, sizeof opts);
    opts.scale_long = c->scale_long;
    opts.scale_short = c->scale_short;
    gfl_status status = times && images && noise
                            ? gfl_detector_create(context, model, NULL, &detector)
                            : GFL_E_MEMORY;
    for (size_t i = 0; noise && i < bytes; i++) {
        x = x * 1664525u + 1013904223u;
        noise[i] = (uint8_t)(x >> 24);
    }
    for (int i = 0; images && i < batch; i++) {
        images[i].pixels = noise;
        images[i].width = c->scale_long;
        images[i].height = c->scale_short;
    }
    if (status == GFL_OK) status = time_detection(detector, images, batch, &opts, times, repeats);
    int code = status == GFL_OK ? CMD_OK : report(context, status, "timing");
    if (code == CMD_OK) {
        qsort(times, (size_t)repeats, sizeof *times, compare_doubles);
        print_times(times[repeats / 2], times[0], batch, gfl_context_count_threads(context), json);
    }
    gfl_detector_destroy(detector);
    free(noise);
    free(images);
    free(times);
    return code;
}

int cmd_bench(int argc, char **argv) {
    model_choice c;
    bool json = false;
    int n_rest = 0, batch = 1, repeats = 10;
    gfl_model *model = NULL;
    memset(&c, 0, sizeof c);
    opt options[] = {
        WEIGHTS_OPTION(c.weights),
        {OPT_TEXT, "model", &c.name, "NAME", "A preset instead of a file.", 0},
        SCALE_OPTION(c.scale),
        {OPT_INT, "batch", &batch, "N", "Pictures per call.", 0},
        {OPT_INT, "repeats", &repeats, "N", "Number of calls.", 0},
        DEVICE_OPTIONS(c.device),
        THREADS_OPTION(c.threads),
        JSON_OPTION(json),
        {OPT_END, NULL, NULL, NULL, NULL, 0},
    };
    int code = opt_parse("bench --weights W | --model NAME [options]", options, argc, argv,
                         (const char **)argv, &n_rest);
    if (code >= 0) return code;
    if (n_rest || !c.weights == !c.name)
        return usage_error("bench needs either --weights FILE or --model NAME");
    if (batch < 1 || batch > 1024 || repeats < 1 || repeats > 100000)
        return usage_error("--batch must be from 1 to 1024, and --repeats from 1 to 100000");
    gfl_context *context;
    code = open_context_on(&c.device, c.threads, &context);
    if (code != CMD_OK) return code;
    code = open_model(context, &c, &model);
    if (code == CMD_OK) code = bench(context, &c, model, batch, repeats, json);
    gfl_model_destroy(model);
    gfl_context_destroy(context);
    return code;
}
