/* embed.cc - the library inside a C++ program: a narrow untrained model looks at a grey picture */
#include "gfl.h"
#include <cstdio>
#include <memory>
#include <vector>

template <class T, void (*Destroy)(T *)> struct Deleter {
    void operator()(T *object) const {
        Destroy(object);
    }
};
using Context = std::unique_ptr<gfl_context, Deleter<gfl_context, gfl_context_destroy>>;
using Model = std::unique_ptr<gfl_model, Deleter<gfl_model, gfl_model_destroy>>;
using Detector = std::unique_ptr<gfl_detector, Deleter<gfl_detector, gfl_detector_destroy>>;

int main() {
    gfl_context *context = nullptr;
    if (gfl_context_create(nullptr, &context) != GFL_OK) return 1;
    Context own_context(context);

    gfl_model_desc desc = gfl_model_desc();
    desc.arch.depth = 18;
    desc.arch.base_channels = 8;
    desc.arch.fpn_channels = desc.arch.head_channels = 32;
    desc.arch.n_classes = 3;
    gfl_model *model = nullptr;
    gfl_detector *detector = nullptr;
    gfl_status status = gfl_model_create(context, &desc, &model);
    Model own_model(model);
    if (status == GFL_OK) status = gfl_detector_create(context, model, NULL, &detector);
    Detector own_detector(detector);

    std::vector<unsigned char> grey(64 * 48, 128);
    gfl_image image = gfl_image();
    image.pixels = grey.data();
    image.width = 64;
    image.height = 48;
    image.format = GFL_FORMAT_GREY;
    gfl_detection_list found;
    if (status == GFL_OK) status = gfl_detect(detector, &image, 1, nullptr, &found);
    if (status != GFL_OK) {
        std::fprintf(stderr, "embed: %s\n", gfl_context_get_error(context));
        return 1;
    }
    std::printf("%d detections\n", found.count);
    return 0;
}
