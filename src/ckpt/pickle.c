/* pickle.c - an unpickler that calls nothing */
#pragma once

/* A pickle is a program for a stack machine.  In Python it can call anything; here its operations
 * only build values: numbers, texts, lists, dictionaries, and tensors where it names one of torch's
 * functions that make them.  What it would call otherwise becomes an opaque value with the name of
 * the function, which nobody executes.  Values, texts, the stack and the memo are arrays that grow,
 * no larger than in proportion to the pickle's bytes. */

enum {
    GFLI_PICKLE_TEXT_MAX = 1 << 20, /* longer texts are not even configurations: stepped over */
    GFLI_PICKLE_LIMIT = 1 << 28,    /* values and depth of the stack, which bytes limit first */
    GFLI_PICKLE_SPARE = 4096        /* bytes of texts, and values, that any pickle may have */
};

/* The operations of protocols 0 to 5, by the names of Python's pickletools. */
enum {
    GFLI_OPCODE_MARK = '(',
    GFLI_OPCODE_STOP = '.',
    GFLI_OPCODE_POP = '0',
    GFLI_OPCODE_POP_MARK = '1',
    GFLI_OPCODE_DUP = '2',
    GFLI_OPCODE_FLOAT = 'F',
    GFLI_OPCODE_INT = 'I',
    GFLI_OPCODE_LONG = 'L',
    GFLI_OPCODE_NONE = 'N',
    GFLI_OPCODE_PERSID = 'P',
    GFLI_OPCODE_BINPERSID = 'Q',
    GFLI_OPCODE_REDUCE = 'R',
    GFLI_OPCODE_STRING = 'S',
    GFLI_OPCODE_UNICODE = 'V',
    GFLI_OPCODE_APPEND = 'a',
    GFLI_OPCODE_BUILD = 'b',
    GFLI_OPCODE_GLOBAL = 'c',
    GFLI_OPCODE_DICT = 'd',
    GFLI_OPCODE_APPENDS = 'e',
    GFLI_OPCODE_GET = 'g',
    GFLI_OPCODE_BINGET = 'h',
    GFLI_OPCODE_INST = 'i',
    GFLI_OPCODE_LONG_BINGET = 'j',
    GFLI_OPCODE_LIST = 'l',
    GFLI_OPCODE_OBJ = 'o',
    GFLI_OPCODE_PUT = 'p',
    GFLI_OPCODE_BINPUT = 'q',
    GFLI_OPCODE_LONG_BINPUT = 'r',
    GFLI_OPCODE_SETITEM = 's',
    GFLI_OPCODE_TUPLE = 't',
    GFLI_OPCODE_SETITEMS = 'u',
    GFLI_OPCODE_BINFLOAT = 'G',
    GFLI_OPCODE_BININT = 'J',
    GFLI_OPCODE_BININT1 = 'K',
    GFLI_OPCODE_BININT2 = 'M',
    GFLI_OPCODE_BINSTRING = 'T',
    GFLI_OPCODE_SHORT_BINSTRING = 'U',
    GFLI_OPCODE_BINUNICODE = 'X',
    GFLI_OPCODE_BINBYTES = 'B',
    GFLI_OPCODE_SHORT_BINBYTES = 'C',
    GFLI_OPCODE_EMPTY_TUPLE = ')',
    GFLI_OPCODE_EMPTY_LIST = ']',
    GFLI_OPCODE_EMPTY_DICT = '}',
    GFLI_OPCODE_PROTO = 0x80,
    GFLI_OPCODE_NEWOBJ = 0x81,
    GFLI_OPCODE_EXT1 = 0x82,
    GFLI_OPCODE_EXT2 = 0x83,
    GFLI_OPCODE_EXT4 = 0x84,
    GFLI_OPCODE_TUPLE1 = 0x85,
    GFLI_OPCODE_TUPLE2 = 0x86,
    GFLI_OPCODE_TUPLE3 = 0x87,
    GFLI_OPCODE_NEWTRUE = 0x88,
    GFLI_OPCODE_NEWFALSE = 0x89,
    GFLI_OPCODE_LONG1 = 0x8a,
    GFLI_OPCODE_LONG4 = 0x8b,
    GFLI_OPCODE_SHORT_BINUNICODE = 0x8c,
    GFLI_OPCODE_BINUNICODE8 = 0x8d,
    GFLI_OPCODE_BINBYTES8 = 0x8e,
    GFLI_OPCODE_EMPTY_SET = 0x8f,
    GFLI_OPCODE_ADDITEMS = 0x90,
    GFLI_OPCODE_FROZENSET = 0x91,
    GFLI_OPCODE_NEWOBJ_EX = 0x92,
    GFLI_OPCODE_STACK_GLOBAL = 0x93,
    GFLI_OPCODE_MEMOIZE = 0x94,
    GFLI_OPCODE_FRAME = 0x95,
    GFLI_OPCODE_BYTEARRAY8 = 0x96,
    GFLI_OPCODE_NEXT_BUFFER = 0x97,
    GFLI_OPCODE_READONLY_BUFFER = 0x98
};

