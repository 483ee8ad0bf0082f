/* cmd_options.c - options from the command line, the environment and a file, one table for all */
#include "cmd.h"
#include "cmd_os.h"
#include <ctype.h>
#include <errno.h>
#include <float.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static int smallest(int a, int b, int c) {
    int ab = a < b ? a : b;
    return ab < c ? ab : c;
}

/* Levenshtein's distance of two words of at most 63 letters. */
static int edit_distance(const char *a, const char *b) {
    int row[64], n = (int)strlen(b);
    if (n > 62 || strlen(a) > 62) return INT_MAX;
    for (int j = 0; j <= n; j++) row[j] = j;
    for (int i = 0; a[i]; i++) {
        int diagonal = row[0];
        row[0] = i + 1;
        for (int j = 1; j <= n; j++) {
            int above = row[j];
            row[j] = smallest(above + 1, row[j - 1] + 1, diagonal + (a[i] != b[j - 1]));
            diagonal = above;
        }
    }
    return row[n];
}

const char *opt_nearest(const char *word, const char *const *names, int n) {
    const char *best = NULL;
    int distance = (int)strlen(word) / 2 + 1;
    for (int i = 0; i < n; i++) {
        int d = edit_distance(word, names[i]);
        if (d >= distance) continue;
        distance = d;
        best = names[i];
    }
    return best;
}

static const char command_line[] = "command line"; /* where an option stands, else a file's line */

static opt *find_option(opt *options, const char *name, size_t length) {
    for (opt *o = options; o->kind != OPT_END; o++)
        if (strlen(o->name) == length && !strncmp(o->name, name, length)) return o;
    return NULL;
}

/* The flag that "no-NAME" negates, or NULL. */
static opt *find_negated(opt *options, const char *name, size_t length) {
    if (length <= 3 || strncmp(name, "no-", 3) != 0) return NULL;
    opt *o = find_option(options, name + 3, length - 3);
    return o && o->kind == OPT_FLAG ? o : NULL;
}

enum { MOST_NAMES = 80 };

static int list_names(const opt *options, const char *names[MOST_NAMES]) {
    int n = 0;
    for (const opt *o = options; o->kind != OPT_END && n < MOST_NAMES - 2; o++)
        names[n++] = o->name;
    return n;
}

/* What follows "usage: gfl" of the command whose options are read. */
static const char *usage_text = "";

static int unknown_option(opt *options, const char *name, const char *where) {
    const char *names[MOST_NAMES];
    const opt *flag = find_negated(options, name, strlen(name));
    if (flag && strcmp(where, command_line) != 0)
        return usage_error("%s: there is no option \"%s\"; a flag is written %s = false in a file",
                           where, name, flag->name);
    if (flag) return usage_error("--%s takes no value; --%s=false is the same", name, flag->name);
    int n = list_names(options, names);
    names[n++] = "help";
    names[n++] = "config";
    const char *near = opt_nearest(name, names, n);
    if (near)
        return usage_error("%s: there is no option \"%s\"; did you mean \"%s\"?", where, name,
                           near);
    return usage_error("%s: there is no option \"%s\"; gfl %.*s --help lists them", where, name,
                       (int)strcspn(usage_text, " "), usage_text);
}

static bool parse_bool(const char *text, bool *out) {
    static const char *const yes[] = {"true", "yes", "on", "1"}, *const no[] = {"false", "no",
                                                                                "off", "0"};
    for (int i = 0; i < 4; i++) {
        if (!strcmp(text, yes[i])) return *out = true;
        if (!strcmp(text, no[i])) {
            *out = false;
            return true;
        }
    }
    return false;
}

