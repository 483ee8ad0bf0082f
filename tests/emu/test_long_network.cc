/* test_long_network.cc - whole networks in every precision, beside mmdetection's in float64 */
#include "fixture.h"

#include "device.h"

static const char *const precisions[] = {"fp32", "tf32", "bf16", "fp16"};
/* Half a unit in the last place, relative: what rounding once costs. */
static const double units[] = {1.0 / 16777216, 1.0 / 2048, 1.0 / 256, 1.0 / 2048};
/* Float32 adds thousands of products: its error is of the sums, and 1e-5 what the issue allows a
 * tenth of.  Elsewhere every layer rounds its operands and its result: errors of a unit,
 * independent, grow with the square root of some thirty layers, and the worst of thousands is three
 * to four times the usual.  Against the largest magnitude, itself several times the usual value,
 * that is 8 units. */
static const double bounds[] = {1e-5, 8.0 / 2048, 8.0 / 256, 8.0 / 2048};

typedef struct network {
    gfl_context *context;
    gfl_model *model;
    gfli_plan plan;
    void *workspace, *stats, *scratch;
} network;

static void *device_memory(gfl_context *context, size_t bytes) {
    void *p = NULL;
    CHECK_OK(context, context->backend->device.alloc(context, bytes, 1, "test", &p));
    return p;
}

static void open_network(fx_case *one, gfl_precision precision, network *net) {
    const fx_json *shape = fx_get(fx_get(&one->json, "input"), "shape");
    gfl_context_desc desc;
    gfl_arch arch;
    memset(net, 0, sizeof *net);
    memset(&desc, 0, sizeof desc);
    desc.backend = gfl_cuda();
    desc.precision = precision;
    CHECK(gfl_context_create(&desc, &net->context) == GFL_OK);
    fx_arch(one, &arch);
    net->model = fx_model(net->context, &arch, NULL);
    CHECK_OK(net->context, gfli_plan_create(net->context, net->model, (int)fx_at(shape, 0)->number,
                                            (int)fx_at(shape, 2)->number,
                                            (int)fx_at(shape, 3)->number, false, &net->plan));
    net->workspace = device_memory(net->context, net->plan.workspace_bytes);
    net->stats = device_memory(net->context, net->plan.stats_floats * sizeof(float));
    net->scratch = device_memory(net->context, net->plan.scratch_bytes);
    gfli_plan_bind(&net->plan, (float *)net->workspace);
}

static void close_network(network *net) {
    net->context->backend->device.free(net->context, net->workspace);
    net->context->backend->device.free(net->context, net->stats);
    net->context->backend->device.free(net->context, net->scratch);
    gfli_plan_destroy(net->context, &net->plan);
    gfl_model_destroy(net->model);
    gfl_context_destroy(net->context);
}

static void fill_input(const network *net) {
    gfli_map input = net->plan.maps[net->plan.input].map;
    const size_t n = gfli_map_count(&input);
    void *raw = malloc(gfli_map_bytes(&input)), *there = input.data;
    input.data = (float *)malloc(n * sizeof(float));
    fx_fill_input("input", &input);
    for (size_t i = 0; i < n; i++) element_put(raw, i, input.data[i], input.element);
    net->context->backend->device.upload(net->context, there, raw, gfli_map_bytes(&input));
    free(raw);
    free(input.data);
}

/* A map of the device, as float. */
static gfli_map fetch(const network *net, int slot) {
    gfli_map m = net->plan.maps[slot].map;
    const size_t n = gfli_map_count(&m);
    void *raw = malloc(gfli_map_bytes(&m));
    net->context->backend->device.download(net->context, raw, m.data, gfli_map_bytes(&m));
    CHECK_OK(net->context, net->context->backend->device.finish(net->context));
    m.data = (float *)malloc(n * sizeof(float));
    for (size_t i = 0; i < n; i++) m.data[i] = element_at(raw, i, m.element);
    m.element = GFLI_MAP_F32;
    free(raw);
    return m;
}