void gfli_pickle_init(gfli_blob *blob, gfli_pickle *out) {
    memset(out, 0, sizeof *out);
    out->context = blob->context;
    out->blob = blob;
}

void gfli_pickle_free(gfli_pickle *p) {
    if (!p->context) return;
    gfli_free(p->context, p->nodes);
    gfli_free(p->context, p->stack);
    gfli_free(p->context, p->marks);
    gfli_free(p->context, p->memo);
    gfli_free(p->context, p->texts);
    memset(p, 0, sizeof *p);
}

static gfl_status gfli_pickle_broken(const gfli_pickle *p, const char *what) {
    return gfli_error(p->context, GFL_E_FORMAT, "%s: %s, byte %llu: %s", p->blob->path, p->where,
                      (unsigned long long)(p->at - p->start), what);
}

/* ---- bytes ----------------------------------------------------------------------------------- */

static gfl_status gfli_pickle_bytes(gfli_pickle *p, void *out, size_t n) {
    uint8_t *to = (uint8_t *)out;
    if (n > p->end - p->at) return gfli_pickle_broken(p, "it ends in the middle");
    while (n > 0) {
        if (p->at < p->buffer_at || p->at >= p->buffer_at + p->buffered) {
            const uint64_t left = p->end - p->at;
            p->buffer_at = p->at;
            p->buffered = left < sizeof p->buffer ? (size_t)left : sizeof p->buffer;
            gfl_status status = gfli_blob_pread(p->blob, p->at, p->buffer, p->buffered);
            if (status != GFL_OK) {
                p->buffered = 0;
                return status;
            }
        }
        const size_t from = (size_t)(p->at - p->buffer_at);
        const size_t some = n < p->buffered - from ? n : p->buffered - from;
        memcpy(to, p->buffer + from, some);
        to += some;
        p->at += some;
        n -= some;
    }
    return GFL_OK;
}

static gfl_status gfli_pickle_skip(gfli_pickle *p, uint64_t n) {
    if (n > p->end - p->at) return gfli_pickle_broken(p, "it ends in the middle");
    p->at += n;
    return GFL_OK;
}

static gfl_status gfli_pickle_number(gfli_pickle *p, int n_bytes, uint64_t *out) {
    uint8_t bytes[8];
    GFLI_TRY(gfli_pickle_bytes(p, bytes, (size_t)n_bytes));
    *out = gfli_zip_number(bytes, n_bytes);
    return GFL_OK;
}

/* A line without its end, 0-terminated. */
static gfl_status gfli_pickle_line(gfli_pickle *p, char *out, size_t capacity) {
    for (size_t i = 0; i < capacity; i++) {
        GFLI_TRY(gfli_pickle_bytes(p, &out[i], 1));
        if (out[i] != '\n') continue;
        out[i] = 0;
        return GFL_OK;
    }
    return gfli_pickle_broken(p, "a line is too long");
}

/* Bytes of this pickle and of those before it, so far: what memory is in proportion to. */
static uint64_t gfli_pickle_taken(const gfli_pickle *p) {
    return p->earlier + (p->at - p->start);
}

/* ---- values ---------------------------------------------------------------------------------- */

static gfl_status gfli_pickle_node_new(gfli_pickle *p, gfli_pickle_kind kind, uint32_t a, int64_t n,
                                       uint32_t *out) {
    /* A byte can make a value and its place in a list; only a dictionary made of a list that is
     * used again and again makes more of few bytes. */
    if (p->n_nodes >= 2 * gfli_pickle_taken(p) + GFLI_PICKLE_SPARE ||
        p->n_nodes >= GFLI_PICKLE_LIMIT)
        return gfli_pickle_broken(p, "more values than its bytes can hold");
    GFLI_TRY(gfli_grow(p->context, &p->nodes, &p->node_capacity, p->n_nodes + 1, sizeof *p->nodes,
                       "a checkpoint's values"));
    gfli_pickle_node *node = &p->nodes[p->n_nodes];
    memset(node, 0, sizeof *node);
    node->kind = kind;
    node->a = a;
    node->n = n;
    *out = (uint32_t)p->n_nodes++;
    return GFL_OK;
}

static gfl_status gfli_pickle_push(gfli_pickle *p, uint32_t node) {
    if (p->n_stack >= GFLI_PICKLE_LIMIT) return gfli_pickle_broken(p, "its stack is too deep");
    GFLI_TRY(gfli_grow(p->context, &p->stack, &p->stack_capacity, p->n_stack + 1, sizeof *p->stack,
                       "a checkpoint's stack"));
    p->stack[p->n_stack++] = node;
    return GFL_OK;
}

