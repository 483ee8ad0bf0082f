/* fold.c - batch norm of running statistics as a scale and a bias of the convolution before it */
#pragma once

static void gfli_fold_norm_cpu(gfl_context *context, const gfli_norm_fold *f) {
    (void)context;
    for (int o = 0; o < f->channels; o++)
        gfli_fold_channel(f->gamma[o], f->beta[o], f->mean[o], f->var[o], f->eps, &f->scale[o],
                          &f->bias[o]);
}
