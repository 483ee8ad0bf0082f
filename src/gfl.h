/* gfl.h - Generalized Focal Loss object detection: the API, and the detector on the CPU behind it.
 *
 * SPDX-License-Identifier: MIT
 *
 * DO THIS
 *
 *     #define GFL_IMPLEMENTATION      in ONE .c or .cpp file, before it includes gfl.h
 *     #include "gfl.h"                everywhere
 *
 *     cc -O3 app.c -lm -pthread              detects
 *     cc -O3 app.c gfl_train.c -lm -pthread  trains, evaluates, reads image files and .pth too
 *
 * or compile the header itself: cc -O3 -x c -DGFL_IMPLEMENTATION -c gfl.h.  Use -O2 at least;
 * without optimisation it is twenty times slower.  The implementation is C11 or C++17 for gcc or
 * clang, on little-endian machines with POSIX or, by mingw-w64, Windows.  The declarations are C99
 * or C++11.  Including the header defines no feature macro: with -std=c11 instead of -std=gnu11,
 * which is the default, the implementation needs -D_POSIX_C_SOURCE=200809L.  Paths are the system's
 * bytes, on Windows UTF-8.
 *
 *     gfl_context *context;
 *     gfl_model *model;
 *     gfl_detector *detector;
 *     gfl_detection_list found;
 *     gfl_image image = gfl_image_from_rgb(pixels, width, height);
 *     gfl_context_create(NULL, &context);
 *     gfl_model_load(context, "weights.safetensors", NULL, &model);
 *     gfl_detector_create(context, model, NULL, &detector);
 *     gfl_detect(detector, &image, 1, NULL, &found);
 *     for (int i = 0; i < found.count; i++)
 *         puts(gfl_model_get_class(model, found.items[i].label)->name);
 *
 * SWITCHES, to be defined before the header or on the compiler's command line
 *
 *     GFL_IMPLEMENTATION   this file holds the implementation
 *     GFL_API              what stands before public functions.  By default they are visible, so
 *                          that your shared object exports them.  Define it as
 *                          __attribute__((visibility("hidden"))) to keep them inside, or as static
 *                          to make gfl.h and gfl_train.c private to one file that includes both;
 *                          static __attribute__((unused)) is the same without a warning about what
 *                          you do not call.  Everything else is always hidden
 *     GFL_NO_STB_IMAGE     gfl_train.c does without stb_image: PNG, BMP and PNM are read as ever,
 *                          and a JPEG is GFL_E_UNSUPPORTED; data sets may take their pixels from a
 *                          callback
 *
 * OBJECTS
 *
 *     gfl_context    memory, threads, logger, error text; outlives everything made with it
 *     gfl_model      architecture and weights.  Any number of detectors in any number of threads
 *                    may use it at once, as long as no trainer, gfl_model_load_backbone or
 *                    gfl_model_set_parameter changes it
 *     gfl_detector   the workspace that runs a model: one per thread
 *     gfl_dataset    COCO annotations and where their pixels come from; unchanging once loaded
 *     gfl_trainer    changes a trainable model step by step
 *     gfl_evaluator  collects detections and computes COCO's numbers
 *
 * You destroy what you create; destroy functions take NULL.  What an object was made from (context,
 * model, data set) is borrowed and must outlive it.
 *
 * NAMES
 *
 *     gfl_X_create, gfl_X_load...   make an X: (context, what it is made from, desc, &x)
 *     gfl_X_destroy                 gives it back
 *     gfl_X_get_Y, gfl_X_count_Y    read of an X without changing it; how many Y it has.  For NULL
 *                                   the answer is 0, NULL, zeros or an empty text, and GFL_E_ARG
 *                                   where it is a status
 *     ..._desc, ..._opts            what a creator makes; how one call works.  NULL means all
 *                                   defaults, unless the comment says that something is needed
 *
 * STRUCTS
 *
 * Structs that you fill: set all of it to zero first, then set what you want, by name.  Zero is the
 * default of every field.  Where zero is a default that does something, a negative number means
 * that it is not done: warmup = 0 is the usual warm-up, and warmup = -1 is none.  A number that
 * cannot be left out, such as that of the images of a batch, is GFL_E_ARG where it is negative.
 *
 *     gfl_detect_opts opts = {0};     or memset(&opts, 0, sizeof opts); in C++ also opts = {}
 *     opts.min_score = 0.3f;
 *
 * Do not list values by position, and do not call a function with a struct that was never zeroed:
 * later versions add fields, always at the end.  Structs have no size field.  Instead GFL_ABI
 * numbers the interface as a whole: a struct, an enum or a prototype changes only together with it.
 * While the version is 0.x the SONAME carries both parts (libgfl.so.0.2 is GFL_ABI 2), so that a
 * program never starts with another interface than it was compiled for.  gfl_context_create hands
 * your GFL_ABI to the library, which refuses another one and says so: this covers a library opened
 * by hand, and objects that were compiled with different headers.  The tables of other files,
 * gfl_cuda() and a gfl_group, carry the number too and are refused in the same way.  gfl_train.c
 * and gfl_cuda.cu do not compile with the gfl.h of another release, nor do their objects link.
 * Releases that differ in the last number only (0.2.1) keep GFL_ABI and serve programs that are
 * already compiled.
 *
 * ERRORS
 *
 * Functions that can fail return a gfl_status.  The text of the failure says what, where, and what
 * to do.  It is in gfl_context_get_error() of the context that the object was made with, or of the
 * one that the call was given.  GFL_E_ARG has a text, too, except where neither was given and in
 * getters that any number of threads may call at once; their comments say so.  The text of
 * gfl_context_create goes to gfl_context_desc.error.  After an error the object is as it was before
 * the call, unless the function says otherwise.  The library never exits, aborts, prints, installs
 * signal handlers, or reads environment variables.
 *
 * MEMORY
 *
 * All of it comes from the context's allocator, even that of stb_image.  gfl_model_get_cost tells
 * what a model takes at one input size, gfl_arch_get_cost tells it before there is a model, and
 * gfl_model_get_plan tells it step by step.  A detector's workspace grows to the largest input so
 * far and is then used again: calls up to that size allocate nothing.  gfl_detector_reserve takes
 * the memory for the largest batch beforehand.
 *
 * THREADS
 *
 * Contexts are independent.  One context, with the objects made with it, serves one thread at a
 * time.  To run one model from several threads, give each thread a context and a detector of its
 * own on the same model.  A context computes on its own pool of threads, or on the caller's
 * (gfl_parallel).  Loaders of a trainer run on threads of their own.
 *
 * UNITS AND LAYOUTS
 *
 * Boxes are corners x1 y1 x2 y2 in pixels.  Coordinates are continuous, with the origin at the top
 * left corner of the top left pixel; a width is x2 - x1, without a + 1.  Labels count from 0, in
 * the order of ascending category ids.  In comments, N is images, H and W are rows and columns, C
 * is channels, and K is classes.  "[n]" before a description means an array of n.
 *
 * DETERMINISM
 *
 * The same input, weights and seed give the same bits, in training and in detection, whatever the
 * number of threads and loaders.  That holds for CPUs of the same instruction set, which decides on
 * the kernels and is named by gfl_context_get_device, with the same C library, which computes expf
 * and log.  It holds for gcc and clang, any -std, -O1 to -O3, with or without -march, in C and C++,
 * since the header switches off contraction to fused multiply-adds for its own functions.
 * -ffast-math and parts of it change the bits; so does another number of ranks, which adds up in
 * another order.  Training that is stopped after any step and resumed gives the same weights to the
 * bit.
 *
 * RANKS
 *
 * Several contexts, each usually in a process or on a machine of its own, can train one model
 * together.  A gfl_group adds up their numbers: a table of functions over MPI, sockets or whatever
 * connects them.  Tell each context which rank it is:
 *
 *     gfl_ranks ranks = {0};
 *     gfl_context_desc desc = {0};
 *     ranks.group = &group;
 *     ranks.rank = rank;
 *     ranks.n_ranks = n_ranks;
 *     desc.ranks = &ranks;
 *
 * All ranks then make the same calls of a trainer, with the same data set and description, and have
 * the same weights after every step.  Where one of them fails, all do: that rank tells why, and the
 * others return GFL_E_RANK.  Detectors and evaluators work for their own context alone.
 *
 * GPUS
 *
 * Compile gfl_cuda.cu too (nvcc -O3 -arch=sm_90a -c gfl_cuda.cu; link cudart) and ask for a GPU:
 *
 *     gfl_context_desc desc = {0};
 *     desc.backend = gfl_cuda();
 *     desc.device_index = 0;
 *
 * Models and detectors that are made with that context live on the GPU; everything else stays as it
 * is.  Images are uploaded as they are.  Resizing, the network, decoding and suppression happen on
 * the GPU, in float32 without TF32 or in what desc.precision says.  A program with gfl_cuda.cu in
 * it starts even where there is no driver; gfl_context_create then says why it fails, and you can
 * open a context on the CPU instead.  Training needs a context on the CPU.
 *
 * Pixels may lie on the GPU already (gfl_detect_opts.on_device).  Work is queued in a stream of the
 * context's own, or in yours (gfl_context_desc.stream).  gfl_detect_start does not wait for it, and
 * an event of yours (gfl_detect_opts.event) tells when it is done.  After a call, the context's GPU
 * is the current device of the calling thread.  From the second batch of the same size on, a
 * detector replays the network as a CUDA graph, except in calls with a progress callback.
 *
 * WEIGHTS
 *
 * gfl_model_load reads what gfl_model_save wrote: safetensors with mmdetection 3's names, and as
 * metadata what no tensor shows, which is dialect, style, classes and preprocessing.
 * gfl_model_import, in gfl_train.c, reads other people's checkpoints: safetensors and .pth of
 * mmdetection 1 to 3 and of implus/GFocal.  gfl_backbone_describe and gfl_model_load_backbone do
 * the same for backbones that were trained on ImageNet, of torchvision, timm, OpenMMLab and MSRA.
 * The architecture always follows from the tensors, and a tensor that contradicts the others is an
 * error.  The dialect is never guessed.  gfl_model_create_from is for fine-tuning: it makes a model
 * with another class list and keeps all other weights.  gfl_model_export writes a model for
 * mmdetection, PyTorch or ONNX.  Single tensors of a trainable model are listed by
 * gfl_model_describe_parameter, read by gfl_model_get_parameter and replaced by
 * gfl_model_set_parameter, after which gfl_model_sync makes detectors use them.
 *
 * DIALECTS
 *
 * Two families of GFL are published, and weights that were trained in one give wrong boxes in the
 * other.  The dialect in gfl_arch, which every weight file keeps, says what a model computes, in
 * detection and in training:
 *
 *     GFL_DIALECT_MMDET    mmdetection 2.18 and later; the default of new models
 *     GFL_DIALECT_GFOCAL   the authors' repository of 2020: corners are pixels inside the box,
 *                          another place for a cell's location, candidates chosen by location,
 *                          warm-up from a third of the rate, biases at twice the rate without decay
 *
 * In both, the boxes that go in and out are those of UNITS AND LAYOUTS.
 *
 * PAPERS
 *
 *     Li et al., "Generalized Focal Loss: Learning Qualified and Distributed Bounding Boxes for
 *         Dense Object Detection", NeurIPS 2020, arXiv:2006.04388
 *     Zhang et al., "Bridging the Gap Between Anchor-based and Anchor-free Detection via Adaptive
 *         Training Sample Selection" (ATSS), CVPR 2020, arXiv:1912.02424
 *     Lin et al., "Feature Pyramid Networks for Object Detection", CVPR 2017, arXiv:1612.03144
 *     He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, arXiv:1512.03385
 *     Xie et al., "Aggregated Residual Transformations for Deep Neural Networks", CVPR 2017
 *     Dai et al., "Deformable Convolutional Networks", ICCV 2017, arXiv:1703.06211
 *     Zhu et al., "Deformable ConvNets v2: More Deformable, Better Results", CVPR 2019,
 *         arXiv:1811.11168
 *     Wu and He, "Group Normalization", ECCV 2018, arXiv:1803.08494
 *     Rezatofighi et al., "Generalized Intersection over Union", CVPR 2019, arXiv:1902.09630
 *
 * All constants are those of MMDetection 3.3's GFL or, in its dialect, of implus/GFocal.
 *
 * NOT HERE
 *
 * Other detectors are not here.  The functions of gfl_dataset, gfl_trainer and gfl_evaluator,
 * gfl_evaluate and gfl_match_dataset, gfl_image_read and gfl_image_read_memory, gfl_image_get_kind,
 * gfl_pixels_alloc, gfl_pixels_free, and those that import and export (gfl_model_import to
 * gfl_model_create_from, gfl_model_export, gfl_model_export_memory) are defined in gfl_train.c: a
 * program that only detects does not link it.
 *
 * Only what is declared above the line "#endif" of GFL_H is API.
 */
