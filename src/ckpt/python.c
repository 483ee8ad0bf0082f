/* python.c - assignments of Python literals, read as data: nothing is ever executed */
#pragma once

enum {
    GFLI_PY_DEPTH = 64,      /* of brackets; what lies deeper is unknown */
    GFLI_PY_SPREADS = 16,    /* of dictionaries inside dictionaries by "**" */
    GFLI_PY_STEPS = 1 << 16, /* of lookups, besides some for each byte of the text */
    GFLI_PY_SHOWN = 3        /* levels of a value in messages */
};

/* ---- bytes ----------------------------------------------------------------------------------- */

static bool gfli_py_starts_name(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

static bool gfli_py_is_digit(char c) {
    return c >= '0' && c <= '9';
}

static bool gfli_py_is_one_of(char c, const char *set) {
    return c != 0 && strchr(set, c) != NULL;
}

/* Behind blanks and comments, and behind line ends too where these mean nothing: in brackets. */
static void gfli_py_blank(gfli_py *py, bool lines) {
    for (;;) {
        if (*py->at == '#')
            py->at += strcspn(py->at, "\n");
        else if (*py->at == '\\' && py->at[1] == '\n')
            py->at += 2;
        else if (gfli_py_is_one_of(*py->at, lines ? " \t\r\f\n" : " \t\r\f"))
            py->at++;
        else
            return;
    }
}

static bool gfli_py_take(gfli_py *py, char c) {
    if (*py->at != c) return false;
    py->at++;
    return true;
}

/* Adds one byte to the texts, which are as long as the whole source from the beginning on. */
static void gfli_py_keep(gfli_py *py, char c) {
    py->texts[py->n_texts++] = c;
}

/* A name where it stands, as a text; 0 where there is none. */
static uint32_t gfli_py_name(gfli_py *py) {
    const uint32_t start = (uint32_t)py->n_texts;
    if (!gfli_py_starts_name(*py->at)) return 0;
    while (gfli_py_starts_name(*py->at) || gfli_py_is_digit(*py->at)) gfli_py_keep(py, *py->at++);
    gfli_py_keep(py, 0);
    return start;
}

/* The inside of a string that stands here, between quotes of one or three.  Of the escapes those of
 * quotes and backslashes are resolved; no setting needs another. */
static void gfli_py_string(gfli_py *py, bool raw) {
    const char quote = *py->at;
    const bool triple = py->at[1] == quote && py->at[2] == quote;
    const int n = triple ? 3 : 1;
    for (py->at += n; *py->at && (triple || *py->at != '\n');) {
        if (*py->at == quote && (!triple || (py->at[1] == quote && py->at[2] == quote))) break;
        if (!raw && *py->at == '\\' && gfli_py_is_one_of(py->at[1], "\\'\"")) py->at++;
        gfli_py_keep(py, *py->at++);
    }
    for (int i = 0; i < n && *py->at == quote; i++) py->at++;
}

/* Behind what an expression still has: everything up to a comma, a closing bracket or, outside of
 * brackets, the end of the line. */
static void gfli_py_pass(gfli_py *py, bool lines) {
    const size_t texts = py->n_texts;
    for (int depth = 0;;) {
        gfli_py_blank(py, lines || depth > 0);
        if (!*py->at) return;
        if (*py->at == '"' || *py->at == '\'') {
            gfli_py_string(py, false);
            py->n_texts = texts;
            continue;
        }
        if (depth == 0 && gfli_py_is_one_of(*py->at, lines ? ",)]}" : "\n;")) return;
        if (gfli_py_is_one_of(*py->at, "([{")) depth++;
        if (depth > 0 && gfli_py_is_one_of(*py->at, ")]}")) depth--;
        py->at++;
    }
}

/* ---- values ---------------------------------------------------------------------------------- */

static gfl_status gfli_py_value(gfli_py *py, int depth, uint32_t *out);

static gfl_status gfli_py_node_new(gfli_py *py, gfli_py_kind kind, uint32_t first, uint32_t *out) {
    GFLI_TRY(gfli_grow(py->context, &py->nodes, &py->node_capacity, py->n_nodes + 1,
                       sizeof *py->nodes, "a configuration"));
    gfli_py_node *node = &py->nodes[py->n_nodes];
    memset(node, 0, sizeof *node);
    node->kind = kind;
    node->first = first;
    *out = (uint32_t)py->n_nodes++;
    return GFL_OK;
}

static void gfli_py_link(gfli_py *py, uint32_t container, uint32_t item) {
    gfli_py_node *c = &py->nodes[container];
    if (c->first)
        py->nodes[c->last].next = item;
    else
        c->first = item;
    c->last = item;
}

uint32_t gfli_py_target(const gfli_py *py, uint32_t node) {
    while (py->nodes[node].kind == GFLI_PY_SAME) node = py->nodes[node].first;
    return node;
}

/* A step of a lookup is taken, or there were too many of them. */
static bool gfli_py_step(gfli_py *py) {
    if (py->steps) py->steps--;
    return py->steps != 0;
}

static uint32_t gfli_py_get_in(gfli_py *py, uint32_t dict, const char *key, int spreads) {
    uint32_t found = 0;
    if (spreads == 0 || py->nodes[dict].kind != GFLI_PY_DICT) return 0;
    for (uint32_t i = py->nodes[dict].first; i && gfli_py_step(py); i = py->nodes[i].next) {
        const gfli_py_node *entry = &py->nodes[i];
        const uint32_t value = gfli_py_target(py, i);
        const uint32_t spread = entry->key ? 0 : gfli_py_get_in(py, value, key, spreads - 1);
        if (entry->key && !strcmp(py->texts + entry->key, key)) found = value;
        if (spread) found = spread;
    }
    return found;
}

uint32_t gfli_py_get(gfli_py *py, uint32_t dict, const char *key) {
    return gfli_py_get_in(py, gfli_py_target(py, dict), key, GFLI_PY_SPREADS);
}

/* One or several strings side by side. */
static gfl_status gfli_py_text_value(gfli_py *py, bool raw, bool lines, uint32_t *out) {
    const uint32_t start = (uint32_t)py->n_texts;
    while (*py->at == '"' || *py->at == '\'') {
        gfli_py_string(py, raw);
        gfli_py_blank(py, lines);
    }
    gfli_py_keep(py, 0);
    return gfli_py_node_new(py, GFLI_PY_TEXT, start, out);
}

/* A number as text that JSON has too; `first` of its node is where. */
static gfl_status gfli_py_number_value(gfli_py *py, uint32_t *out) {
    const uint32_t start = (uint32_t)py->n_texts;
    bool good = true;
    if (*py->at == '-') gfli_py_keep(py, *py->at);
    if (gfli_py_is_one_of(*py->at, "+-")) py->at++;
    gfli_py_blank(py, false);
    for (char before = 0; gfli_py_starts_name(*py->at) || gfli_py_is_digit(*py->at) ||
                          *py->at == '.' || (before == 'e' && gfli_py_is_one_of(*py->at, "+-"));
         py->at++) {
        before = (char)(*py->at == 'E' ? 'e' : *py->at);
        good = good && (gfli_py_is_digit(before) || gfli_py_is_one_of(before, ".e+-_"));
        if (before != '_') gfli_py_keep(py, before);
    }
    gfli_py_keep(py, 0);
    return gfli_py_node_new(py, good ? GFLI_PY_NUMBER : GFLI_PY_UNKNOWN, start, out);
}

/* An entry of a container.  In a call that is key=value, in braces key: value, in both **value. */
static gfl_status gfli_py_item(gfli_py *py, uint32_t container, char open, int depth) {
    const char *start = py->at;
    const size_t texts = py->n_texts;
    uint32_t key = 0, item = 0;
    bool spread = false;
    while (gfli_py_take(py, '*')) spread = true;
    if (open == '=' && !spread) {
        key = gfli_py_name(py);
        gfli_py_blank(py, true);
        if (!key || *py->at != '=' || py->at[1] == '=') {
            py->at = start;
            py->n_texts = texts;
            key = 0;
        } else {
            py->at++;
        }
    }
    GFLI_TRY(gfli_py_value(py, depth, &item));
    if (open == '{' && !spread && gfli_py_take(py, ':')) {
        key = py->nodes[item].kind == GFLI_PY_TEXT ? py->nodes[item].first : 0;
        GFLI_TRY(gfli_py_value(py, depth, &item));
        if (!key) return GFL_OK; /* numbers and names as keys are nobody's settings */
    }
    if (spread && open != '=' && open != '{') py->nodes[item].kind = GFLI_PY_UNKNOWN;
    py->nodes[item].key = key;
    gfli_py_link(py, container, item);
    return GFL_OK;
}

/* The items up to a closing bracket; `open`: ( [ { or = for the arguments of dict(). */
static gfl_status gfli_py_items(gfli_py *py, char open, int depth, uint32_t *out) {
    const bool is_dict = open == '=' || open == '{';
    bool comma = false;
    GFLI_TRY(gfli_py_node_new(py, is_dict ? GFLI_PY_DICT : GFLI_PY_LIST, 0, out));
    for (;;) {
        gfli_py_blank(py, true);
        if (!*py->at) return GFL_OK;
        if (gfli_py_is_one_of(*py->at, ")]}")) break;
        if (gfli_py_take(py, ',')) {
            comma = true;
            continue;
        }
        GFLI_TRY(gfli_py_item(py, *out, open, depth + 1));
        if (gfli_py_is_one_of(*py->at, ",)]}")) continue;
        py->nodes[py->nodes[*out].last].kind = GFLI_PY_UNKNOWN;
        gfli_py_pass(py, true);
    }
    py->at++;
    if (open == '(' && !comma && py->nodes[*out].first) /* brackets around one value */
        *out = py->nodes[*out].first;
    return GFL_OK;
}

/* dict(...), a string with a prefix, a constant, or the name of a value from before. */
static gfl_status gfli_py_named(gfli_py *py, int depth, uint32_t *out) {
    const size_t texts = py->n_texts;
    const char *name = py->texts + gfli_py_name(py);
    const bool quoted = *py->at == '"' || *py->at == '\'';
    uint32_t known = 0;
    gfli_py_kind kind = GFLI_PY_UNKNOWN;
    py->n_texts = texts;
    if (quoted && strlen(name) <= 2 && !strpbrk(name, "fF"))
        return gfli_py_text_value(py, strpbrk(name, "rR") != NULL, depth > 0, out);
    gfli_py_blank(py, depth > 0);
    if (*py->at == '(' && depth < GFLI_PY_DEPTH && !strcmp(name, "dict")) {
        py->at++;
        return gfli_py_items(py, '=', depth, out);
    }
    if (!strcmp(name, "None")) kind = GFLI_PY_NONE;
    if (!strcmp(name, "True") || !strcmp(name, "False")) {
        kind = GFLI_PY_BOOL;
        known = name[0] == 'T';
    }
    if (kind == GFLI_PY_UNKNOWN) known = gfli_py_get(py, 1, name);
    if (kind == GFLI_PY_UNKNOWN && known) kind = GFLI_PY_SAME;
    return gfli_py_node_new(py, kind, known, out);
}

/* A value and nothing behind it; expressions of any other kind are unknown. */
static gfl_status gfli_py_value(gfli_py *py, int depth, uint32_t *out) {
    const bool lines = depth > 0;
    gfli_py_blank(py, lines);
    const char c = *py->at, *after = py->at + (c == '-' || c == '+');
    if (gfli_py_is_one_of(c, "([{") && depth < GFLI_PY_DEPTH) {
        py->at++;
        GFLI_TRY(gfli_py_items(py, c, depth, out));
    } else if (c == '"' || c == '\'') {
        GFLI_TRY(gfli_py_text_value(py, false, lines, out));
    } else if (gfli_py_is_digit(*after) || (*after == '.' && gfli_py_is_digit(after[1]))) {
        GFLI_TRY(gfli_py_number_value(py, out));
    } else if (gfli_py_starts_name(c)) {
        GFLI_TRY(gfli_py_named(py, depth, out));
    } else {
        GFLI_TRY(gfli_py_node_new(py, GFLI_PY_UNKNOWN, 0, out));
    }
    gfli_py_blank(py, lines);
    if (!*py->at || gfli_py_is_one_of(*py->at, lines ? ",)]}:" : "\n;")) return GFL_OK;
    gfli_py_pass(py, lines);
    return gfli_py_node_new(py, GFLI_PY_UNKNOWN, 0, out);
}

/* ---- statements ------------------------------------------------------------------------------ */

/* What is no assignment to a name - a file's name, an import, a function - is passed over. */
static gfl_status gfli_py_statement(gfli_py *py) {
    const size_t texts = py->n_texts;
    const uint32_t name = gfli_py_name(py);
    uint32_t value = 0;
    if (name) gfli_py_blank(py, false);
    if (!name || *py->at != '=' || py->at[1] == '=') {
        if (*py->at == '"' || *py->at == '\'') gfli_py_string(py, false);
        py->n_texts = texts;
        py->at += strcspn(py->at, "\n");
        return GFL_OK;
    }
    py->at++;
    GFLI_TRY(gfli_py_value(py, 0, &value));
    py->nodes[value].key = name;
    gfli_py_link(py, 1, value);
    return GFL_OK;
}

gfl_status gfli_py_read(gfl_context *context, const char *text, gfli_py *py) {
    const size_t size = strlen(text);
    uint32_t node;
    memset(py, 0, sizeof *py);
    py->context = context;
    py->steps = 16 * size + GFLI_PY_STEPS;
    GFLI_TRY(gfli_alloc(context, size + 2, 1, "a configuration", &py->texts));
    gfli_py_keep(py, 0);
    gfl_status status = gfli_py_node_new(py, GFLI_PY_UNKNOWN, 0, &node);
    if (status == GFL_OK) status = gfli_py_node_new(py, GFLI_PY_DICT, 0, &node);
    py->at = text;
    while (status == GFL_OK && *py->at) {
        status = gfli_py_statement(py);
        while (gfli_py_is_one_of(*py->at, "\r\n;")) py->at++;
    }
    if (status != GFL_OK) gfli_py_free(py);
    return status;
}

void gfli_py_free(gfli_py *py) {
    if (!py->context) return;
    gfli_free(py->context, py->nodes);
    gfli_free(py->context, py->texts);
    memset(py, 0, sizeof *py);
}

/* ---- questions ------------------------------------------------------------------------------- */

/* The value of path's next part in a dictionary; 0 with *stop where there can be none. */
static uint32_t gfli_py_walk(gfli_py *py, uint32_t node, const char *path, bool *stop) {
    char key[64];
    while (*path == '.') {
        const size_t n = strcspn(++path, ".");
        if (py->nodes[node].kind != GFLI_PY_DICT || n >= sizeof key) {
            *stop = true;
            return 0;
        }
        if (gfli_py_get(py, node, "_delete_")) *stop = true;
        memcpy(key, path, n);
        key[n] = 0;
        node = gfli_py_get(py, node, key);
        if (!node) return 0;
        path += n;
    }
    return node;
}

uint32_t gfli_py_find(gfli_py *py, const char *path) {
    const size_t n = strcspn(path, ".");
    uint32_t found = 0;
    for (uint32_t i = py->nodes[1].first; i && gfli_py_step(py); i = py->nodes[i].next) {
        const char *key = py->texts + py->nodes[i].key;
        bool stop = false;
        if (strncmp(key, path, n) != 0 || key[n]) continue;
        const uint32_t here = gfli_py_walk(py, gfli_py_target(py, i), path + n, &stop);
        if (here || stop) found = here;
    }
    return found;
}

uint32_t gfli_py_first(const gfli_py *py, uint32_t list) {
    return py->nodes[list].kind == GFLI_PY_LIST ? py->nodes[list].first : 0;
}

uint32_t gfli_py_next(const gfli_py *py, uint32_t item) {
    return py->nodes[item].next;
}

const char *gfli_py_text(const gfli_py *py, uint32_t node) {
    node = gfli_py_target(py, node);
    return py->nodes[node].kind == GFLI_PY_TEXT ? py->texts + py->nodes[node].first : NULL;
}

bool gfli_py_bool(const gfli_py *py, uint32_t node, bool otherwise) {
    node = gfli_py_target(py, node);
    return py->nodes[node].kind == GFLI_PY_BOOL ? py->nodes[node].first != 0 : otherwise;
}

/* The power of ten behind an "e". */
static int gfli_py_power(const char *text) {
    const bool negative = *text == '-';
    int power = 0;
    for (text += negative || *text == '+'; gfli_py_is_digit(*text) && power < 1000; text++)
        power = 10 * power + (*text - '0');
    return negative ? -power : power;
}

/* *exact: the number has up to 15 digits, as settings do, and is rounded correctly. */
static double gfli_py_decimal(const char *text, bool *exact) {
    double value = 0, scale = 1;
    int n_digits = 0, power = 0;
    bool point = false;
    const bool negative = *text == '-';
    for (text += negative; gfli_py_is_digit(*text) || *text == '.'; text++) {
        point = point || *text == '.';
        if (*text == '.') continue;
        n_digits += n_digits > 0 || *text != '0';
        power += n_digits > 15 && !point;
        power -= n_digits <= 15 && point;
        if (n_digits <= 15) value = 10 * value + (*text - '0');
    }
    if (*text == 'e') power += gfli_py_power(text + 1);
    *exact = n_digits <= 15 && power >= -22 && power <= 22;
    for (int i = 0; i < power || i < -power; i++) scale *= 10;
    value = power < 0 ? value / scale : value * scale;
    return negative ? -value : value;
}

bool gfli_py_number(const gfli_py *py, uint32_t node, double *out) {
    bool exact;
    node = gfli_py_target(py, node);
    if (py->nodes[node].kind != GFLI_PY_NUMBER) return false;
    *out = gfli_py_decimal(py->texts + py->nodes[node].first, &exact);
    return gfli_is_finite(*out);
}

/* ---- values as text -------------------------------------------------------------------------- */

typedef struct gfli_py_shown {
    char *text;
    size_t n, size;
} gfli_py_shown;

static void gfli_py_show(gfli_py_shown *s, const char *text) {
    while (*text && s->n + 1 < s->size) s->text[s->n++] = *text++;
    s->text[s->n] = 0;
}

/* As JSON has it, while Python writes 1. and .5 too. */
static void gfli_py_show_number(const char *text, gfli_py_shown *s) {
    char exact_text[32], one[2] = "";
    bool exact;
    const double value = gfli_py_decimal(text, &exact);
    gfli_json_format(value, exact_text);
    if (exact) gfli_py_show(s, exact_text);
    for (char before = 0; *text && !exact; before = *text++) {
        one[0] = *text;
        if (*text == '.' && !gfli_py_is_digit(before)) gfli_py_show(s, "0");
        gfli_py_show(s, one);
        if (*text == '.' && !gfli_py_is_digit(text[1])) gfli_py_show(s, "0");
    }
}

static void gfli_py_show_value(const gfli_py *py, uint32_t node, int levels, gfli_py_shown *s) {
    const gfli_py_node *v = &py->nodes[gfli_py_target(py, node)];
    const bool dict = v->kind == GFLI_PY_DICT, list = v->kind == GFLI_PY_LIST;
    if (v->kind == GFLI_PY_NONE) gfli_py_show(s, "None");
    if (v->kind == GFLI_PY_BOOL) gfli_py_show(s, v->first ? "True" : "False");
    if (v->kind == GFLI_PY_NUMBER) gfli_py_show_number(py->texts + v->first, s);
    if (v->kind == GFLI_PY_TEXT) {
        gfli_py_show(s, "'");
        gfli_py_show(s, py->texts + v->first);
        gfli_py_show(s, "'");
    }
    if (v->kind == GFLI_PY_UNKNOWN || ((list || dict) && levels == 0)) gfli_py_show(s, "...");
    if ((!list && !dict) || levels == 0) return;
    gfli_py_show(s, dict ? "dict(" : "[");
    for (uint32_t i = v->first; i && s->n + 1 < s->size; i = py->nodes[i].next) {
        if (i != v->first) gfli_py_show(s, ", ");
        if (py->nodes[i].key) gfli_py_show(s, py->texts + py->nodes[i].key);
        if (py->nodes[i].key) gfli_py_show(s, "=");
        gfli_py_show_value(py, i, levels - 1, s);
    }
    gfli_py_show(s, dict ? ")" : "]");
}

const char *gfli_py_shown_as(const gfli_py *py, uint32_t node, char *out, size_t size) {
    gfli_py_shown s = {out, 0, size};
    const char *text = gfli_py_text(py, node);
    out[0] = 0;
    if (text)
        gfli_py_show(&s, text);
    else
        gfli_py_show_value(py, node, GFLI_PY_SHOWN, &s);
    return out;
}
