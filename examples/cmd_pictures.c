/* cmd_pictures.c - which files are pictures, and what is made of them is called */
#include "cmd_files.h"
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- lists that grow ------------------------------------------------------------------------- */

/* The items with room for one more behind n; NULL after a message, and then they are as they
 * were. */
static void *room_for_one(void *items, int n, size_t size) {
    if (n & (n - 1)) return items; /* room is a power of two */
    return take_more(items, n ? 2 * (size_t)n : 1, size);
}

typedef struct name_list {
    char **items;
    int n;
} name_list;

static char *copy_text(const char *text) {
    char *copy = take(strlen(text) + 1, 1);
    if (copy) strcpy(copy, text);
    return copy;
}

static bool add_name(name_list *list, const char *name) {
    char **items = room_for_one(list->items, list->n, sizeof *items);
    if (!items) return false;
    list->items = items;
    items[list->n] = copy_text(name);
    return items[list->n] && ++list->n;
}

static void free_names(name_list *list) {
    for (int i = 0; i < list->n; i++) free(list->items[i]);
    free(list->items);
    memset(list, 0, sizeof *list);
}

static int compare_texts(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Takes ownership of path; the name begins `skip` characters into it. */
static bool add_picture(picture_list *list, char *path, size_t skip, const os_file *file) {
    picture *items = path ? room_for_one(list->items, list->n, sizeof *items) : NULL;
    if (!items) {
        free(path);
        return false;
    }
    list->items = items;
    picture *one = &items[list->n++];
    one->path = path;
    one->shown = path;
    one->name = path + skip;
    one->drawing = NULL;
    one->file = *file;
    return true;
}

void free_pictures(picture_list *list) {
    for (int i = 0; i < list->n; i++) {
        free(list->items[i].path);
        free(list->items[i].drawing);
    }
    free(list->items);
    memset(list, 0, sizeof *list);
}

/* ---- what a file is -------------------------------------------------------------------------- */

static bool ends_like_one_of(const char *name, const char *const *endings) {
    const char *dot = strrchr(name, '.');
    for (int i = 0; dot && endings[i]; i++) {
        const char *a = dot + 1, *b = endings[i];
        while (*a && tolower((unsigned char)*a) == *b) a++, b++;
        if (!*a && !*b) return true;
    }
    return false;
}

static bool promises_picture(const char *name) {
    static const char *const endings[] = {"jpg", "jpeg", "jpe", "jfif", "png",
                                          "bmp", "ppm",  "pgm", "pnm",  NULL};
    return ends_like_one_of(name, endings);
}

/* Of a file whose kind shows in its first bytes. */
static const char *kind_of(const char *path, int *readable) {
    unsigned char head[16];
    FILE *f = os_open(path);
    const size_t n = f ? fread(head, 1, sizeof head, f) : 0;
    if (f) fclose(f);
    return gfl_image_get_kind(head, n, readable);
}

/* ---- folders --------------------------------------------------------------------------------- */

enum {
    LEFT_KIND,
    LEFT_OTHER,
    LEFT_SPECIAL,
    LEFT_HIDDEN,
    LEFT_KNOWN,
    LEFT_ABOVE,
    LEFT_OUT,
    LEFT_REASONS
};
enum { NAMED = 8, DEEPEST = 64 };

typedef struct left_out {
    int n;
    name_list names; /* the first of them */
} left_out;

typedef struct folder {
    char *path;
    int depth;
    os_file file;
} folder;

typedef struct folder_list {
    folder *items;
    int n;
} folder_list;

typedef struct walk {
    picture_list *list;
    size_t skip;                /* in front of the names */
    folder_list folders, links; /* that links lead to */
    os_file except;
    left_out left[LEFT_REASONS];
} walk;

/* Count what is left out, and keep the first names, with what is in parentheses. */
static bool leave(walk *w, int reason, const char *path, const char *kind) {
    left_out *l = &w->left[reason];
    char text[4400];
    if (l->n++ >= NAMED) return true;
    snprintf(text, sizeof text, "%.4096s%s%s%s", path + w->skip, kind ? " (" : "", kind ? kind : "",
             kind ? ")" : "");
    return add_name(&l->names, text);
}

/* Takes ownership of path. */
static bool push_folder(folder_list *list, char *path, int depth, const os_file *file) {
    folder *items = path ? room_for_one(list->items, list->n, sizeof *items) : NULL;
    if (!items) {
        free(path);
        return false;
    }
    list->items = items;
    items[list->n].path = path;
    items[list->n].depth = depth;
    items[list->n++].file = *file;
    return true;
}

static void free_folders(folder_list *list) {
    for (int i = 0; i < list->n; i++) free(list->items[i].path);
    free(list->items);
}

static bool is_same(const os_file *a, const os_file *b) {
    return a->number == b->number && a->device == b->device && a->number != 0;
}

/* Takes ownership of path. */
static bool enter_folder(walk *w, char *path, int depth, const os_file *file) {
    int reason = depth > DEEPEST ? LEFT_KNOWN : LEFT_REASONS;
    for (int i = 0; i < w->folders.n; i++)
        if (is_same(&w->folders.items[i].file, file)) reason = LEFT_KNOWN;
    if (is_same(&w->except, file) && depth > 0) reason = LEFT_OUT;
    if (!path || reason == LEFT_REASONS) return push_folder(&w->folders, path, depth, file);
    const bool good = leave(w, reason, path, NULL);
    free(path);
    return good;
}

/* Takes ownership of path. */
static bool add_file(walk *w, char *path, const os_file *file) {
    int readable = 0;
    const char *kind = kind_of(path, &readable);
    if (readable || promises_picture(path)) return add_picture(w->list, path, w->skip, file);
    const bool good = leave(w, kind ? LEFT_KIND : LEFT_OTHER, path, kind);
    free(path);
    return good;
}

/* A name in a folder.  Folders that links lead to come after all others: where there are two ways,
 * the pictures have the name without the link. */
static bool add_entry(walk *w, const folder *parent, const char *name) {
    char *path = join_path(parent->path, name);
    const int depth = parent->depth + 1;
    os_file file;
    bool good = path != NULL;
    if (!path) return false;
    if (name[0] == '.') {
        good = leave(w, LEFT_HIDDEN, path, NULL);
    } else if (!os_find(path, &file)) {
        report_errno("%s", path);
        w->list->unreadable++;
    } else if (file.kind == OS_FOLDER) {
        if (os_look(path) == OS_LINK) return push_folder(&w->links, path, depth, &file);
        return enter_folder(w, path, depth, &file);
    } else if (file.kind == OS_FILE) {
        return add_file(w, path, &file);
    } else {
        good = leave(w, LEFT_SPECIAL, path, NULL);
    }
    free(path);
    return good;
}

static bool list_name(void *names, const char *name) {
    return add_name(names, name);
}

static bool walk_folder(walk *w, int at) {
    name_list names = {NULL, 0};
    const folder here = w->folders.items[at]; /* the list grows meanwhile */
    bool good = os_list(here.path, list_name, &names);
    if (!good && errno) {
        report_errno("%s", here.path);
        w->list->unreadable++;
        good = true;
    }
    if (names.n) qsort(names.items, (size_t)names.n, sizeof *names.items, compare_texts);
    for (int i = 0; good && i < names.n; i++) good = add_entry(w, &here, names.items[i]);
    free_names(&names);
    return good;
}

/* Is the folder that a link leads to one that holds the folder of the argument?  Then all that is
 * beside the argument would come in. */
static bool leads_above(const walk *w, const char *link) {
    char *inner = os_resolve(w->folders.items[0].path), *outer = os_resolve(link);
    const size_t n = outer ? strlen(outer) : 0;
    const bool above = inner && outer && !strncmp(inner, outer, n) &&
                       (inner[n] == '/' || (n && outer[n - 1] == '/'));
    free(inner);
    free(outer);
    return above;
}

static bool follow_link(walk *w, int at) {
    folder *link = &w->links.items[at];
    char *path = link->path;
    if (leads_above(w, path)) return leave(w, LEFT_ABOVE, path, NULL);
    link->path = NULL; /* given away */
    return enter_folder(w, path, link->depth, &link->file);
}

static bool walk_all(walk *w) {
    bool good = true;
    for (int next = 0, link = 0; good && (next < w->folders.n || link < w->links.n);)
        good = next < w->folders.n ? walk_folder(w, next++) : follow_link(w, link++);
    return good;
}

static void say_what_is_left_out(walk *w, const char *argument) {
    static const char *const reasons[LEFT_REASONS] = {
        "of a kind that this program does not read",
        "not pictures",
        "not regular files",
        "hidden",
        "folders that were looked at already, or lie too deep",
        "links to a folder that holds this one",
        "the folder of the drawings"};
    for (int r = 0; r < LEFT_REASONS; r++) {
        left_out *l = &w->left[r];
        char text[600] = "";
        size_t used = 0;
        for (int i = 0; i < l->names.n && used < sizeof text; i++)
            used += (size_t)snprintf(text + used, sizeof text - used, "%s%s", i ? ", " : "",
                                     l->names.items[i]);
        const bool all = l->n == l->names.n && used < sizeof text;
        if (l->n)
            talk("%s: %d left out, %s: %s%s", argument, l->n, reasons[r], text, all ? "" : " ...");
        free_names(&l->names);
    }
}

static int compare_names(const void *a, const void *b) {
    return strcmp(((const picture *)a)->name, ((const picture *)b)->name);
}

static int add_folder(picture_list *list, const char *path, const os_file *file,
                      const char *except) {
    const int first = list->n;
    walk w;
    memset(&w, 0, sizeof w);
    w.list = list;
    w.skip = strlen(path) + 1;
    if (except && !os_find(except, &w.except)) memset(&w.except, 0, sizeof w.except);
    const bool good = enter_folder(&w, copy_text(path), 0, file) && walk_all(&w);
    say_what_is_left_out(&w, path);
    free_folders(&w.folders);
    free_folders(&w.links);
    if (list->n > first)
        qsort(list->items + first, (size_t)(list->n - first), sizeof *list->items, compare_names);
    return good ? CMD_OK : CMD_MEMORY;
}

int add_pictures(picture_list *list, char *argument, const char *except) {
    static char input[] = "/dev/stdin";
    os_file file;
    const bool is_input = !strcmp(argument, "-");
    if (is_input) argument = input;
    for (size_t n = strlen(argument); n > 1 && argument[n - 1] == '/'; n--) argument[n - 1] = 0;
    if (!os_find(argument, &file)) memset(&file, 0, sizeof file); /* reading it says why */
    if (file.kind == OS_FOLDER) return add_folder(list, argument, &file, except);
    const size_t skip = os_folder_length(argument);
    if (!add_picture(list, copy_text(argument), skip, &file)) return CMD_MEMORY;
    if (is_input) list->items[list->n - 1].shown = "-";
    return CMD_OK;
}

/* ---- names in results ------------------------------------------------------------------------ */

/* The name with % and every byte that is not UTF-8 as %XX, from take(). */
static char *percent_encoded(const char *name) {
    const size_t length = strlen(name);
    char *out = take(3 * length + 1, 1);
    for (size_t i = 0, at = 0; out && i < length; i++) {
        const bool plain = name[i] != '%' && gfl_text_valid(name + i, length - i) > 0;
        const size_t n = plain ? gfl_text_valid(name + i, length - i) : 0;
        size_t k = 0;
        for (; k < n && name[i + k] != '%'; k++) out[at++] = name[i + k];
        if (plain)
            i += k - 1;
        else
            at += (size_t)snprintf(out + at, 4, "%%%02X", (unsigned char)name[i]);
    }
    return out;
}

void write_name(gfl_json_writer *json, const char *key, const char *name) {
    const bool good = gfl_text_valid(name, strlen(name)) == strlen(name);
    char *encoded = good ? NULL : percent_encoded(name);
    gfl_json_text(json, key, encoded ? encoded : name);
    if (encoded) gfl_json_bool(json, "percent_encoded", 1);
    free(encoded);
}

int check_names(const picture_list *list) {
    picture *sorted = take((size_t)list->n, sizeof *sorted);
    int code = sorted ? CMD_OK : CMD_MEMORY;
    if (sorted) {
        memcpy(sorted, list->items, (size_t)list->n * sizeof *sorted);
        qsort(sorted, (size_t)list->n, sizeof *sorted, compare_names);
    }
    for (int i = 1; code == CMD_OK && i < list->n; i++)
        if (!strcmp(sorted[i].name, sorted[i - 1].name))
            code = usage_error("%s and %s have the same name in --results: give their common "
                               "folder as the argument, or call gfl for each of them",
                               sorted[i - 1].path, sorted[i].path);
    free(sorted);
    return code;
}

/* ---- names of drawings ----------------------------------------------------------------------- */

/* Formats that cannot be written become PNG, under a name that tells them from x.png. */
static char *drawing_name(const char *name) {
    static const char *const written[] = {"jpg", "jpeg", "jpe", "jfif", "png", NULL};
    const size_t n = strlen(name) + 5;
    char *out = take(n, 1);
    if (out) snprintf(out, n, "%s%s", name, ends_like_one_of(name, written) ? "" : ".png");
    return out;
}

/* "a-2.jpg" of "a.jpg"; all names of drawings have an ending. */
static char *numbered_name(const char *name, int number) {
    const size_t size = strlen(name) + 16;
    const char *dot = strrchr(name, '.');
    char *out = take(size, 1);
    if (out) snprintf(out, size, "%.*s-%d%s", (int)(dot - name), name, number, dot);
    return out;
}

/* By the name of the drawing; equal ones in the order of the pictures. */
static int compare_drawings(const void *a, const void *b) {
    const picture *x = *(picture *const *)a, *y = *(picture *const *)b;
    const int order = strcmp(x->drawing, y->drawing);
    return order ? order : (x > y) - (x < y);
}

static int compare_drawing_name(const void *name, const void *item) {
    return strcmp(name, (*(picture *const *)item)->drawing);
}

/* The second and later drawings of one name get numbers: names[i] is for sorted[i]. */
static bool number_drawings(picture **sorted, int n, char **names) {
    int number = 2;
    for (int i = 1; i < n; i++) {
        if (strcmp(sorted[i]->drawing, sorted[i - 1]->drawing) != 0) {
            number = 2;
            continue;
        }
        do {
            free(names[i]);
            names[i] = numbered_name(sorted[i]->drawing, number++);
        } while (names[i] &&
                 bsearch(names[i], sorted, (size_t)n, sizeof *sorted, compare_drawing_name));
        if (!names[i]) return false;
    }
    return true;
}

static bool make_names_distinct(picture_list *list) {
    picture **sorted = take((size_t)list->n, sizeof *sorted);
    char **names = take((size_t)list->n, sizeof *names);
    bool good = sorted && names;
    for (int i = 0; good && i < list->n; i++) sorted[i] = &list->items[i];
    if (good) {
        qsort(sorted, (size_t)list->n, sizeof *sorted, compare_drawings);
        good = number_drawings(sorted, list->n, names);
    }
    for (int i = 0; sorted && names && i < list->n; i++) {
        if (!names[i]) continue;
        talk("%s is drawn as %s, since another drawing is %s", sorted[i]->path, names[i],
             sorted[i]->drawing);
        free(sorted[i]->drawing);
        sorted[i]->drawing = names[i];
    }
    free(sorted);
    free(names);
    return good;
}

static int compare_files(const void *a, const void *b) {
    const os_file *x = a, *y = b;
    if (x->device != y->device) return x->device < y->device ? -1 : 1;
    return (x->number > y->number) - (x->number < y->number);
}

/* Would a drawing replace one of the pictures? */
static int check_drawings(const picture_list *list, const char *out) {
    const size_t n = (size_t)list->n;
    os_file *files = take(n, sizeof *files), there;
    int code = files ? CMD_OK : CMD_MEMORY;
    for (size_t i = 0; files && i < n; i++) files[i] = list->items[i].file;
    if (files) qsort(files, n, sizeof *files, compare_files);
    for (size_t i = 0; code == CMD_OK && i < n; i++) {
        char *path = join_path(out, list->items[i].drawing);
        if (!path) code = CMD_MEMORY;
        if (path && os_find(path, &there) && there.number &&
            bsearch(&there, files, n, sizeof *files, compare_files)) {
            talk("gfl: %s: the drawing would replace a picture; choose another --out", path);
            code = CMD_FAILED;
        }
        free(path);
    }
    free(files);
    return code;
}

int name_drawings(picture_list *list, const char *out) {
    for (int i = 0; i < list->n; i++) {
        list->items[i].drawing = drawing_name(list->items[i].name);
        if (!list->items[i].drawing) return CMD_MEMORY;
    }
    return make_names_distinct(list) ? check_drawings(list, out) : CMD_MEMORY;
}