static gfl_status gfli_pickle_push_new(gfli_pickle *p, gfli_pickle_kind kind, int64_t n) {
    uint32_t node = 0;
    GFLI_TRY(gfli_pickle_node_new(p, kind, 0, n, &node));
    return gfli_pickle_push(p, node);
}

/* Values above the last mark cannot be taken by operations that know of no mark. */
static gfl_status gfli_pickle_pop(gfli_pickle *p, uint32_t *out) {
    const size_t floor = p->n_marks ? p->marks[p->n_marks - 1] : 0;
    if (p->n_stack <= floor) return gfli_pickle_broken(p, "a value is missing");
    *out = p->stack[--p->n_stack];
    return GFL_OK;
}

static gfl_status gfli_pickle_mark(gfli_pickle *p) {
    if (p->n_marks >= GFLI_PICKLE_LIMIT) return gfli_pickle_broken(p, "it is nested too deep");
    GFLI_TRY(gfli_grow(p->context, &p->marks, &p->mark_capacity, p->n_marks + 1, sizeof *p->marks,
                       "a checkpoint's stack"));
    p->marks[p->n_marks++] = (uint32_t)p->n_stack;
    return GFL_OK;
}

/* Takes the last mark away; the values above it are stack[*first..n_stack). */
static gfl_status gfli_pickle_unmark(gfli_pickle *p, size_t *first) {
    if (!p->n_marks) return gfli_pickle_broken(p, "a mark is missing");
    *first = p->marks[--p->n_marks];
    return GFL_OK;
}

/* Where n bytes and a 0 may be put in the texts; they count once written. */
static gfl_status gfli_pickle_text_room(gfli_pickle *p, size_t n, char **out) {
    /* Names can be put together from texts that were there before; honest files do so rarely. */
    if (p->n_texts > 4 * gfli_pickle_taken(p) + GFLI_PICKLE_SPARE)
        return gfli_pickle_broken(p, "too many long names");
    GFLI_TRY(gfli_grow(p->context, &p->texts, &p->text_capacity, p->n_texts + n + 1, 1,
                       "a checkpoint's texts"));
    *out = p->texts + p->n_texts;
    return GFL_OK;
}

/* A text of the next n bytes: one that could be a key is kept, any other is opaque. */
static gfl_status gfli_pickle_push_text(gfli_pickle *p, uint64_t n) {
    char *text = NULL;
    if (n > GFLI_PICKLE_TEXT_MAX) {
        GFLI_TRY(gfli_pickle_skip(p, n));
        return gfli_pickle_push_new(p, GFLI_PICKLE_OTHER, 0);
    }
    if (n > p->end - p->at) return gfli_pickle_broken(p, "it ends in the middle");
    GFLI_TRY(gfli_pickle_text_room(p, (size_t)n, &text));
    GFLI_TRY(gfli_pickle_bytes(p, text, (size_t)n));
    text[n] = 0;
    if (memchr(text, 0, (size_t)n)) return gfli_pickle_push_new(p, GFLI_PICKLE_OTHER, 0);
    GFLI_TRY(gfli_pickle_push_new(p, GFLI_PICKLE_TEXT, (int64_t)p->n_texts));
    p->n_texts += (size_t)n + 1;
    return GFL_OK;
}

static gfl_status gfli_pickle_push_name(gfli_pickle *p, const char *module, const char *name) {
    const size_t m = strlen(module), n = strlen(name);
    char *text = NULL;
    GFLI_TRY(gfli_pickle_text_room(p, m + n + 1, &text));
    memcpy(text, module, m);
    text[m] = '.';
    memcpy(text + m + 1, name, n + 1);
    GFLI_TRY(gfli_pickle_push_new(p, GFLI_PICKLE_NAME, (int64_t)p->n_texts));
    p->n_texts += m + n + 2;
    return GFL_OK;
}

const char *gfli_pickle_text(const gfli_pickle *p, uint32_t node) {
    return p->nodes[node].kind == GFLI_PICKLE_TEXT ? p->texts + p->nodes[node].n : NULL;
}

/* ---- containers ------------------------------------------------------------------------------ */

static void gfli_pickle_link(gfli_pickle *p, uint32_t container, uint32_t cell) {
    gfli_pickle_node *c = &p->nodes[container];
    if (c->a)
        p->nodes[c->b].b = cell;
    else
        c->a = cell;
    c->b = cell;
    c->n++;
}

/* Additions to what is no container of ours - an opaque value - are forgotten. */
static gfl_status gfli_pickle_append(gfli_pickle *p, uint32_t list, uint32_t value) {
    uint32_t cell = 0;
    if (p->nodes[list].kind != GFLI_PICKLE_LIST) return GFL_OK;
    GFLI_TRY(gfli_pickle_node_new(p, GFLI_PICKLE_CELL, value, 0, &cell));
    gfli_pickle_link(p, list, cell);
    return GFL_OK;
}