/* Set an option from a text, which must last; CMD_OK or CMD_USAGE after a message. */
static int set_option(opt *o, const char *text, int source, const char *where) {
    char *end = NULL;
    bool good = true;
    errno = 0;
    if (o->kind == OPT_FLAG) {
        good = parse_bool(text, (bool *)o->value);
    } else if (o->kind == OPT_INT) {
        long v = strtol(text, &end, 10);
        good = *text && !*end && !errno && v >= INT_MIN && v <= INT_MAX;
        if (good) *(int *)o->value = (int)v;
    } else if (o->kind == OPT_REAL) {
        double v = strtod(text, &end);
        good = *text && !*end && fabs(v) <= DBL_MAX; /* nan and inf are no settings */
        if (good) *(double *)o->value = v;
    } else if (o->kind == OPT_LIST) {
        opt_list *list = (opt_list *)o->value;
        if (source != o->source) list->n = 0; /* a later source replaces what an earlier one had */
        if (list->n == OPT_LIST_MAX)
            return usage_error("%s: %s is given more than %d times", where, o->name, OPT_LIST_MAX);
        list->items[list->n++] = text;
    } else {
        *(const char **)o->value = text;
    }
    o->source = source;
    if (good) return CMD_OK;
    return usage_error("%s: %s must be %s, not \"%s\"", where, o->name,
                       o->kind == OPT_FLAG  ? "true or false"
                       : o->kind == OPT_INT ? "a whole number"
                                            : "a finite number",
                       text);
}

/* Texts of the configuration file, which options point to until the program ends. */
typedef struct kept_text {
    struct kept_text *next;
    char text[];
} kept_text;
static kept_text *kept_texts;

static const char *keep(const char *text) {
    const size_t size = strlen(text) + 1;
    kept_text *k = take(1, sizeof *k + size);
    if (!k) return NULL;
    k->next = kept_texts;
    memcpy(k->text, text, size);
    kept_texts = k;
    return k->text;
}

static char *trim(char *s) {
    while (isspace((unsigned char)*s)) s++;
    char *end = s + strlen(s);
    while (end > s && isspace((unsigned char)end[-1])) *--end = 0;
    return s;
}

/* The text in quotes that `s` is from its first to its last character, in its place; false: it is
 * none, and as it was. */
static bool unquote(char *s) {
    const size_t n = strlen(s);
    char *to = s;
    if (n < 2 || *s != '"' || s[n - 1] != '"') return false;
    for (const char *p = s + 1; p < s + n - 1; p += *p == '\\' ? 2 : 1)
        if (*p == '"' || (*p == '\\' && p + 1 == s + n - 1)) return false;
    for (const char *p = s + 1; p < s + n - 1; p++) {
        unsigned code = 0;
        if (*p == '\\' && p[1] == 'x' && isxdigit((unsigned char)p[2]) &&
            isxdigit((unsigned char)p[3]) && sscanf(p + 2, "%2x", &code) == 1 && code) {
            *to++ = (char)code;
            p += 3;
        } else if (*p == '\\') {
            p++;
            *to++ = *p == 'n' ? '\n' : *p == 'r' ? '\r' : *p == 't' ? '\t' : *p;
        } else {
            *to++ = *p;
        }
    }
    *to = 0;
    return true;
}

static int read_config_line(opt *options, char *line, const char *where) {
    char *name = trim(line), *equals = strchr(name, '=');
    if (!*name || *name == '#') return CMD_OK;
    if (!equals) return usage_error("%s: \"name = value\" is expected", where);
    *equals = 0;
    name = trim(name);
    opt *o = find_option(options, name, strlen(name));
    if (!o) return unknown_option(options, name, where);
    char *value = trim(equals + 1);
    unquote(value);
    const char *kept_value = keep(value);
    return kept_value ? set_option(o, kept_value, OPT_FROM_FILE, where) : CMD_MEMORY;
}

enum { MOST_CONFIG_BYTES = 1 << 24 };

