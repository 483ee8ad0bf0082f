/* export.c - gfl_model_export */
#pragma once

gfl_status gfl_model_export(const gfl_model *model, gfl_export_format format,
                            const gfl_export_opts *opts, const char *path) {
    GFLI_NOT_NULL(NULL, model);
    GFLI_NOT_NULL(model->context, path);
    GFLI_TRAINABLE(model->context, model);
    switch ((int)format) {
    case GFL_EXPORT_MMDET: return gfli_export_mmdet(model, path);
    case GFL_EXPORT_PTH: return gfli_export_pth(model, path);
    case GFL_EXPORT_ONNX: return gfli_export_onnx(model, opts, path);
    default:
        return gfli_error(model->context, GFL_E_ARG,
                          "gfl_model_export: format is %d; it must be GFL_EXPORT_MMDET, "
                          "GFL_EXPORT_PTH or GFL_EXPORT_ONNX",
                          (int)format);
    }
}