static gfl_status gfli_pickle_set(gfli_pickle *p, uint32_t dict, uint32_t key, uint32_t value) {
    uint32_t pair = 0;
    if (p->nodes[dict].kind != GFLI_PICKLE_DICT) return GFL_OK;
    GFLI_TRY(gfli_pickle_node_new(p, GFLI_PICKLE_PAIR, key, (int64_t)value, &pair));
    gfli_pickle_link(p, dict, pair);
    return GFL_OK;
}

/* stack[first..) becomes one list, or pairs of a dictionary. */
static gfl_status gfli_pickle_collect(gfli_pickle *p, gfli_pickle_kind kind, size_t first) {
    uint32_t made;
    GFLI_TRY(gfli_pickle_node_new(p, kind, 0, 0, &made));
    if (kind == GFLI_PICKLE_DICT && (p->n_stack - first) % 2 != 0)
        return gfli_pickle_broken(p, "a key without a value");
    for (size_t i = first; i < p->n_stack; i++) {
        if (kind == GFLI_PICKLE_LIST)
            GFLI_TRY(gfli_pickle_append(p, made, p->stack[i]));
        else if ((i - first) % 2 == 0)
            GFLI_TRY(gfli_pickle_set(p, made, p->stack[i], p->stack[i + 1]));
    }
    p->n_stack = first;
    return gfli_pickle_push(p, made);
}

/* stack[first..) is added to what lies below. */
static gfl_status gfli_pickle_extend(gfli_pickle *p, bool pairs, size_t first) {
    const size_t floor = p->n_marks ? p->marks[p->n_marks - 1] : 0;
    if (first <= floor) return gfli_pickle_broken(p, "a container is missing");
    if (pairs && (p->n_stack - first) % 2 != 0)
        return gfli_pickle_broken(p, "a key without a value");
    for (size_t i = first; i < p->n_stack; i++) {
        if (!pairs)
            GFLI_TRY(gfli_pickle_append(p, p->stack[first - 1], p->stack[i]));
        else if ((i - first) % 2 == 0)
            GFLI_TRY(gfli_pickle_set(p, p->stack[first - 1], p->stack[i], p->stack[i + 1]));
    }
    p->n_stack = first;
    return GFL_OK;
}

static gfl_status gfli_pickle_tuple(gfli_pickle *p, int n) {
    const size_t floor = p->n_marks ? p->marks[p->n_marks - 1] : 0;
    if (p->n_stack < floor + (size_t)n) return gfli_pickle_broken(p, "a value is missing");
    return gfli_pickle_collect(p, GFLI_PICKLE_LIST, p->n_stack - (size_t)n);
}

uint32_t gfli_pickle_item(const gfli_pickle *p, uint32_t list, int i) {
    if (p->nodes[list].kind != GFLI_PICKLE_LIST) return 0;
    uint32_t cell = p->nodes[list].a;
    for (; cell && i > 0; i--) cell = p->nodes[cell].b;
    return cell ? p->nodes[cell].a : 0;
}

uint32_t gfli_pickle_get(const gfli_pickle *p, uint32_t dict, const char *key) {
    uint32_t found = 0;
    if (p->nodes[dict].kind != GFLI_PICKLE_DICT) return 0;
    for (uint32_t pair = p->nodes[dict].a; pair; pair = p->nodes[pair].b) {
        const char *text = gfli_pickle_text(p, p->nodes[pair].a);
        if (text && !strcmp(text, key)) found = (uint32_t)p->nodes[pair].n;
    }
    return found;
}

/* ---- names ----------------------------------------------------------------------------------- */

/* dict(), or a dictionary of the pairs that it is given. */
static gfl_status gfli_pickle_make_dict(gfli_pickle *p, uint32_t args, uint32_t *out) {
    const uint32_t pairs = gfli_pickle_item(p, args, 0);
    GFLI_TRY(gfli_pickle_node_new(p, GFLI_PICKLE_DICT, 0, 0, out));
    if (p->nodes[pairs].kind != GFLI_PICKLE_LIST) return GFL_OK;
    for (uint32_t cell = p->nodes[pairs].a; cell; cell = p->nodes[cell].b) {
        const uint32_t pair = p->nodes[cell].a;
        GFLI_TRY(
            gfli_pickle_set(p, *out, gfli_pickle_item(p, pair, 0), gfli_pickle_item(p, pair, 1)));
    }
    return GFL_OK;
}

static bool gfli_pickle_is_name(const gfli_pickle *p, uint32_t node, const char *name) {
    const gfli_pickle_node *n = &p->nodes[node];
    return n->kind == GFLI_PICKLE_NAME && !strcmp(p->texts + n->n, name);
}

/* What name(args) stands for.  Nothing is ever called: a handful of names become values of our
 * own, everything else is opaque. */