static int read_config(opt *options, const char *path) {
    char *bytes, where[4200];
    size_t size;
    const char *why = os_read(path, MOST_CONFIG_BYTES, &bytes, &size);
    if (why) return usage_error("--config %s: %s", path, why);
    int code = CMD_OK;
    if (strlen(bytes) != size)
        code = usage_error("--config %s: it is not a text: byte %zu is 0", path, strlen(bytes) + 1);
    char *line = bytes + (strncmp(bytes, "\xEF\xBB\xBF", 3) ? 0 : 3);
    for (int n = 1; code == CMD_OK && line; n++) {
        char *end = strchr(line, '\n');
        if (end) *end = 0;
        snprintf(where, sizeof where, "%.4096s:%d", path, n);
        code = read_config_line(options, line, where);
        line = end ? end + 1 : NULL;
    }
    free(bytes);
    return code;
}

int opt_read(opt *options, const char *path) {
    const int code = read_config(options, path);
    for (opt *o = options; o->kind != OPT_END; o++) o->source = OPT_FROM_DEFAULT;
    return code;
}

/* "weight-decay" as GFL_WEIGHT_DECAY. */
static void variable_name(const char *option, char name[MOST_NAMES]) {
    size_t n = 4;
    memcpy(name, "GFL_", 4);
    for (const char *p = option; *p && n < MOST_NAMES - 1; p++)
        name[n++] = *p == '-' ? '_' : (char)toupper((unsigned char)*p);
    name[n] = 0;
}

/* A variable that was meant for an option and names none; others are somebody else's. */
static void check_variable(opt *options, const char *variable) {
    const char *names[MOST_NAMES];
    char word[64], right[MOST_NAMES];
    const size_t length = strcspn(variable, "=");
    if (strncmp(variable, "GFL_", 4) != 0 || length - 4 >= sizeof word) return;
    for (size_t i = 4; i < length; i++)
        word[i - 4] = variable[i] == '_' ? '-' : (char)tolower((unsigned char)variable[i]);
    word[length - 4] = 0;
    if (find_option(options, word, length - 4)) return;
    const opt *flag = find_negated(options, word, length - 4);
    const char *near = flag ? flag->name : opt_nearest(word, names, list_names(options, names));
    if (!near || (!flag && edit_distance(word, near) > 1)) return;
    variable_name(near, right);
    if (flag)
        talk("warning: %.*s names no option: write %s=false", (int)length, variable, right);
    else
        talk("warning: %.*s names no option; did you mean %s?", (int)length, variable, right);
}

/* Once, however often options are read. */
static void check_environment(opt *options) {
    static bool done;
    for (int i = 0; !done && os_variable(i); i++) check_variable(options, os_variable(i));
    done = true;
}

static int read_environment(opt *options) {
    for (opt *o = options; o->kind != OPT_END; o++) {
        char name[MOST_NAMES];
        variable_name(o->name, name);
        const char *value = getenv(name);
        if (!value) continue;
        int code = set_option(o, value, OPT_FROM_ENVIRONMENT, name);
        if (code != CMD_OK) return code;
    }
    check_environment(options);
    return CMD_OK;
}

static const char *text_of(const opt *o) {
    return o->kind == OPT_TEXT || o->kind == OPT_PATH ? *(const char **)o->value : NULL;
}

enum { HELP_LEFT = 25, HELP_WIDTH = 80 };

/* The words of the text on lines that begin at HELP_LEFT; the column after them. */
static int print_words(const char *text, int column) {
    while (*text) {
        const int n = (int)strcspn(text, " ");
        if (column > HELP_LEFT && column + 1 + n > HELP_WIDTH) column = 0;
        column += printf("%s%*s%.*s", column ? "" : "\n",
                         column > HELP_LEFT ? 1 : HELP_LEFT - column, "", n, text);
        text += n + (text[n] == ' ');
    }
    return column;
}

