/* fold_grad.c - gradients of a batch norm that was folded into the convolution before it */
#pragma once

enum { GFLI_UNFOLD_CHANNELS = 16 };

/* The convolution ran with W' = a W and b' = beta - a mean, a = gamma r, r = 1 / sqrt(var + eps):
 * dW = a dW', dgamma = r (sum of W dW' - mean db'), dbeta = db'. */
static void gfli_unfold_channels(void *arg, int task, int slot) {
    const gfli_unfold *t = (const gfli_unfold *)arg;
    const int out_c = t->shape->out_c;
    const size_t row = gfli_conv_weights(t->shape) / (size_t)out_c;
    const int end = gfli_min((task + 1) * GFLI_UNFOLD_CHANNELS, out_c);
    (void)slot;
    for (int o = task * GFLI_UNFOLD_CHANNELS; o < end; o++) {
        const float *w = t->weight + (size_t)o * row;
        float *dw = t->dweight + (size_t)o * row;
        double sum = 0, mean = (double)t->mean[o];
        for (size_t i = 0; i < row; i++) {
            sum += (double)w[i] * (double)dw[i];
            dw[i] *= t->scale[o];
        }
        const double var = (double)t->var[o] + (double)t->eps;
        t->dgamma[o] = (float)((sum - mean * (double)t->dbeta[o]) / (sqrt)(var));
    }
}

static void gfli_unfold_cpu(gfl_context *context, const gfli_unfold *call) {
    gfli_unfold t = *call;
    gfli_parallel_for(context, gfli_ceil_div(t.shape->out_c, GFLI_UNFOLD_CHANNELS),
                      gfli_unfold_channels, &t);
}
