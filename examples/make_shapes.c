/* make_shapes.c - pictures of coloured shapes with COCO annotations, to try a detector on
 *
 *     make_shapes DIR TRAIN VAL [SEED]
 *
 * writes DIR/train/0001.png ... and DIR/train.json, and the same for val: circles, squares,
 * triangles and stars of many sizes, some overlapping, on noisy backgrounds; every ninth picture
 * is empty.  The same arguments give the same bytes. */
#define _POSIX_C_SOURCE 200809L
#include <errno.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define STB_IMAGE_WRITE_STATIC
#define STB_IMAGE_WRITE_IMPLEMENTATION
#if defined(__GNUC__)
#    pragma GCC diagnostic push
#    pragma GCC diagnostic ignored "-Wunused-function"
#endif
#include <stb/stb_image_write.h>
#if defined(__GNUC__)
#    pragma GCC diagnostic pop
#endif

enum { WIDTH = 160, HEIGHT = 128, KINDS = 4, MOST_SHAPES = 5 };

static const char *const kinds[KINDS] = {"circle", "square", "triangle", "star"};

typedef struct shape {
    int kind;
    double x, y, radius, angle;
    uint8_t colour[3];
    int left, top, right, bottom; /* pixels that it covers, right and bottom exclusive */
} shape;

static uint64_t state;

static double uniform(double low, double high) {
    state += 0x9E3779B97F4A7C15u;
    uint64_t z = state;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return low + (high - low) * (double)((z ^ (z >> 31)) >> 11) * 0x1p-53;
}

/* Does the shape cover this point?  Distances are in its own frame, scaled to radius 1. */
static int covers(const shape *s, double x, double y) {
    const double pi = 3.14159265358979323846;
    const double dx = (x - s->x) / s->radius, dy = (y - s->y) / s->radius;
    const double u = cos(s->angle) * dx + sin(s->angle) * dy;
    const double v = cos(s->angle) * dy - sin(s->angle) * dx;
    const double r = sqrt(u * u + v * v), turn = atan2(v, u);
    if (s->kind == 0) return r <= 1;
    if (s->kind == 1) return fabs(u) <= 0.8 && fabs(v) <= 0.8;
    /* A regular triangle by the distance to its nearest side, a star by five such spikes. */
    const double corners = s->kind == 2 ? 3 : 5, third = 2 * pi / corners;
    const double from_corner = fabs(fmod(turn + 20 * pi + third / 2, third) - third / 2);
    if (s->kind == 2) return r * cos(third / 2 - from_corner) <= cos(third / 2);
    const double inner = 0.45, half = third / 2; /* from (1, 0) to inner at the angle half */
    const double px = r * cos(from_corner), py = r * sin(from_corner);
    const double ex = inner * cos(half) - 1, ey = inner * sin(half);
    return ex * py - ey * (px - 1) >= 0;
}

static void choose_shape(shape *s) {
    s->kind = (int)uniform(0, KINDS);
    s->radius = uniform(8, 32);
    s->x = uniform(s->radius + 1, (int)WIDTH - s->radius - 1);
    s->y = uniform(s->radius + 1, (int)HEIGHT - s->radius - 1);
    s->angle = uniform(0, 6.28);
    for (int c = 0; c < 3; c++) s->colour[c] = (uint8_t)uniform(0, 256);
    s->colour[(int)uniform(0, 3)] = 255;
}

/* Centres keep a distance, so that overlaps hide at most a part. */
static int fits(const shape *shapes, int n, const shape *s) {
    for (int i = 0; i < n; i++) {
        const double d = hypot(shapes[i].x - s->x, shapes[i].y - s->y);
        if (d < 0.75 * (shapes[i].radius + s->radius)) return 0;
    }
    return 1;
}

static void paint_background(uint8_t *pixels) {
    double base[3], slope[3];
    for (int c = 0; c < 3; c++) {
        base[c] = uniform(30, 150);
        slope[c] = uniform(-40, 40);
    }
    for (int i = 0; i < WIDTH * HEIGHT; i++) {
        const double noise = uniform(-12, 12);
        for (int c = 0; c < 3; c++) {
            const double v = base[c] + slope[c] * (i % WIDTH) / (int)WIDTH + noise;
            pixels[3 * i + c] = (uint8_t)fmax(0, fmin(255, v));
        }
    }
}

