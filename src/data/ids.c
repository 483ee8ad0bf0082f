/* ids.c - ids as files have them: numbers and texts */
#pragma once

int gfli_id_compare(gfl_id a, gfl_id b) {
    if (!a.text != !b.text) return a.text ? 1 : -1;
    if (a.text) return strcmp(a.text, b.text);
    return a.number < b.number ? -1 : a.number > b.number;
}

const char *gfli_id_text(gfl_id id, char out[GFLI_ID_TEXT]) {
    if (id.text)
        gfli_quote(id.text, out, GFLI_ID_TEXT);
    else
        snprintf(out, GFLI_ID_TEXT, "%lld", (long long)id.number);
    return out;
}

static void gfli_id_merge(const gfli_id_entry *a, int n_a, const gfli_id_entry *b, int n_b,
                          gfli_id_entry *out) {
    while (n_a > 0 && n_b > 0) {
        bool second = gfli_id_compare(b->id, a->id) < 0;
        *out++ = second ? *b++ : *a++;
        n_a -= !second;
        n_b -= second;
    }
    for (; n_a > 0; n_a--) *out++ = *a++;
    for (; n_b > 0; n_b--) *out++ = *b++;
}

static void gfli_id_merge_sort(gfli_id_entry *entries, int n, gfli_id_entry *scratch) {
    bool sorted = true;
    for (int i = 1; i < n && sorted; i++)
        sorted = gfli_id_compare(entries[i - 1].id, entries[i].id) <= 0;
    if (sorted) return; /* the usual file */
    int half = n / 2;
    gfli_id_merge_sort(entries, half, scratch);
    gfli_id_merge_sort(entries + half, n - half, scratch);
    gfli_id_merge(entries, half, entries + half, n - half, scratch);
    memcpy(entries, scratch, (size_t)n * sizeof *entries);
}

gfl_status gfli_id_sort(gfl_context *context, gfli_id_entry *entries, int n) {
    gfli_id_entry *scratch;
    GFLI_TRY(gfli_alloc(context, (size_t)n, sizeof *scratch, "ids", &scratch));
    gfli_id_merge_sort(entries, n, scratch);
    gfli_free(context, scratch);
    return GFL_OK;
}

int gfli_id_place(const gfli_id_entry *entries, int n, gfl_id id) {
    int first = 0, last = n;
    while (first < last) {
        int middle = first + (last - first) / 2;
        if (gfli_id_compare(entries[middle].id, id) < 0)
            first = middle + 1;
        else
            last = middle;
    }
    return first < n && gfli_id_compare(entries[first].id, id) == 0 ? first : -1;
}

/* A whole number of 64 bits as a program writes it: no blanks, plus sign or leading zeros. */
static bool gfli_id_number(const char *text, int64_t *out) {
    bool negative = text[0] == '-';
    const char *p = text + negative;
    uint64_t value = 0, most = (uint64_t)INT64_MAX + negative;
    if (!*p || (*p == '0' && (p[1] || negative))) return false;
    for (; *p; p++) {
        uint64_t digit = (uint64_t)(*p - '0');
        if (*p < '0' || *p > '9' || value > (most - digit) / 10) return false;
        value = value * 10 + digit;
    }
    *out = negative ? -(int64_t)(value - 1) - 1 : (int64_t)value;
    return true;
}

bool gfli_id_other(gfl_id id, char text[24], gfl_id *out) {
    memset(out, 0, sizeof *out);
    if (id.text) return gfli_id_number(id.text, &out->number);
    snprintf(text, 24, "%lld", (long long)id.number);
    out->text = text;
    return true;
}

int gfli_id_place_of_either(const gfli_id_entry *entries, int n, gfl_id id, bool *other) {
    char text[24];
    gfl_id twin;
    int place = gfli_id_place(entries, n, id);
    *other = place < 0 && gfli_id_other(id, text, &twin) &&
             (place = gfli_id_place(entries, n, twin)) >= 0;
    return place;
}
