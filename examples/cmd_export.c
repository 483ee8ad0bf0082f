/* cmd_export.c - gfl export: a model for mmdetection, PyTorch or ONNX */
#include "cmd.h"
#include <string.h>

static const struct {
    const char *name;
    gfl_export_format format;
} formats[] = {{"mmdet", GFL_EXPORT_MMDET}, {"pth", GFL_EXPORT_PTH}, {"onnx", GFL_EXPORT_ONNX}};
enum { N_FORMATS = sizeof formats / sizeof formats[0] };

static bool parse_size(const char *text, gfl_export_opts *opts) {
    char end;
    return sscanf(text, "%dx%d%c", &opts->width, &opts->height, &end) == 2 && opts->width > 0 &&
           opts->height > 0;
}

static int export_model(const char *in, const char *out, gfl_export_format format,
                        const gfl_export_opts *opts) {
    gfl_model *model = NULL;
    gfl_import_desc how;
    gfl_context *context;
    int code = open_context(1, &context);
    if (code != CMD_OK) return code;
    memset(&how, 0, sizeof how);
    how.trainable = 1;
    gfl_status status = gfl_model_import(context, in, &how, &model);
    if (status == GFL_OK) warn_of_assumed(in, model, false);
    if (status == GFL_OK) status = gfl_model_export(model, format, opts, out);
    code = status == GFL_OK ? CMD_OK : report(context, status, "exporting");
    if (code == CMD_OK) talk("%s is written", out);
    gfl_model_destroy(model);
    gfl_context_destroy(context);
    return code;
}

int cmd_export(int argc, char **argv) {
    const char *to = NULL, *size = NULL, *names[N_FORMATS];
    bool decode = false, pixels = false;
    int n_rest = 0, format = 0;
    gfl_export_opts opts;
    memset(&opts, 0, sizeof opts);
    opt options[] = {
        {OPT_TEXT, "to", &to, "FORMAT",
         "mmdet (safetensors for mmdetection), pth (PyTorch) or onnx.", 0},
        {OPT_FLAG, "decode", &decode, NULL,
         "ONNX: the outputs are scores and boxes instead of logits.", 0},
        {OPT_FLAG, "pixels", &pixels, NULL,
         "ONNX: the input is bytes, RGB, which the graph normalises.", 0},
        {OPT_INT, "batch", &opts.batch, "N",
         "ONNX: number of pictures in the input; 0 means any. Default: 0.", 0},
        {OPT_TEXT, "size", &size, "WxH",
         "ONNX: width and height of the input, which OpenCV needs. Without --pixels both must be "
         "multiples of 32. Default: any.",
         0},
        {OPT_END, NULL, NULL, NULL, NULL, 0},
    };
    int code = opt_parse("export IN OUT --to mmdet|pth|onnx [options]", options, argc, argv,
                         (const char **)argv, &n_rest);
    if (code >= 0) return code;
    if (n_rest != 2) return usage_error("export needs a weight file and a file to write");
    if (!to) return usage_error("export needs --to mmdet, pth or onnx");
    if (is_same_file(argv[0], argv[1]))
        return usage_error("%s would be overwritten; name another file", argv[0]);
    for (int i = 0; i < N_FORMATS; i++) {
        names[i] = formats[i].name;
        if (!strcmp(to, names[i])) format = (int)formats[i].format;
    }
    if (!format) {
        const char *near = opt_nearest(to, names, N_FORMATS);
        return usage_error("--to %s: there is no such format; did you mean %s?", to,
                           near ? near : "mmdet, pth or onnx");
    }
    if (format != (int)GFL_EXPORT_ONNX && (decode || pixels || opts.batch || size))
        return usage_error("--decode, --pixels, --batch and --size go only with --to onnx");
    if (size && !parse_size(size, &opts))
        return usage_error("--size must be WIDTHxHEIGHT, not \"%s\"", size);
    if (size && !pixels && (opts.width % 32 || opts.height % 32))
        return usage_error("--size %s: without --pixels both sides must be multiples of 32; leave "
                           "--size out for any",
                           size);
    opts.decode = decode;
    opts.pixels = pixels;
    return export_model(argv[0], argv[1], (gfl_export_format)format, &opts);
}