static gfl_status gfli_pickle_make(gfli_pickle *p, uint32_t name, uint32_t args, uint32_t *out) {
    if (gfli_pickle_is_name(p, name, "torch._tensor._rebuild_from_type_v2")) {
        /* (function, class, arguments, attributes): a tensor somebody hung attributes on */
        name = gfli_pickle_item(p, args, 0);
        args = gfli_pickle_item(p, args, 2);
    }
    const gfli_pickle_node *n = &p->nodes[name];
    const int64_t at = n->kind == GFLI_PICKLE_NAME || n->kind == GFLI_PICKLE_OPAQUE ? n->n : -1;
    const char *text = n->kind == GFLI_PICKLE_NAME ? p->texts + n->n : "";
    if (!strcmp(text, "collections.OrderedDict")) return gfli_pickle_make_dict(p, args, out);
    if (!strcmp(text, "torch._utils._rebuild_tensor_v2"))
        return gfli_pickle_node_new(p, GFLI_PICKLE_TENSOR, args, 2, out);
    if (!strcmp(text, "torch._utils._rebuild_tensor"))
        return gfli_pickle_node_new(p, GFLI_PICKLE_TENSOR, args, 1, out);
    if (!strcmp(text, "torch._utils._rebuild_parameter") ||
        !strcmp(text, "torch._utils._rebuild_parameter_with_state") ||
        !strcmp(text, "torch.nn.parameter.Parameter") || /* before torch 0.4 */
        !strcmp(text, "torch.autograd.variable.Variable")) {
        *out = gfli_pickle_item(p, args, 0);
        return GFL_OK;
    }
    return gfli_pickle_node_new(p, GFLI_PICKLE_OPAQUE, 0, at, out);
}

static gfl_status gfli_pickle_reduce(gfli_pickle *p, int n_args) {
    uint32_t name = 0, args = 0, keywords = 0, made = 0;
    if (n_args == 2) GFLI_TRY(gfli_pickle_pop(p, &keywords));
    GFLI_TRY(gfli_pickle_pop(p, &args));
    GFLI_TRY(gfli_pickle_pop(p, &name));
    GFLI_TRY(gfli_pickle_make(p, name, args, &made));
    return gfli_pickle_push(p, made);
}

/* OBJ: the class is the first value above the mark; INST names it in the stream. */
static gfl_status gfli_pickle_object(gfli_pickle *p, bool named) {
    size_t first = 0;
    uint32_t name = 0, args, made;
    if (named) {
        char module[512], text[512];
        GFLI_TRY(gfli_pickle_line(p, module, sizeof module));
        GFLI_TRY(gfli_pickle_line(p, text, sizeof text));
        GFLI_TRY(gfli_pickle_push_name(p, module, text));
        name = p->stack[--p->n_stack];
    }
    GFLI_TRY(gfli_pickle_unmark(p, &first));
    if (!named && p->n_stack == first) return gfli_pickle_broken(p, "a class is missing");
    if (!named) name = p->stack[first];
    GFLI_TRY(gfli_pickle_collect(p, GFLI_PICKLE_LIST, named ? first : first + 1));
    args = p->stack[--p->n_stack];
    p->n_stack = first;
    GFLI_TRY(gfli_pickle_make(p, name, args, &made));
    return gfli_pickle_push(p, made);
}

static gfl_status gfli_pickle_persistent(gfli_pickle *p) {
    uint32_t id = 0, node = 0;
    GFLI_TRY(gfli_pickle_pop(p, &id));
    GFLI_TRY(gfli_pickle_node_new(p, GFLI_PICKLE_STORAGE, id, 0, &node));
    return gfli_pickle_push(p, node);
}

static gfl_status gfli_pickle_stack_global(gfli_pickle *p) {
    uint32_t module = 0, name = 0;
    GFLI_TRY(gfli_pickle_pop(p, &name));
    GFLI_TRY(gfli_pickle_pop(p, &module));
    char copies[2][512];
    const uint32_t nodes[2] = {module, name};
    for (int i = 0; i < 2; i++) {
        const char *text = gfli_pickle_text(p, nodes[i]);
        if (!text || strlen(text) >= sizeof copies[i])
            return gfli_pickle_broken(p, "a name is not a text");
        memcpy(copies[i], text, strlen(text) + 1);
    }
    return gfli_pickle_push_name(p, copies[0], copies[1]);
}

/* ---- the memo -------------------------------------------------------------------------------- */

static gfl_status gfli_pickle_put(gfli_pickle *p, uint64_t index) {
    /* Each takes bytes, and picklers count from 0: a larger number is there to cost memory. */
    if (index >= p->at - p->start) return gfli_pickle_broken(p, "a memo number is too large");
    if (!p->n_stack) return gfli_pickle_broken(p, "a value is missing");
    GFLI_TRY(gfli_grow(p->context, &p->memo, &p->memo_capacity, (size_t)index + 1, sizeof *p->memo,
                       "a checkpoint's memo"));
    for (; p->n_memo <= index; p->n_memo++) p->memo[p->n_memo] = UINT32_MAX;
    p->memo[index] = p->stack[p->n_stack - 1];
    return GFL_OK;
}

