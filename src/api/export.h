/* export.h - weights for other programs */
#pragma once

typedef enum gfl_export_format {
    GFL_EXPORT_MMDET = 1, /* safetensors, for load_state_dict(strict=True) of mmdetection 3 */
    GFL_EXPORT_PTH = 2    /* a PyTorch checkpoint, for torch.load(weights_only=True) */
} gfl_export_format;

/* gfl_model_export - write a model in the form of another program.
 *
 * GFL_EXPORT_MMDET and GFL_EXPORT_PTH hold every key of the official implementation's state dict,
 * with its shapes (convolutions OIHW) and constant buffers: mmdetection's, or for a model of
 * dialect gfocal that of implus/GFocal, which only GFL_EXPORT_PTH writes.  A .pth is
 * {"state_dict", "meta"}, with class names in meta["CLASSES"] and meta["dataset_meta"] and what
 * gfl_model_save says about a model in meta["gfl"].
 *
 *   model   trainable: others have released the weights
 *   path    replaced whole or not at all
 *
 * Errors    GFL_E_ARG          a NULL, an unknown format, a model that is not trainable
 *           GFL_E_UNSUPPORTED  a model of dialect gfocal for mmdetection, which would find other
 *                              boxes; more than 4 GB as .pth
 *           GFL_E_IO           the file cannot be written
 *           GFL_E_MEMORY       no room for one tensor
 * Memory    one tensor at a time.
 * Threads   as the model's context. */
GFL_API gfl_status gfl_model_export(const gfl_model *model, gfl_export_format format,
                                    const char *path);
