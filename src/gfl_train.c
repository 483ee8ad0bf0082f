/* gfl_train.c - training, data sets and COCO evaluation for gfl.h
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef GFL_INTERNAL
#define GFL_INTERNAL
#endif
#include "gfl.h"
#if GFL_VERSION != 200
#    error "this file is of gfl 0.2.0 and gfl.h is not: take both from one release"
#endif

#include "data/std.h"

GFLI_BEGIN

#include "data/image.h"
#include "data/inflate.h"
#include "data/dataset.h"
#include "data/coco.h"
#include "eval/evaluator.h"
#include "train/loader.h"
#include "train/backward.h"
#include "train/trainer.h"
#include "export/export.h"
#include "export/onnx.h"
#include "ckpt/ckpt.h"

#include "cpu/conv_grad.h"
#include "cpu/fold_grad.c"
#include "cpu/conv_grad.c"
#include "cpu/deform_grad.c"
#include "cpu/norm_grad.c"
#include "cpu/pool_grad.c"
#include "cpu/assign.c"
#include "cpu/losses.c"
#include "cpu/optim.c"
#include "cpu/backend_grad.c"
#include "data/crc.c"
#include "data/exif.c"
#include "data/jpeg.c"
#include "data/inflate.c"
#include "data/png.c"
#include "data/bmp.c"
#include "data/image.c"
#include "data/ids.c"
#include "data/coco.c"
#include "data/coco_resolve.c"
#include "data/arrays.c"
#include "data/dataset.c"
#include "eval/match.c"
#include "eval/coco_eval.c"
#include "eval/evaluator.c"
#include "eval/results.c"
#include "eval/evaluate.c"
#include "train/sampler.c"
#include "train/loader.c"
#include "train/backward.c"
#include "train/learner.c"
#include "train/schedule.c"
#include "train/trainer.c"
#include "train/fingerprint.c"
#include "train/state.c"
#include "train/ranks.c"
#include "ckpt/zip.c"
#include "ckpt/pickle.c"
#include "ckpt/pth.c"
#include "ckpt/python.c"
#include "ckpt/config.c"
#include "ckpt/open.c"
#include "ckpt/import.c"
#include "ckpt/backbone.c"
#include "ckpt/transfer.c"
#include "export/bytes.c"
#include "export/entries.c"
#include "export/pth.c"
#include "export/protobuf.c"
#include "export/onnx_graph.c"
#include "export/onnx_steps.c"
#include "export/onnx_ends.c"
#include "export/onnx.c"
#include "export/export.c"

GFLI_END
