/* cmd_export.c - gfl export: a model for mmdetection, PyTorch or ONNX */
#include "cmd.h"
#include <string.h>

static const struct {
    const char *name;
    gfl_export_format format;
} formats[] = {{"mmdet", GFL_EXPORT_MMDET}, {"pth", GFL_EXPORT_PTH}};
enum { N_FORMATS = sizeof formats / sizeof formats[0] };

static int export_model(const char *in, const char *out, gfl_export_format format) {
    gfl_model *model = NULL;
    gfl_model_opts opts;
    gfl_context *context = open_context(1);
    if (!context) return CMD_FAILED;
    memset(&opts, 0, sizeof opts);
    opts.trainable = 1;
    gfl_status status = gfl_model_load(context, in, &opts, &model);
    if (status == GFL_OK) status = gfl_model_export(model, format, out);
    const int code = status == GFL_OK ? CMD_OK : report(context, status, "exporting");
    if (code == CMD_OK) talk("%s is written", out);
    gfl_model_destroy(model);
    gfl_context_destroy(context);
    return code;
}

int cmd_export(int argc, char **argv) {
    const char *to = NULL;
    int n_rest = 0;
    opt options[] = {
        {OPT_TEXT, "to", &to, "FORMAT", "mmdet (safetensors) or pth (PyTorch)", 0},
        {OPT_END, NULL, NULL, NULL, NULL, 0},
    };
    int code = opt_parse("export IN OUT --to FORMAT", options, argc, argv, (const char **)argv,
                         &n_rest);
    if (code >= 0) return code;
    if (n_rest != 2) return usage_error("export needs a weight file and a file to write");
    for (int i = 0; to && i < N_FORMATS; i++)
        if (!strcmp(to, formats[i].name)) return export_model(argv[0], argv[1], formats[i].format);
    return usage_error(to ? "--to %s: there is no such format; mmdet and pth are" : "export needs --to%s",
                       to ? to : "");
}