static gfl_status gfli_pickle_recall(gfli_pickle *p, uint64_t index) {
    if (index >= p->n_memo || p->memo[index] == UINT32_MAX)
        return gfli_pickle_broken(p, "it refers to a value that is not there");
    return gfli_pickle_push(p, p->memo[index]);
}

/* ---- operations ------------------------------------------------------------------------------ */

/* Integers of more than 8 bytes are kept as bytes, if they are not longer than any known one. */
static gfl_status gfli_pickle_long(gfli_pickle *p, uint64_t n) {
    uint8_t bytes[8] = {0};
    if (n > 8) {
        char *text = NULL;
        if (n > 64) {
            GFLI_TRY(gfli_pickle_skip(p, n));
            return gfli_pickle_push_new(p, GFLI_PICKLE_OTHER, 0);
        }
        GFLI_TRY(gfli_pickle_text_room(p, 64, &text));
        memset(text, 0, 65);
        GFLI_TRY(gfli_pickle_bytes(p, text, (size_t)n));
        GFLI_TRY(gfli_pickle_push_new(p, GFLI_PICKLE_LONG, (int64_t)p->n_texts));
        p->n_texts += 65;
        return GFL_OK;
    }
    GFLI_TRY(gfli_pickle_bytes(p, bytes, (size_t)n));
    uint64_t value = gfli_zip_number(bytes, 8);
    if (n > 0 && n < 8 && bytes[n - 1] & 0x80) value |= ~(uint64_t)0 << (8 * n);
    int64_t number;
    memcpy(&number, &value, sizeof number);
    return gfli_pickle_push_new(p, GFLI_PICKLE_INT, number);
}

/* Protocol 0: "12", "01" (True), "12L". */
static gfl_status gfli_pickle_decimal(gfli_pickle *p) {
    char line[64];
    GFLI_TRY(gfli_pickle_line(p, line, sizeof line));
    if (!strcmp(line, "00") || !strcmp(line, "01"))
        return gfli_pickle_push_new(p, GFLI_PICKLE_BOOL, line[1] - '0');
    const bool negative = line[0] == '-';
    const char *digit = line + negative;
    int64_t value = 0;
    for (; *digit >= '0' && *digit <= '9'; digit++) {
        if (value > (INT64_MAX - 9) / 10) return gfli_pickle_push_new(p, GFLI_PICKLE_OTHER, 0);
        value = 10 * value + (*digit - '0');
    }
    if (digit == line + negative || (strcmp(digit, "") != 0 && strcmp(digit, "L") != 0))
        return gfli_pickle_broken(p, "an integer cannot be read");
    return gfli_pickle_push_new(p, GFLI_PICKLE_INT, negative ? -value : value);
}

/* Protocol 0 texts: never the keys of a checkpoint, whose storages need protocol 2. */
static gfl_status gfli_pickle_quoted(gfli_pickle *p) {
    char byte = 0;
    while (byte != '\n') GFLI_TRY(gfli_pickle_bytes(p, &byte, 1));
    return gfli_pickle_push_new(p, GFLI_PICKLE_OTHER, 0);
}

static gfl_status gfli_pickle_push_number(gfli_pickle *p, int n_bytes) {
    uint64_t value;
    GFLI_TRY(gfli_pickle_number(p, n_bytes, &value));
    if (n_bytes == 4 && value >> 31) /* the only signed one */
        return gfli_pickle_push_new(p, GFLI_PICKLE_INT, (int64_t)value - ((int64_t)1 << 32));
    return gfli_pickle_push_new(p, GFLI_PICKLE_INT, (int64_t)value);
}

static gfl_status gfli_pickle_sized_text(gfli_pickle *p, int n_bytes) {
    uint64_t n;
    GFLI_TRY(gfli_pickle_number(p, n_bytes, &n));
    return gfli_pickle_push_text(p, n);
}

static gfl_status gfli_pickle_global(gfli_pickle *p) {
    char module[512], name[512];
    GFLI_TRY(gfli_pickle_line(p, module, sizeof module));
    GFLI_TRY(gfli_pickle_line(p, name, sizeof name));
    return gfli_pickle_push_name(p, module, name);
}

static gfl_status gfli_pickle_opaque_extension(gfli_pickle *p, int n_bytes) {
    uint64_t code;
    GFLI_TRY(gfli_pickle_number(p, n_bytes, &code));
    return gfli_pickle_push_new(p, GFLI_PICKLE_OPAQUE, -1);
}

static gfl_status gfli_pickle_set_item(gfli_pickle *p) {
    uint32_t value = 0, key = 0, dict = 0;
    GFLI_TRY(gfli_pickle_pop(p, &value));
    GFLI_TRY(gfli_pickle_pop(p, &key));
    GFLI_TRY(gfli_pickle_pop(p, &dict));
    GFLI_TRY(gfli_pickle_set(p, dict, key, value));
    return gfli_pickle_push(p, dict);
}

