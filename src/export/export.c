/* export.c - gfl_model_export */
#pragma once

static gfl_status gfli_export(const gfl_model *model, gfl_export_format format,
                              const gfl_export_opts *opts, gfli_sink to) {
    switch ((int)format) {
    case GFL_EXPORT_MMDET: return gfli_export_mmdet(model, to);
    case GFL_EXPORT_PTH: return gfli_export_pth(model, to);
    case GFL_EXPORT_ONNX: return gfli_export_onnx(model, opts, to);
    default:
        return gfli_error(model->context, GFL_E_ARG,
                          "gfl_model_export: format is %d; it must be GFL_EXPORT_MMDET, "
                          "GFL_EXPORT_PTH or GFL_EXPORT_ONNX",
                          (int)format);
    }
}

gfl_status gfl_model_export(const gfl_model *model, gfl_export_format format,
                            const gfl_export_opts *opts, const char *path) {
    GFLI_NOT_NULL(NULL, model);
    GFLI_NOT_NULL(model->context, path);
    GFLI_TRAINABLE(model->context, model);
    return gfli_export(model, format, opts, gfli_to_file(path));
}

gfl_status gfl_model_export_memory(const gfl_model *model, gfl_export_format format,
                                   const gfl_export_opts *opts, gfl_bytes *out) {
    if (out) memset(out, 0, sizeof *out);
    GFLI_NOT_NULL(NULL, model);
    GFLI_NOT_NULL(model->context, out);
    GFLI_TRAINABLE(model->context, model);
    return gfli_export(model, format, opts, gfli_to_memory(out));
}
