/* export.c - gfl_model_export */
#pragma once

gfl_status gfl_model_export(const gfl_model *model, gfl_export_format format,
                            const gfl_export_opts *opts, const char *path) {
    if (!model) return GFL_E_ARG;
    if (!path || !model->trainable)
        return gfli_error(model->context, GFL_E_ARG,
                          path ? "gfl_model_export: the weights were released after packing; load "
                                 "or create the model with opts.trainable"
                               : "gfl_model_export: path is NULL");
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