static void print_option(const opt *o) {
    char more[64] = "";
    const int column =
        printf("  --%s%s%s", o->name, o->argument ? " " : "", o->argument ? o->argument : "");
    if (o->kind == OPT_FLAG && *(bool *)o->value)
        snprintf(more, sizeof more, "Default: on; --no-%s turns it off.", o->name);
    if (o->kind == OPT_INT && *(int *)o->value > 0)
        snprintf(more, sizeof more, "Default: %d.", *(int *)o->value);
    if (o->kind == OPT_REAL && *(double *)o->value > 0.0)
        snprintf(more, sizeof more, "Default: %g.", *(double *)o->value);
    if (text_of(o)) snprintf(more, sizeof more, "Default: %.40s.", text_of(o));
    print_words(more, print_words(o->help, column));
    puts("");
}

/* scripts/manual.sh reads this: the usage, the options and what all commands have, a line empty
 * between each. */
static void print_help(const char *usage, const opt *options) {
    static const char file[] = "Read options from FILE, whose lines are \"name = value\" with the "
                               "names above.";
    static opt common[] = {{OPT_LIST, "config", NULL, "FILE", file, 0},
                           {OPT_LIST, "help", NULL, NULL, "Print this text.", 0}};
    printf("usage: gfl %s\n\n", usage);
    for (const opt *o = options; o->kind != OPT_END; o++) print_option(o);
    puts("");
    print_option(common);
    print_option(common + 1);
    puts("\nA flag --x has the form --no-x too; in a file or a variable it is true or false.\n"
         "Later ones win: defaults, --config, variables (GFL_LOADERS for --loaders), the\n"
         "command line.");
}

/* One argument that begins with "--"; *i moves when the value is the next argument. */
static int read_option(opt *options, int argc, char **argv, int *i) {
    const char *name = argv[*i] + 2, *equals = strchr(name, '=');
    const size_t length = equals ? (size_t)(equals - name) : strlen(name);
    if (length == 6 && !strncmp(name, "config", 6)) {
        *i += !equals;
        return CMD_OK; /* read before */
    }
    opt *o = find_option(options, name, length);
    opt *negated = o || equals ? NULL : find_negated(options, name, length);
    if (negated) return set_option(negated, "false", OPT_FROM_ARGUMENT, command_line);
    if (!o) {
        char word[64];
        snprintf(word, sizeof word, "%.*s", length < 63 ? (int)length : 63, name);
        return unknown_option(options, word, command_line);
    }
    if (equals) return set_option(o, equals + 1, OPT_FROM_ARGUMENT, command_line);
    if (o->kind == OPT_FLAG) return set_option(o, "true", OPT_FROM_ARGUMENT, command_line);
    if (*i + 1 >= argc) return usage_error("--%s needs a value (%s)", o->name, o->argument);
    return set_option(o, argv[++*i], OPT_FROM_ARGUMENT, command_line);
}

/* Every --config FILE or --config=FILE among the arguments, in their order. */
static int read_configs(opt *options, int argc, char **argv) {
    int code = CMD_OK;
    for (int i = 1; code == CMD_OK && i < argc && strcmp(argv[i], "--") != 0; i++) {
        const bool same = !strncmp(argv[i], "--config=", 9);
        if (!same && strcmp(argv[i], "--config") != 0) continue;
        const char *path = same ? argv[i] + 9 : i + 1 < argc ? argv[++i] : "";
        code = *path ? read_config(options, path) : usage_error("--config needs a value (FILE)");
    }
    return code;
}

int opt_parse(const char *usage, opt *options, int argc, char **argv, const char **rest,
              int *n_rest) {
    int code = CMD_OK;
    *n_rest = 0;
    usage_text = usage;
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
        if (strcmp(argv[i], "--help") != 0 && strcmp(argv[i], "-h") != 0) continue;
        print_help(usage, options);
        return CMD_OK;
    }
    code = read_configs(options, argc, argv);
    if (code == CMD_OK) code = read_environment(options);
    bool only_files = false;
    for (int i = 1; code == CMD_OK && i < argc; i++) {
        if (!only_files && !strcmp(argv[i], "--"))
            only_files = true;
        else if (!only_files && !strncmp(argv[i], "--", 2))
            code = read_option(options, argc, argv, &i);
        else if (!only_files && argv[i][0] == '-' && argv[i][1])
            code = usage_error("there is no option \"%s\"; options are written with two dashes",
                               argv[i]);
        else
            rest[(*n_rest)++] = argv[i];
    }
    return code == CMD_OK ? -1 : code;
}

