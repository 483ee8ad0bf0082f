/* test_long_network.cc - whole networks in tf32, bf16 and fp16, beside mmdetection's in float64 */
#include "fixture.h"

#include "device.h"

static const char *const element_names[] = {"tf32", "bf16", "fp16"};
/* Half a unit in the last place, relative. */
static const double units[] = {1.0 / 2048, 1.0 / 256, 1.0 / 2048};

static bool find_slot(const gfli_plan *plan, const char *name, int *slot, int *level) {
    const char *dot = strchr(name, '.');
    size_t length = dot ? (size_t)(dot - name) : strlen(name);
    for (int i = 0; i < plan->n_slots; i++) {
        const char *own = plan->slots[i].name;
        if (!own || strlen(own) != length || strncmp(own, name, length) != 0) continue;
        *slot = i;
        *level = dot ? atoi(dot + 1) : -1;
        return true;
    }
    return false;
}

/* A map of the device, as float. */
static gfli_map fetch(const gfli_network *net, int slot) {
    gfli_map m = net->plan->slots[slot].map;
    const size_t n = gfli_map_floats(&m);
    const int element = net->wide[slot] ? (int)GFLI_ELEMENT_TF32 : net->element;
    const size_t size = element == GFLI_ELEMENT_TF32 ? 4 : 2;
    void *raw = malloc(n * size);
    CHECK(cudaMemcpy(raw, gfli_network_slot(net, slot), n * size, cudaMemcpyDeviceToHost) ==
          cudaSuccess);
    m.data = (float *)malloc(n * sizeof(float));
    for (size_t i = 0; i < n; i++) m.data[i] = element_at(raw, i, element);
    free(raw);
    return m;
}

static void fill(const gfli_network *net) {
    gfli_map input = net->plan->slots[net->plan->input].map;
    const size_t n = gfli_map_floats(&input), size = net->element == GFLI_ELEMENT_TF32 ? 4 : 2;
    input.data = (float *)malloc(n * sizeof(float));
    fx_fill_input("input", &input);
    void *raw = malloc(n * size);
    for (size_t i = 0; i < n; i++) element_put(raw, i, input.data[i], net->element);
    CHECK(cudaMemcpy(gfli_network_slot(net, net->plan->input), raw, n * size,
                     cudaMemcpyHostToDevice) == cudaSuccess);
    free(raw);
    free(input.data);
}

/* Every layer rounds its operands and its result: errors of a unit, independent, grow with the
 * square root of some thirty layers, and the worst of thousands is three to four times the usual.
 * Against the largest magnitude, itself several times the usual value, that is 8 units. */
static void compare(fx_case *one, const gfli_network *net) {
    double worst = 0;
    int n = 0;
    for (int i = 0; i < one->blob.n_tensors; i++) {
        const char *name = one->blob.tensors[i].name;
        const fx_json *about = fx_get(fx_get(&one->json, "tensors"), name);
        int slot = -1, level = -1;
        const bool found = find_slot(net->plan, name, &slot, &level);
        CHECK(found && about);
        if (!found || !about) continue;
        fx_tensor want = fx_load(one, name);
        gfli_map whole = fetch(net, slot), map = level < 0 ? whole : gfli_map_level(&whole, level);
        const double largest =
            fmax(fabs(fx_number(about, "max", 0)), fabs(fx_number(about, "min", 0)));
        const double error = fx_map_error(&map, &want, fx_step(one, name)) / largest;
        if (!(error <= 8 * units[net->element]))
            printf("%s in %s: off by %.3g of the largest magnitude, %.2g units\n", name,
                   element_names[net->element], error, error / units[net->element]);
        CHECK(error <= 8 * units[net->element]);
        worst = fmax(worst, error);
        n++;
        free(whole.data);
        free(want.data);
    }
    CHECK(n > 0);
    printf("%s in %s: %d tensors, worst %.2g of the largest magnitude, %.2g units\n", one->name,
           element_names[net->element], n, worst, worst / units[net->element]);
}

static void small_networks_keep_the_precision(void) {
    fx_list list = fx_open("forward");
    gfli_conv_device device;
    CHECK(gfli_conv_device_query(true, &device) == cudaSuccess);
    for (fx_case one; fx_next(&list, &one); fx_free_case(&one)) {
        if (strncmp(one.name, "tiny", 4) != 0) continue; /* what an emulator can do in time */
        gfl_model_desc desc;
        gfl_model_opts opts;
        gfl_model *model = NULL;
        gfli_plan plan;
        const fx_json *shape = fx_get(fx_get(&one.json, "input"), "shape");
        memset(&desc, 0, sizeof desc);
        memset(&opts, 0, sizeof opts);
        opts.trainable = 1;
        fx_arch(&one, &desc.arch);
        CHECK_OK(one.context, gfl_model_create(one.context, &desc, &opts, &model));
        fx_fill_model(model);
        CHECK_OK(one.context, gfli_plan_create(one.context, model, (int)fx_at(shape, 0)->number,
                                               (int)fx_at(shape, 2)->number,
                                               (int)fx_at(shape, 3)->number, true, &plan));
        for (int element = 0; element < GFLI_ELEMENTS; element++) {
            gfli_network net;
            CHECK_OK(one.context,
                     gfli_network_create(one.context, model, &plan, element, &device, &net));
            if (!net.context) continue;
            fill(&net);
            CHECK_OK(one.context, gfli_network_run(&net, 0));
            CHECK(cudaDeviceSynchronize() == cudaSuccess);
            compare(&one, &net);
            gfli_network_destroy(&net);
        }
        gfli_plan_destroy(one.context, &plan);
        gfl_model_destroy(model);
    }
}

int main(int argc, char **argv) {
    static const test_case cases[] = {
        TEST(small_networks_keep_the_precision),
        {NULL, NULL},
    };
    const int absent = device_absent();
    if (absent) return absent;
    emulated_order(EMULATED_RANDOM, 1);
    const int status = test_main(argc, argv, cases);
    return emulated_errors() > 0 ? 1 : status;
}