static void paint_shape(uint8_t *pixels, shape *s) {
    s->left = WIDTH;
    s->top = HEIGHT;
    s->right = s->bottom = 0;
    for (int i = 0; i < WIDTH * HEIGHT; i++) {
        const int x = i % WIDTH, y = i / WIDTH;
        if (!covers(s, x + 0.5, y + 0.5)) continue;
        const double shade = uniform(0.9, 1.0);
        for (int c = 0; c < 3; c++) pixels[3 * i + c] = (uint8_t)(s->colour[c] * shade);
        if (x < s->left) s->left = x;
        if (y < s->top) s->top = y;
        if (x >= s->right) s->right = x + 1;
        if (y >= s->bottom) s->bottom = y + 1;
    }
}

static int fail(const char *path) {
    fprintf(stderr, "make_shapes: %s: %s\n", path, strerror(errno));
    return 1;
}

#if defined(_WIN32)
static int make_one(const char *path) {
    return mkdir(path);
}
#else
static int make_one(const char *path) {
    return mkdir(path, 0777);
}
#endif

static int make_folder(const char *path) {
    return make_one(path) != 0 && errno != EEXIST ? fail(path) : 0;
}

/* One picture and its annotations; *id counts annotations. */
static int make_picture(const char *folder, int index, FILE *annotations, int *id) {
    static uint8_t pixels[WIDTH * HEIGHT * 3];
    char path[4200];
    shape shapes[MOST_SHAPES];
    const int wanted = index % 9 == 8 ? 0 : 1 + (int)uniform(0, MOST_SHAPES);
    int n = 0;
    paint_background(pixels);
    for (int tries = 0; n < wanted && tries < 100; tries++) {
        choose_shape(&shapes[n]);
        if (fits(shapes, n, &shapes[n])) paint_shape(pixels, &shapes[n++]);
    }
    for (int i = 0; i < n; i++) {
        const shape *s = &shapes[i];
        const int w = s->right - s->left, h = s->bottom - s->top;
        fprintf(annotations,
                "%s\n{\"id\": %d, \"image_id\": %d, \"category_id\": %d, \"iscrowd\": 0, "
                "\"area\": %d, \"bbox\": [%d, %d, %d, %d]}",
                *id ? "," : "", *id + 1, index + 1, s->kind + 1, w * h, s->left, s->top, w, h);
        ++*id;
    }
    snprintf(path, sizeof path, "%s/%04d.png", folder, index + 1);
    return stbi_write_png(path, WIDTH, HEIGHT, 3, pixels, WIDTH * 3) ? 0 : fail(path);
}

static int make_set(const char *dir, const char *name, int n) {
    char folder[4096], path[4200];
    int id = 0;
    snprintf(folder, sizeof folder, "%.3000s/%s", dir, name);
    snprintf(path, sizeof path, "%s.json", folder);
    if (make_folder(folder)) return 1;
    FILE *f = fopen(path, "wb");
    if (!f) return fail(path);
    fputs("{\"annotations\": [", f);
    for (int i = 0; i < n; i++)
        if (make_picture(folder, i, f, &id)) return fclose(f), 1;
    fputs("],\n\"images\": [", f);
    for (int i = 0; i < n; i++)
        fprintf(f, "%s\n{\"id\": %d, \"file_name\": \"%04d.png\", \"width\": %d, \"height\": %d}",
                i ? "," : "", i + 1, i + 1, WIDTH, HEIGHT);
    fputs("],\n\"categories\": [", f);
    for (int k = 0; k < KINDS; k++)
        fprintf(f, "%s\n{\"id\": %d, \"name\": \"%s\"}", k ? "," : "", k + 1, kinds[k]);
    fputs("]}\n", f);
    return fclose(f) ? fail(path) : 0;
}

int main(int argc, char **argv) {
    if (argc < 4 || argc > 5 || atoi(argv[2]) < 0 || atoi(argv[3]) < 0) {
        fputs("usage: make_shapes DIR TRAIN VAL [SEED]\n", stderr);
        return 2;
    }
    state = argc > 4 ? (uint64_t)atoll(argv[4]) : 1;
    if (make_folder(argv[1]) || make_set(argv[1], "train", atoi(argv[2]))) return 1;
    return make_set(argv[1], "val", atoi(argv[3]));
}