/* Containers and the stack; *known becomes false for other operations. */
static gfl_status gfli_pickle_structure(gfli_pickle *p, int op, bool *known) {
    size_t first = 0;
    uint32_t value = 0, list = 0;
    switch (op) {
    case GFLI_OPCODE_MARK: return gfli_pickle_mark(p);
    case GFLI_OPCODE_POP:
        if (!p->n_marks || p->marks[p->n_marks - 1] < p->n_stack) return gfli_pickle_pop(p, &value);
        p->n_marks--; /* it stands for the mark */
        return GFL_OK;
    case GFLI_OPCODE_POP_MARK:
        GFLI_TRY(gfli_pickle_unmark(p, &first));
        p->n_stack = first;
        return GFL_OK;
    case GFLI_OPCODE_DUP:
        GFLI_TRY(gfli_pickle_pop(p, &value));
        GFLI_TRY(gfli_pickle_push(p, value));
        return gfli_pickle_push(p, value);
    case GFLI_OPCODE_EMPTY_DICT: return gfli_pickle_push_new(p, GFLI_PICKLE_DICT, 0);
    case GFLI_OPCODE_EMPTY_LIST:
    case GFLI_OPCODE_EMPTY_TUPLE:
    case GFLI_OPCODE_EMPTY_SET: return gfli_pickle_push_new(p, GFLI_PICKLE_LIST, 0);
    case GFLI_OPCODE_TUPLE:
    case GFLI_OPCODE_LIST:
    case GFLI_OPCODE_FROZENSET:
        GFLI_TRY(gfli_pickle_unmark(p, &first));
        return gfli_pickle_collect(p, GFLI_PICKLE_LIST, first);
    case GFLI_OPCODE_DICT:
        GFLI_TRY(gfli_pickle_unmark(p, &first));
        return gfli_pickle_collect(p, GFLI_PICKLE_DICT, first);
    case GFLI_OPCODE_TUPLE1:
    case GFLI_OPCODE_TUPLE2:
    case GFLI_OPCODE_TUPLE3: return gfli_pickle_tuple(p, op - GFLI_OPCODE_TUPLE1 + 1);
    case GFLI_OPCODE_APPEND:
        GFLI_TRY(gfli_pickle_pop(p, &value));
        GFLI_TRY(gfli_pickle_pop(p, &list));
        GFLI_TRY(gfli_pickle_append(p, list, value));
        return gfli_pickle_push(p, list);
    case GFLI_OPCODE_APPENDS:
    case GFLI_OPCODE_SETITEMS:
    case GFLI_OPCODE_ADDITEMS:
        GFLI_TRY(gfli_pickle_unmark(p, &first));
        return gfli_pickle_extend(p, op == GFLI_OPCODE_SETITEMS, first);
    case GFLI_OPCODE_SETITEM: return gfli_pickle_set_item(p);
    default: *known = false; return GFL_OK;
    }
}

/* Numbers and texts. */
static gfl_status gfli_pickle_scalar(gfli_pickle *p, int op, bool *known) {
    char line[64];
    uint64_t n;
    switch (op) {
    case GFLI_OPCODE_NONE: return gfli_pickle_push(p, 0);
    case GFLI_OPCODE_NEWTRUE:
    case GFLI_OPCODE_NEWFALSE:
        return gfli_pickle_push_new(p, GFLI_PICKLE_BOOL, op == GFLI_OPCODE_NEWTRUE);
    case GFLI_OPCODE_BININT: return gfli_pickle_push_number(p, 4);
    case GFLI_OPCODE_BININT1: return gfli_pickle_push_number(p, 1);
    case GFLI_OPCODE_BININT2: return gfli_pickle_push_number(p, 2);
    case GFLI_OPCODE_INT:
    case GFLI_OPCODE_LONG: return gfli_pickle_decimal(p);
    case GFLI_OPCODE_LONG1: GFLI_TRY(gfli_pickle_number(p, 1, &n)); return gfli_pickle_long(p, n);
    case GFLI_OPCODE_LONG4: GFLI_TRY(gfli_pickle_number(p, 4, &n)); return gfli_pickle_long(p, n);
    case GFLI_OPCODE_BINFLOAT:
        GFLI_TRY(gfli_pickle_skip(p, 8));
        return gfli_pickle_push_new(p, GFLI_PICKLE_OTHER, 0);
    case GFLI_OPCODE_FLOAT:
        GFLI_TRY(gfli_pickle_line(p, line, sizeof line));
        return gfli_pickle_push_new(p, GFLI_PICKLE_OTHER, 0);
    case GFLI_OPCODE_STRING:
    case GFLI_OPCODE_UNICODE: return gfli_pickle_quoted(p);
    case GFLI_OPCODE_SHORT_BINSTRING:
    case GFLI_OPCODE_SHORT_BINBYTES:
    case GFLI_OPCODE_SHORT_BINUNICODE: return gfli_pickle_sized_text(p, 1);
    case GFLI_OPCODE_BINSTRING:
    case GFLI_OPCODE_BINBYTES:
    case GFLI_OPCODE_BINUNICODE: return gfli_pickle_sized_text(p, 4);
    case GFLI_OPCODE_BINUNICODE8:
    case GFLI_OPCODE_BINBYTES8:
    case GFLI_OPCODE_BYTEARRAY8: return gfli_pickle_sized_text(p, 8);
    case GFLI_OPCODE_NEXT_BUFFER: return gfli_pickle_push_new(p, GFLI_PICKLE_OTHER, 0);
    case GFLI_OPCODE_READONLY_BUFFER: return GFL_OK;
    default: *known = false; return GFL_OK;
    }
}

