/* fuzz_run.c - what stands in a run's folder: whatever the bytes of config.txt, it is refused or
 * comes back from opt_write as it was; whatever those of a log, it is cut once and for all
 *
 * The first byte says which: c, l for train.jsonl, r for results.csv. */
#define _XOPEN_SOURCE 700
#include "../examples/cmd_common.c"
#include "../examples/cmd_model.c"
#include "../examples/cmd_options.c"
#include "../examples/cmd_os.c"
#include "../examples/cmd_os_posix.c"
#include "../examples/cmd_run.c"
#include "../examples/cmd_talk.c"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

typedef struct values {
    bool flag;
    int whole;
    double real;
    const char *text, *path;
    opt_list list;
    opt table[7];
} values;

static void make_values(values *v) {
    memset(v, 0, sizeof *v);
    const opt table[] = {
        {OPT_FLAG, "flip", &v->flag, NULL, "", 0},   {OPT_INT, "epochs", &v->whole, "N", "", 0},
        {OPT_REAL, "lr", &v->real, "X", "", 0},      {OPT_TEXT, "model", &v->text, "NAME", "", 0},
        {OPT_PATH, "data", &v->path, "FILE", "", 0}, {OPT_LIST, "map", &v->list, "OLD=NEW", "", 0},
        {OPT_END, NULL, NULL, NULL, NULL, 0},
    };
    memcpy(v->table, table, sizeof table);
}

static void put(const char *path, const uint8_t *data, size_t size) {
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(data, 1, size, f) != size || fclose(f) != 0) abort();
}

static void forget_texts(void) {
    while (kept_texts) {
        kept_text *next = kept_texts->next;
        free(kept_texts);
        kept_texts = next;
    }
}

static void settings(const uint8_t *data, size_t size) {
    values first, second;
    make_values(&first);
    make_values(&second);
    put("fuzz_run.cfg", data, size);
    if (opt_read(first.table, "fuzz_run.cfg") == CMD_OK) {
        FILE *f = fopen("fuzz_run.cfg", "w");
        if (!f || !opt_write(first.table, f) || fclose(f) != 0) abort();
        if (opt_read(second.table, "fuzz_run.cfg") != CMD_OK) abort();
        for (int i = 0; first.table[i].kind != OPT_END; i++)
            if (!opt_is_same(&first.table[i], &second.table[i])) abort();
    }
    forget_texts();
}

static long read_once(bool results, run_folder *f) {
    gfl_trainer_info plan;
    memset(&plan, 0, sizeof plan);
    plan.n_done = 4;
    plan.steps_per_epoch = 2;
    memset(f, 0, sizeof *f);
    f->path = ".";
    f->evaluated = results ? 0 : 1;
    if ((results ? read_results(f, plan.n_done) : read_log(f, &plan)) != CMD_OK) abort();
    FILE *file = fopen(results ? "results.csv" : "train.jsonl", "rb");
    if (!file || fseek(file, 0, SEEK_END) != 0) abort();
    const long length = ftell(file);
    fclose(file);
    return length;
}

/* What is kept is the beginning, whole lines, and is kept and read the same the next time. */
static void log_of_run(bool results, const uint8_t *data, size_t size) {
    run_folder first, second;
    put(results ? "results.csv" : "train.jsonl", data, size);
    const long length = read_once(results, &first);
    if (length < 0 || (size_t)length > size || (length && data[length - 1] != '\n')) abort();
    if (read_once(results, &second) != length) abort();
    if (first.n_sums != second.n_sums || first.evaluated != second.evaluated ||
        memcmp(&first.best, &second.best, sizeof first.best) ||
        first.best_epoch != second.best_epoch || strcmp(first.best_file, second.best_file))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (!size) return 0;
    if (data[0] == 'c')
        settings(data + 1, size - 1);
    else
        log_of_run(data[0] == 'r', data + 1, size - 1);
    return 0;
}
