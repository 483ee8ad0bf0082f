/* export.h - weights and networks for other programs */
#pragma once

/* What gfl_model_export writes. */
typedef enum gfl_export_format {
    GFL_EXPORT_MMDET = 1, /* safetensors, for load_state_dict(strict=True) of mmdetection 3 */
    GFL_EXPORT_PTH = 2,   /* a PyTorch checkpoint, for torch.load(weights_only=True) */
    GFL_EXPORT_ONNX = 3   /* the network with its weights, for ONNX Runtime and others */
} gfl_export_format;

/* Options of GFL_EXPORT_ONNX; the other formats take none. */
typedef struct gfl_export_opts {
    int decode; /* 1: the graph gives scores and boxes; 0: it gives the logits of each level */
    int pixels; /* 1: the graph takes bytes and normalises them; 0: it takes normalised floats */
    int batch;  /* number of images; 0: any */
    int width, height; /* set both or none; 0: any; without pixels, multiples of 32 */
} gfl_export_opts;

/* gfl_model_export - write a model in the form of another program.
 *
 * GFL_EXPORT_MMDET and GFL_EXPORT_PTH hold every key of the official implementation's state dict,
 * with its shapes (convolutions OIHW) and its constant buffers.  For a model of dialect gfocal that
 * is the state dict of implus/GFocal, which only GFL_EXPORT_PTH writes.  A .pth is
 * {"state_dict", "meta"}, with class names in meta["CLASSES"] and meta["dataset_meta"], and with
 * what gfl_model_save says about a model in meta["gfl"].
 *
 * GFL_EXPORT_ONNX is a graph of standard operators, of opset 17, or of opset 19 where convolutions
 * are deformable (DeformConv).  Batch norm is folded into the convolutions.
 *
 *     input        without pixels: "input", f32 [N, 3, H, W], normalised, padded with 0 to
 *                  multiples of 32, with channels in the network's order
 *                  with pixels: "image", u8 [N, H, W, 3], RGB, of any size; the graph normalises
 *                  and pads.  The caller resizes.
 *     output       without decode: "cls_score.l" f32 [N, K, h, w] and "bbox_pred.l"
 *                  f32 [N, 4 * (reg_max + 1), h, w] of the levels l = 0..4, strides 8..128, as
 *                  mmdetection's head gives them
 *                  with decode: "scores" f32 [N, points, K] in 0..1 and "boxes" f32
 *                  [N, points, 4], x1 y1 x2 y2 in pixels of the input, not clipped; the points are
 *                  those of all levels, row by row.  In dialect gfocal x2 and y2 are the last
 *                  pixels of the box: add 1.  The graph has no threshold and no non-maximum
 *                  suppression.
 *     metadata     classes, class_ids, mean, std, channel_order, scale, dialect
 *
 * A file of that name is replaced whole or not at all.
 *
 *   model   made with desc.trainable; other models have freed their parameters
 *   path    the system's bytes, on Windows UTF-8; borrowed until the call returns
 *   opts    NULL or zeroed for a graph that takes normalised floats of any size and gives logits;
 *           borrowed
 *
 * Errors    GFL_E_ARG          an argument is NULL, the format is unknown, a size is out of range,
 *                              or the model is not trainable; for ONNX, too, when training has
 *                              changed the model since gfl_model_sync
 *           GFL_E_UNSUPPORTED  the model is of dialect gfocal and would give wrong boxes in
 *                              mmdetection; or it has more than 4 GB as .pth or 2 GB as ONNX
 *           GFL_E_IO           the file cannot be written
 *           GFL_E_MEMORY       there is no room for one tensor
 * Memory    One tensor at a time.
 * Threads   As the model's context.
 * Example
 *     gfl_export_opts opts = {0};
 *     opts.decode = opts.pixels = 1;
 *     gfl_model_export(model, GFL_EXPORT_ONNX, &opts, "model.onnx"); */
GFL_API gfl_status gfl_model_export(const gfl_model *model, gfl_export_format format,
                                    const gfl_export_opts *opts, const char *path);

/* gfl_model_export_memory - the bytes of the file that gfl_model_export would write.
 *
 *   out  set to the bytes; free them with gfl_bytes_free and the model's context; zeroed on error
 *
 * Errors    As gfl_model_export, except GFL_E_IO.
 * Memory    The bytes, and up to twice as much until the call returns.
 * Threads   As the model's context. */
GFL_API gfl_status gfl_model_export_memory(const gfl_model *model, gfl_export_format format,
                                           const gfl_export_opts *opts, gfl_bytes *out);
