/* exif.c - the orientation tag of EXIF */
#pragma once

static unsigned gfli_exif_number(const uint8_t *p, int bytes, bool big) {
    unsigned v = 0;
    for (int i = 0; i < bytes; i++) v |= (unsigned)p[i] << (8 * (big ? bytes - 1 - i : i));
    return v;
}

int gfli_exif_orientation(const uint8_t *tiff, size_t size) {
    enum { ORIENTATION = 0x0112, SHORT = 3, LONG = 4, ENTRY = 12 };
    if (size < 8) return 1;
    bool big = memcmp(tiff, "MM\0*", 4) == 0;
    if (!big && memcmp(tiff, "II*\0", 4) != 0) return 1;
    size_t at = gfli_exif_number(tiff + 4, 4, big);
    if (at > size - 2) return 1;
    size_t n = gfli_exif_number(tiff + at, 2, big);
    for (at += 2; n > 0 && size - at >= ENTRY; n--, at += ENTRY) {
        if (gfli_exif_number(tiff + at, 2, big) != ORIENTATION) continue;
        unsigned type = gfli_exif_number(tiff + at + 2, 2, big);
        if (type != SHORT && type != LONG) return 1;
        unsigned value = gfli_exif_number(tiff + at + 8, type == SHORT ? 2 : 4, big);
        return value >= 1 && value <= 8 ? (int)value : 1;
    }
    return 1;
}

void gfli_exif_apply(const uint8_t *in, int in_w, int in_h, int orientation, uint8_t *out) {
    /* The viewer's axes as steps through the stored image. */
    static const struct {
        bool swap, left, up; /* x runs along the columns; x (or y) of the stored image backwards */
    } turns[8] = {{false, false, false}, {false, true, false}, {false, true, true},
                  {false, false, true},  {true, false, false}, {true, false, true},
                  {true, true, true},    {true, true, false}};
    bool swap = turns[orientation - 1].swap;
    bool left = turns[orientation - 1].left, up = turns[orientation - 1].up;
    ptrdiff_t right = left ? -3 : 3, down = (up ? -3 : 3) * (ptrdiff_t)in_w;
    const uint8_t *corner =
        in + (left ? 3 * ((ptrdiff_t)in_w - 1) : 0) + (up ? 3 * (ptrdiff_t)in_w * (in_h - 1) : 0);
    ptrdiff_t step_x = swap ? down : right, step_y = swap ? right : down;
    int out_w = swap ? in_h : in_w, out_h = swap ? in_w : in_h;
    for (int y = 0; y < out_h; y++) {
        const uint8_t *p = corner + y * step_y;
        for (int x = 0; x < out_w; x++, p += step_x, out += 3) {
            out[0] = p[0];
            out[1] = p[1];
            out[2] = p[2];
        }
    }
}