#ifndef GFL_H
#define GFL_H

#include "api/std.h"

#ifdef __cplusplus
extern "C" {
#endif

#include "api/config.h"
#include "api/status.h"
#include "api/json.h"
#include "api/text.h"
#include "api/context.h"
#include "api/group.h"
#include "api/image.h"
#include "api/model.h"
#include "api/detect.h"
#include "api/data.h"
#include "api/eval.h"
#include "api/train.h"
#include "api/import.h"
#include "api/evaluate.h"
#include "api/export.h"

#ifdef __cplusplus
}
#endif

#endif /* GFL_H */

#if defined(GFL_INTERNAL) || defined(GFL_IMPLEMENTATION)
#ifndef GFL_INTERNAL_H
#define GFL_INTERNAL_H

#include "core/std.h"
#include "core/check.h"

GFLI_BEGIN

#include "core/os.h"
#include "core/map.h"
#include "core/arrange.h"
#include "core/context.h"
#include "core/group.h"
#include "core/math.h"
#include "core/sample.h"
#include "core/rng.h"
#include "core/file.h"
#include "core/quote.h"
#include "core/decimal.h"
#include "core/json.h"
#include "core/blob.h"
#include "core/backend.h"
#include "core/box.h"
#include "core/decode.h"
#include "core/assign.h"
#include "core/loss.h"
#include "core/update.h"
#include "cpu/kernels.h"
#include "cpu/gemm.h"
#include "cpu/deform.h"
#include "cpu/decode.h"
#include "model/network.h"
#include "model/plan.h"
#include "model/model.h"
#include "model/dialect.h"
#include "model/weights.h"
#include "model/backbone.h"