int opt_choice(const char *option, const char *text, const char *first, const char *second) {
    if (!text) return 0;
    if (!strcmp(text, first)) return 1;
    if (!strcmp(text, second)) return 2;
    usage_error("--%s must be %s or %s, not \"%s\"", option, first, second, text);
    return -1;
}

const opt *opt_find(const opt *options, const char *name) {
    while (options->kind != OPT_END && strcmp(options->name, name) != 0) options++;
    return options;
}

/* As it is written: a path from the root, where it can be. */
static const char *full_text(const opt *o, char room[8192]) {
    const char *text = text_of(o);
    return text && *text && o->kind == OPT_PATH && os_full_path(text, room, 8192) ? room : text;
}

static bool is_same_text(const opt *a, const opt *b) {
    char first[8192], second[8192];
    const char *x = full_text(a, first), *y = full_text(b, second);
    return x && y ? !strcmp(x, y) : x == y;
}

bool opt_is_same(const opt *a, const opt *b) {
    if (a->kind == OPT_FLAG) return *(bool *)a->value == *(bool *)b->value;
    if (a->kind == OPT_INT) return *(int *)a->value == *(int *)b->value;
    if (a->kind == OPT_REAL)
        return !(*(double *)a->value < *(double *)b->value) &&
               !(*(double *)a->value > *(double *)b->value);
    if (a->kind != OPT_LIST) return is_same_text(a, b);
    const opt_list *x = (const opt_list *)a->value, *y = (const opt_list *)b->value;
    bool same = x->n == y->n;
    for (int i = 0; same && i < x->n; i++) same = !strcmp(x->items[i], y->items[i]);
    return same;
}

/* The shortest text that reads back as the number. */
static const char *real_text(double value, char out[32]) {
    double read = value - 1;
    for (int digits = 6; digits <= 17 && (read < value || read > value); digits++) {
        snprintf(out, 32, "%.*g", digits, value);
        read = strtod(out, NULL);
    }
    return out;
}

void opt_as_given(const opt *o, char *out, size_t size) {
    char number[32];
    const char *text = text_of(o);
    const opt_list *list = o->kind == OPT_LIST ? (const opt_list *)o->value : NULL;
    size_t n = 0;
    *out = 0;
    if (o->kind == OPT_FLAG) snprintf(out, size, "--%s%s", *(bool *)o->value ? "" : "no-", o->name);
    if (o->kind == OPT_INT) snprintf(out, size, "--%s %d", o->name, *(int *)o->value);
    if (o->kind == OPT_REAL)
        snprintf(out, size, "--%s %s", o->name, real_text(*(double *)o->value, number));
    if (text) snprintf(out, size, "--%s %s", o->name, text);
    for (int i = 0; list && i < list->n && n < size; i++)
        n +=
            (size_t)snprintf(out + n, size - n, "%s--%s %s", i ? " " : "", o->name, list->items[i]);
}

static int settle(opt *o, const char *value, const char *reason) {
    union {
        bool flag;
        int integer;
        double real;
        const char *text;
        opt_list list;
    } room;
    char is[256], should[256];
    opt wanted = *o;
    memset(&room, 0, sizeof room);
    wanted.value = &room;
    int code = set_option(&wanted, value, OPT_FROM_DEFAULT, reason);
    if (code != CMD_OK || o->source == OPT_FROM_DEFAULT || opt_is_same(o, &wanted))
        return code == CMD_OK ? set_option(o, value, o->source, reason) : code;
    opt_as_given(o, is, sizeof is);
    opt_as_given(&wanted, should, sizeof should);
    return usage_error("%s means %s, but %s is given: leave out one of the two", reason, should,
                       is);
}

