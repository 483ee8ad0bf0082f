/* gfl.h - Generalized Focal Loss object detection: the API, and the CPU detector behind it.
 *
 * SPDX-License-Identifier: MIT
 */
#if (defined(GFL_INTERNAL) || defined(GFL_IMPLEMENTATION)) && !defined(_GNU_SOURCE) &&              \
    !defined(_POSIX_C_SOURCE)
#define _POSIX_C_SOURCE 200809L /* clock_gettime, fsync and pthreads under -std=c11 */
#endif

#ifndef GFL_H
#define GFL_H

#include "api/std.h"

#ifdef __cplusplus
extern "C" {
#endif

#include "api/config.h"
#include "api/status.h"
#include "api/context.h"
#include "api/image.h"
#include "api/model.h"
#include "api/detect.h"
#include "api/data.h"
#include "api/eval.h"
#include "api/train.h"

#ifdef __cplusplus
}
#endif

#endif /* GFL_H */

#if defined(GFL_INTERNAL) || defined(GFL_IMPLEMENTATION)
#ifndef GFL_INTERNAL_H
#define GFL_INTERNAL_H

#include "core/std.h"

#ifdef __cplusplus
extern "C" {
#endif

#include "core/check.h"
#include "core/context.h"
#include "core/rng.h"
#include "core/file.h"
#include "core/json.h"
#include "core/blob.h"
#include "core/tensor.h"
#include "core/backend.h"
#include "cpu/gemm.h"
#include "model/plan.h"
#include "model/model.h"

#ifdef __cplusplus
}
#endif

#endif /* GFL_INTERNAL_H */
#endif

#ifdef GFL_IMPLEMENTATION
#ifndef GFL_IMPLEMENTED
#define GFL_IMPLEMENTED

#ifdef __cplusplus
extern "C" {
#endif

#include "core/status.c"
#include "core/os.c"
#include "core/context.c"
#include "core/rng.c"
#include "core/file.c"
#include "core/json.c"
#include "core/blob.c"
#include "cpu/gemm.c"
#include "cpu/conv.c"
#include "cpu/norm.c"
#include "cpu/pool.c"
#include "cpu/image.c"
#include "cpu/nms.c"
#include "cpu/decode.c"
#include "cpu/backend.c"
#include "model/arch.c"
#include "model/params.c"
#include "model/plan.c"
#include "model/load.c"
#include "model/save.c"
#include "model/model.c"
#include "model/detect.c"

#ifdef __cplusplus
}
#endif

#endif /* GFL_IMPLEMENTED */
#endif