/* "C3", or "bbox_pred.1": a level. */
static bool find_slot(const gfli_plan *plan, const char *name, int *slot, int *level) {
    const char *dot = strchr(name, '.');
    const size_t length = dot ? (size_t)(dot - name) : strlen(name);
    for (int i = 0; i < plan->n_slots; i++) {
        const char *own = plan->maps[i].name;
        if (!own || strlen(own) != length || strncmp(own, name, length) != 0) continue;
        *slot = i;
        *level = dot ? atoi(dot + 1) : -1;
        return true;
    }
    return false;
}

/* The step after which a slot's contents are final: maps are reused, and written in place. */
static int last_write(const gfli_plan *plan, int slot) {
    int last = -1;
    for (int i = 0; i < plan->n_steps; i++) {
        const int written[2] = {plan->steps[i].out, plan->steps[i].twin.out};
        for (int k = 0; k < 2; k++)
            if (written[k] == slot || (written[k] >= 0 && plan->maps[written[k]].parent == slot))
                last = i;
    }
    return last;
}

/* Compare what is final after a step; the number of tensors, and the worst error. */
static int compare(fx_case *one, const network *net, int step, double bound, double *worst) {
    int n = 0;
    for (int i = 0; i < one->blob.n_tensors; i++) {
        const char *name = one->blob.tensors[i].name;
        const fx_json *about = fx_get(fx_get(&one->json, "tensors"), name);
        int slot = -1, level = -1;
        const bool found = find_slot(&net->plan, name, &slot, &level);
        CHECK(found && about);
        if (!found || !about || last_write(&net->plan, slot) != step) continue;
        fx_tensor want = fx_load(one, name);
        gfli_map whole = fetch(net, slot), map = level < 0 ? whole : gfli_map_level(&whole, level);
        const double largest =
            fmax(fabs(fx_number(about, "max", 0)), fabs(fx_number(about, "min", 0)));
        const double error = fx_map_error(&map, &want, fx_step(one, name)) / largest;
        if (!(error <= bound)) printf("%s: off by %.3g of the largest magnitude\n", name, error);
        CHECK(error <= bound);
        *worst = fmax(*worst, error);
        n++;
        free(whole.data);
        free(want.data);
    }
    return n;
}

static void small_networks_keep_the_precision(void) {
    fx_list list = fx_open("forward");
    for (fx_case one; fx_next(&list, &one); fx_free_case(&one)) {
#ifndef __CUDACC__
        if (strncmp(one.name, "tiny", 4) != 0) continue; /* what an emulator can do in time */
#endif
        for (int precision = 0; precision < (int)GFLI_COUNT(precisions); precision++) {
            network net;
            double worst = 0;
            int n = 0;
            open_network(&one, (gfl_precision)precision, &net);
            fill_input(&net);
            for (int i = 0; i < net.plan.n_steps; i++) {
                gfli_plan_run_step(net.context, net.model, &net.plan, i, (float *)net.stats,
                               net.scratch);
                n += compare(&one, &net, i, bounds[precision], &worst);
            }
            CHECK_OK(net.context, net.context->backend->device.finish(net.context));
            CHECK(n == one.blob.n_tensors);
            printf("%s in %s: %d tensors, worst %.2g of the largest magnitude, %.2g units\n",
                   one.name, precisions[precision], n, worst, worst / units[precision]);
            close_network(&net);
        }
    }
}

int main(int argc, char **argv) {
    static const test_case cases[] = {
        TEST(small_networks_keep_the_precision),
        {NULL, NULL, TEST_EVERYWHERE},
    };
    const int absent = device_absent();
    if (absent) return absent;
    emulated_order(EMULATED_RANDOM, 1);
    const int status = test_main(argc, argv, cases);
    return emulated_errors() > 0 ? 1 : status;
}