int opt_settle(opt *options, const opt_setting *settings, const char *reason) {
    int code = CMD_OK;
    for (const opt_setting *s = settings; code == CMD_OK && s->name; s++)
        code = settle(find_option(options, s->name, strlen(s->name)), s->value, reason);
    return code;
}

/* Would the line be read as another value? */
static bool needs_quotes(const char *text) {
    const size_t n = strlen(text);
    if (!n || *text == '"' || isspace((unsigned char)*text) || isspace((unsigned char)text[n - 1]))
        return true;
    for (const char *p = text; *p; p++)
        if ((unsigned char)*p < 0x20 || *p == 0x7f) return true;
    return false;
}

static bool write_setting(FILE *f, const char *name, const char *text) {
    if (!needs_quotes(text)) return fprintf(f, "%s = %s\n", name, text) > 0;
    bool good = fprintf(f, "%s = \"", name) > 0;
    for (const char *p = text; good && *p; p++) {
        const unsigned char c = (unsigned char)*p;
        if (c == '"' || c == '\\')
            good = fprintf(f, "\\%c", c) > 0;
        else if (c < 0x20 || c == 0x7f)
            good = fprintf(f, "\\x%02x", c) > 0;
        else
            good = fputc(c, f) != EOF;
    }
    return good && fputs("\"\n", f) >= 0;
}

bool opt_write(const opt *options, FILE *f) {
    char room[8192];
    bool good = true;
    for (const opt *o = options; good && o->kind != OPT_END; o++) {
        const char *text = full_text(o, room);
        if (o->kind == OPT_FLAG)
            good = fprintf(f, "%s = %s\n", o->name, *(bool *)o->value ? "true" : "false") > 0;
        if (o->kind == OPT_INT) good = fprintf(f, "%s = %d\n", o->name, *(int *)o->value) > 0;
        if (o->kind == OPT_REAL)
            good = fprintf(f, "%s = %.17g\n", o->name, *(double *)o->value) > 0;
        if (text) good = write_setting(f, o->name, text);
        const opt_list *list = o->kind == OPT_LIST ? (const opt_list *)o->value : NULL;
        for (int i = 0; good && list && i < list->n; i++)
            good = write_setting(f, o->name, list->items[i]);
    }
    return good;
}

void opt_write_json(const opt *options, gfl_json_writer *json, const char *key) {
    char room[8192];
    gfl_json_object(json, key);
    for (const opt *o = options; o->kind != OPT_END; o++) {
        const char *text = full_text(o, room);
        if (o->kind == OPT_FLAG) gfl_json_bool(json, o->name, *(bool *)o->value);
        if (o->kind == OPT_INT) gfl_json_integer(json, o->name, *(int *)o->value);
        if (o->kind == OPT_REAL) gfl_json_number(json, o->name, *(double *)o->value);
        if (text) gfl_json_text(json, o->name, text);
        if (o->kind != OPT_LIST) continue;
        const opt_list *list = (const opt_list *)o->value;
        gfl_json_array(json, o->name);
        for (int i = 0; i < list->n; i++) gfl_json_text(json, NULL, list->items[i]);
        gfl_json_end(json);
    }
    gfl_json_end(json);
}

/* A side of a picture; false when no number of that range is there. */
static bool read_side(const char **text, int *side) {
    char *end;
    if (**text < '0' || **text > '9') return false;
    const long value = strtol(*text, &end, 10);
    *text = end;
    *side = value < 1 || value > GFL_MAX_SIDE ? 0 : (int)value;
    return *side > 0;
}

bool opt_scale(const char *text, int *scale_long, int *scale_short, int *scale_min) {
    int a, b, c = 0;
    if (!read_side(&text, &a) || *text++ != 'x' || !read_side(&text, &b)) return false;
    if (*text == ':') {
        text++;
        if (!read_side(&text, &c)) return false;
    }
    *scale_long = a > b ? a : b;
    *scale_short = a > b ? b : a;
    if (*text || c > *scale_short) return false;
    *scale_min = c;
    return true;
}
