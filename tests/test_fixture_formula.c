/* test_fixture_formula.c - the formula of the fixtures gives the numbers their README states */
#include "fixture.h"

static void check_values_of_the_readme(void) {
    CHECK(fx_fnv1a64("input") == 0x1ebbae8f5810b65bu);
    uint64_t h = fx_fnv1a64("input");
    CHECK_NEAR(fx_u(h, 0), 0.097818315, 1e-8);
    CHECK_NEAR(fx_u(h, 3), 0.852727771, 1e-8);
    int64_t shape[4] = {64, 3, 7, 7};
    CHECK_NEAR(fx_weight("backbone.conv1.weight", 4, shape, 50, 0), 0.0221420508, 1e-9);
    CHECK_NEAR(fx_weight("backbone.conv1.weight", 4, shape, 50, 3), -0.137377292, 1e-9);
}

int main(int argc, char **argv) {
    static const test_case cases[] = {TEST(check_values_of_the_readme), {0}};
    return test_main(argc, argv, cases);
}