GFLI_END

#endif /* GFL_INTERNAL_H */
#endif

#ifdef GFL_IMPLEMENTATION
#ifndef GFL_IMPLEMENTED
#define GFL_IMPLEMENTED

GFLI_BEGIN

#include "core/status.c"
#include "core/os.c"
#include "core/os_posix.c"
#include "core/os_windows.c"
#include "core/threads.c"
#include "core/group.c"
#include "core/arrange.c"
#include "core/context.c"
#include "core/rng.c"
#include "core/file.c"
#include "core/quote.c"
#include "core/decimal.c"
#include "core/json.c"
#include "core/json_write.c"
#include "core/blob.c"
#include "core/blob_write.c"
#include "cpu/portable.c"
#include "cpu/avx2.c"
#include "cpu/avx512.c"
#include "cpu/neon.c"
#include "cpu/kernels.c"
#include "cpu/gemm.c"
#include "cpu/fold.c"
#include "cpu/deform.c"
#include "cpu/conv.c"
#include "cpu/norm.c"
#include "cpu/pool.c"
#include "cpu/image.c"
#include "cpu/nms.c"
#include "cpu/decode.c"
#include "cpu/backend.c"
#include "model/dialect.c"
#include "model/arch.c"
#include "model/network.c"
#include "model/resnet.c"
#include "model/fpn.c"
#include "model/head.c"
#include "model/values.c"
#include "model/plan.c"
#include "model/names.c"
#include "model/deduce.c"
#include "model/metadata.c"
#include "model/load.c"
#include "model/save.c"
#include "model/model.c"
#include "model/describe.c"
#include "model/detect.c"

GFLI_END

#endif /* GFL_IMPLEMENTED */
#endif