/* Names, what is made of them, and the memo. */
static gfl_status gfli_pickle_naming(gfli_pickle *p, int op, bool *known) {
    char line[64];
    uint32_t state;
    uint64_t n;
    switch (op) {
    case GFLI_OPCODE_GLOBAL: return gfli_pickle_global(p);
    case GFLI_OPCODE_STACK_GLOBAL: return gfli_pickle_stack_global(p);
    case GFLI_OPCODE_REDUCE:
    case GFLI_OPCODE_NEWOBJ: return gfli_pickle_reduce(p, 1);
    case GFLI_OPCODE_NEWOBJ_EX: return gfli_pickle_reduce(p, 2);
    case GFLI_OPCODE_OBJ: return gfli_pickle_object(p, false);
    case GFLI_OPCODE_INST: return gfli_pickle_object(p, true);
    case GFLI_OPCODE_BUILD:
        return gfli_pickle_pop(p, &state); /* attributes of an object: nobody asks for any */
    case GFLI_OPCODE_BINPERSID: return gfli_pickle_persistent(p);
    case GFLI_OPCODE_PERSID:
        GFLI_TRY(gfli_pickle_line(p, line, sizeof line));
        return gfli_pickle_push_new(p, GFLI_PICKLE_OPAQUE, -1);
    case GFLI_OPCODE_EXT1: return gfli_pickle_opaque_extension(p, 1);
    case GFLI_OPCODE_EXT2: return gfli_pickle_opaque_extension(p, 2);
    case GFLI_OPCODE_EXT4: return gfli_pickle_opaque_extension(p, 4);
    case GFLI_OPCODE_BINPUT: GFLI_TRY(gfli_pickle_number(p, 1, &n)); return gfli_pickle_put(p, n);
    case GFLI_OPCODE_LONG_BINPUT:
        GFLI_TRY(gfli_pickle_number(p, 4, &n));
        return gfli_pickle_put(p, n);
    case GFLI_OPCODE_MEMOIZE: return gfli_pickle_put(p, p->n_memo);
    case GFLI_OPCODE_BINGET:
        GFLI_TRY(gfli_pickle_number(p, 1, &n));
        return gfli_pickle_recall(p, n);
    case GFLI_OPCODE_LONG_BINGET:
        GFLI_TRY(gfli_pickle_number(p, 4, &n));
        return gfli_pickle_recall(p, n);
    case GFLI_OPCODE_PUT:
    case GFLI_OPCODE_GET:
        GFLI_TRY(gfli_pickle_line(p, line, sizeof line));
        n = strtoul(line, NULL, 10);
        return op == GFLI_OPCODE_PUT ? gfli_pickle_put(p, n) : gfli_pickle_recall(p, n);
    case GFLI_OPCODE_PROTO:
        return gfli_pickle_number(p, 1, &n);               /* the protocol: all are read alike */
    case GFLI_OPCODE_FRAME: return gfli_pickle_skip(p, 8); /* a frame, which changes nothing */
    default: *known = false; return GFL_OK;
    }
}

static gfl_status gfli_pickle_step(gfli_pickle *p, int op) {
    bool known = true;
    gfl_status status = gfli_pickle_structure(p, op, &known);
    if (known) return status;
    known = true;
    status = gfli_pickle_scalar(p, op, &known);
    if (known) return status;
    known = true;
    status = gfli_pickle_naming(p, op, &known);
    return known ? status : gfli_pickle_broken(p, "this is no pickle: an unknown operation");
}

gfl_status gfli_pickle_read(gfli_pickle *p, const char *where, uint64_t at, uint64_t end,
                            uint32_t *root) {
    uint32_t none;
    p->where = where;
    p->start = p->at = at;
    p->end = end;
    p->n_stack = p->n_marks = p->n_memo = 0;
    if (!p->n_nodes) GFLI_TRY(gfli_pickle_node_new(p, GFLI_PICKLE_NONE, 0, 0, &none));
    for (;;) {
        uint8_t op;
        GFLI_TRY(gfli_pickle_bytes(p, &op, 1));
        if (op == GFLI_OPCODE_STOP) break;
        GFLI_TRY(gfli_pickle_step(p, op));
    }
    p->earlier += p->at - p->start;
    return gfli_pickle_pop(p, root);
}
