/* cmd_run.c - the folder of a training run: its weights, state and logs */
#include "cmd_run.h"
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char weights_name[] = ".safetensors", state_name[] = ".state.safetensors";
static const char best_name[] = "best_bbox_mAP.safetensors";
static const char *const pairs[] = {"last", "previous", "next"};
static const char *const singles[] = {"config.txt", "train.jsonl", "results.csv", best_name};
enum { N_PAIRS = 3, N_SINGLES = 4 };

const char *run_file(const run_folder *f, const char *name) {
    static char paths[8][4400];
    static int next;
    char *path = paths[next++ % 8];
    snprintf(path, sizeof paths[0], "%.4096s/%.200s", f->path, name);
    return path;
}

/* "last" and so on, with one of the two endings. */
static const char *in_pair(const run_folder *f, const char *pair, const char *ending) {
    char name[64];
    snprintf(name, sizeof name, "%s%s", pair, ending);
    return run_file(f, name);
}

static bool has(const run_folder *f, const char *pair, const char *ending) {
    return os_exists(in_pair(f, pair, ending));
}

static int failed(const char *path, const char *what) {
    return report_errno("%s: %s", path, what);
}

/* ---- opening --------------------------------------------------------------------------------- */

/* The name of a file of ours, or one that begins with it. */
static bool is_ours(const char *name, bool (*fits)(const char *name, const char *ours)) {
    char ours[64];
    for (int i = 0; i < N_SINGLES; i++)
        if (fits(name, singles[i])) return true;
    for (int i = 0; i < 2 * N_PAIRS; i++) {
        snprintf(ours, sizeof ours, "%s%s", pairs[i / 2], i % 2 ? state_name : weights_name);
        if (fits(name, ours)) return true;
    }
    return false;
}

/* What a process that was killed was writing: NAME.tmp or NAME.PROCESS-N.tmp; train.tmp was
 * version 0.1.0's. */
static bool is_temporary(const char *name, const char *ours) {
    const size_t n = strlen(name), m = strlen(ours);
    return n >= m + 4 && !strncmp(name, ours, m) && name[m] == '.' && !strcmp(name + n - 4, ".tmp");
}

typedef struct cleaning {
    const run_folder *f;
    int code;
} cleaning;

static bool remove_left_over(void *user, const char *name) {
    cleaning *c = user;
    if (strcmp(name, "train.tmp") && !is_ours(name, is_temporary)) return true;
    const char *path = run_file(c->f, name);
    if (!os_remove(path)) c->code = failed(path, "it is left over, and cannot be removed");
    return c->code == CMD_OK;
}

static int clean(const run_folder *f) {
    cleaning c = {f, CMD_OK};
    if (!os_list(f->path, remove_left_over, &c) && c.code == CMD_OK)
        return failed(f->path, "it cannot be listed");
    return c.code;
}

/* Files are put in place by renaming, which would replace a link and not what it names. */
static int check_file(const run_folder *f, const char *name) {
    const char *path = run_file(f, name);
    const os_kind kind = os_look(path);
    if (kind == OS_NOTHING || kind == OS_FILE) return CMD_OK;
    talk("gfl: --out %s: %s is %s; the files of a run must be regular files.  To keep them "
         "elsewhere, let --out be a link to a folder there",
         f->path, name,
         kind == OS_LINK     ? "a symbolic link"
         : kind == OS_FOLDER ? "a folder"
                             : "a device or a pipe");
    return CMD_FAILED;
}

static int check_files(const run_folder *f) {
    int code = CMD_OK;
    char name[64];
    for (int i = 0; i < N_SINGLES && code == CMD_OK; i++) code = check_file(f, singles[i]);
    for (int i = 0; i < 2 * N_PAIRS && code == CMD_OK; i++) {
        snprintf(name, sizeof name, "%s%s", pairs[i / 2], i % 2 ? state_name : weights_name);
        code = check_file(f, name);
    }
    return code;
}

static int lock(run_folder *f) {
    const char *config = run_file(f, "config.txt");
    long holder;
    switch (os_lock_file(&f->lock, config, &holder)) {
    case OS_LOCKED: return CMD_OK;
    case OS_CANNOT_LOCK:
        talk("warning: %s cannot be locked (%s): see to it that no other training uses this folder",
             config, strerror(errno));
        return CMD_OK;
    case OS_LOCK_FAILED: return failed(config, "it cannot be opened");
    default: break;
    }
    char who[48] = "another process"; /* not every system tells, or it has just ended */
    if (holder) snprintf(who, sizeof who, "process %ld", holder);
    talk("gfl: --out %s: %s is training in this folder; wait for its end, or choose another folder",
         f->path, who);
    return CMD_FAILED;
}

static bool holds_run(const run_folder *f) {
    return has(f, "last", weights_name) || has(f, "last", state_name) ||
           has(f, "next", state_name) || os_exists(run_file(f, best_name));
}

/* Was any epoch evaluated?  Then its weights were there, and someone took them away. */
static bool has_results(const run_folder *f) {
    char line[256];
    int n = 0;
    FILE *file = os_open(run_file(f, "results.csv"));
    while (file && fgets(line, sizeof line, file)) n++;
    if (file) fclose(file);
    return n > 1;
}

static int check_begin(run_folder *f, bool resume, bool overwrite) {
    const bool holds = holds_run(f);
    f->fresh = !resume || overwrite || !holds;
    if (resume && !overwrite && !holds && (f->lock.made || has_results(f)))
        return usage_error("--resume: there is no %s", in_pair(f, "last", state_name));
    if (resume || overwrite || !holds) return CMD_OK;
    return usage_error("--out %s holds a run: --resume to go on with it, another folder, or "
                       "--overwrite",
                       f->path);
}

int run_open(run_folder *f, bool resume, bool overwrite) {
    char part[4096];
    f->lock.fd = -1;
    f->saved = -1;
    f->best = -1; /* the AP of no box to find */
    if (!*f->path || strlen(f->path) > 3900)
        return usage_error("--out must be the name of a folder, of up to 3900 bytes");
    if (resume && !os_exists(f->path))
        return usage_error("--resume: there is no folder %s", f->path);
    if (!os_make_folder(f->path, part)) return report_errno("--out %s: %s", f->path, part);
    int code = check_files(f);
    if (code == CMD_OK) code = lock(f);
    if (code == CMD_OK) code = check_begin(f, resume, overwrite);
    return code == CMD_OK ? clean(f) : code;
}

int run_close(run_folder *f) {
    int code = CMD_OK;
    if (f->log && fclose(f->log) != 0) code = failed(f->path, "closing train.jsonl");
    if (f->csv && fclose(f->csv) != 0) code = failed(f->path, "closing results.csv");
    if (f->lock.made && f->lock.fd >= 0) os_remove(run_file(f, "config.txt"));
    os_unlock(&f->lock);
    return code;
}

/* ---- weights and state ----------------------------------------------------------------------- */

/* Let next.* be last.*, and that previous.*.  Whatever has been done of it before is not done
 * again: what is next.* goes with what is last.* once its weights are there. */
static bool take_over(const run_folder *f) {
    if (has(f, "next", weights_name)) {
        for (int i = 0; i < 2; i++) {
            const char *ending = i ? state_name : weights_name;
            if (has(f, "last", ending) &&
                !os_keep(in_pair(f, "last", ending), in_pair(f, "previous", ending)))
                return false;
        }
        if (!os_rename(in_pair(f, "next", weights_name), in_pair(f, "last", weights_name)))
            return false;
    }
    const bool good = os_rename(in_pair(f, "next", state_name), in_pair(f, "last", state_name));
    if (good) os_sync_folder(f->path);
    return good;
}

/* The state first: without it, weights are those of a save that was not finished. */
static bool remove_pair(const run_folder *f, const char *pair) {
    return (!has(f, pair, state_name) || os_remove(in_pair(f, pair, state_name))) &&
           (!has(f, pair, weights_name) || os_remove(in_pair(f, pair, weights_name)));
}

/* Both logs must have what the state has. */
static int sync_logs(const run_folder *f) {
    const char *log = run_file(f, "train.jsonl"), *csv = run_file(f, "results.csv");
    if (!os_sync(f->log, log)) return failed(log, "it cannot be written");
    return os_sync(f->csv, csv) ? CMD_OK : failed(csv, "it cannot be written");
}

int run_save(run_folder *f, gfl_context *context, const gfl_model *model,
             const gfl_trainer *trainer) {
    gfl_trainer_info plan;
    if (!f->unsaved) return CMD_OK;
    const int code = sync_logs(f);
    if (code != CMD_OK) return code;
    gfl_status status = gfl_model_save(model, in_pair(f, "next", weights_name));
    if (status == GFL_OK) status = gfl_trainer_save_state(trainer, in_pair(f, "next", state_name));
    if (status != GFL_OK) {
        (void)remove_pair(f, "next");
        return report(context, status, "saving");
    }
    if (!take_over(f))
        return failed(in_pair(f, "next", weights_name), "it was written, but cannot be renamed");
    gfl_trainer_get_info(trainer, &plan);
    f->saved = plan.n_done;
    f->unsaved = false;
    return CMD_OK;
}

void run_say_saved(const run_folder *f) {
    if (f->saved < 0) {
        talk("nothing was saved: no step has succeeded");
        return;
    }
    talk("the last good weights, those of step %lld, are in %s", (long long)f->saved,
         in_pair(f, "last", weights_name));
    if (has(f, "previous", weights_name) && has(f, "previous", state_name))
        talk("those of the save before are in %s", in_pair(f, "previous", weights_name));
}

int run_settle(run_folder *f, gfl_context *context, run_probe probe, void *user) {
    const bool weights = has(f, "next", weights_name);
    if (has(f, "next", state_name)) {
        gfl_status status = probe(user, in_pair(f, weights ? "next" : "last", weights_name),
                                  in_pair(f, "next", state_name));
        if (status == GFL_OK)
            return take_over(f) ? CMD_OK : failed(f->path, "next.* cannot be renamed");
        if ((status != GFL_E_MISMATCH && status != GFL_E_FORMAT) || !has(f, "last", state_name) ||
            probe(user, in_pair(f, "last", weights_name), in_pair(f, "last", state_name)) != GFL_OK)
            return report(context, status, "--resume");
        talk("warning: %s: next.* do not belong together and are removed; last.* do", f->path);
    }
    if (!remove_pair(f, "next")) return failed(f->path, "next.* cannot be removed");
    const bool state = has(f, "last", state_name);
    if (state && has(f, "last", weights_name)) return CMD_OK;
    const bool previous = has(f, "previous", weights_name) && has(f, "previous", state_name);
    return usage_error("--resume: there is no %s%s",
                       in_pair(f, "last", state ? weights_name : state_name),
                       previous ? "; previous.* are those of the save before: copy both to last.* "
                                  "to go on from there"
                                : "");
}

/* ---- reading the logs of a run that goes on -------------------------------------------------- */

/* FNV-1a of a file's bytes: is it the same file? */
static void fingerprint(const char *path, char out[20]) {
    unsigned char bytes[16384];
    uint64_t hash = 0xcbf29ce484222325u;
    FILE *f = os_open(path);
    for (size_t n; f && (n = fread(bytes, 1, sizeof bytes, f)) > 0;)
        for (size_t i = 0; i < n; i++) hash = (hash ^ bytes[i]) * 0x100000001b3u;
    if (f) fclose(f);
    snprintf(out, 20, "%016llx", (unsigned long long)hash);
}

typedef struct reader {
    FILE *file;
    char *line;
    size_t room;
    long long end, keep; /* offsets: behind this line, behind the last one to keep */
    bool failed;
} reader;

/* The next whole line; what a process that was killed wrote of its last one is none. */
static bool next_line(reader *r) {
    size_t n = 0;
    for (int c; r->file && (c = getc(r->file)) != EOF;) {
        if (n + 1 >= r->room) {
            char *more = take_more(r->line, r->room * 2 + 256, 1);
            r->failed = !more;
            if (!more) return false;
            r->line = more;
            r->room = r->room * 2 + 256;
        }
        r->line[n++] = (char)c;
        r->end++;
        if (c != '\n') continue;
        r->line[n] = 0;
        return true;
    }
    return false;
}

/* Close it, and cut the log behind what is kept of it. */
static int cut(reader *r, const char *path) {
    const bool good = !r->failed && (!r->file || !ferror(r->file));
    free(r->line);
    if (r->file) fclose(r->file);
    if (!good) return failed(path, "it cannot be read");
    if (r->end == r->keep) return CMD_OK;
    return os_truncate(path, r->keep) ? CMD_OK : failed(path, "it cannot be shortened");
}

/* As results.csv has it, so that a run that goes on compares the same numbers. */
static double as_logged(double ap) {
    char text[32];
    snprintf(text, sizeof text, "%.10g", ap);
    return strtod(text, NULL);
}

static bool is_epoch(double value) {
    return value >= 1 && value <= 1e9;
}

/* Of results.csv: the last epoch that was evaluated, and the best. */
static int read_results(run_folder *f, int64_t done) {
    const char *path = run_file(f, "results.csv");
    reader r;
    memset(&r, 0, sizeof r);
    r.file = os_open(path);
    while (next_line(&r)) {
        double epoch, step, ap;
        if (sscanf(r.line, "%lf,%lf,%*f,%*f,%*f,%*f,%*f,%lf", &epoch, &step, &ap) == 3 &&
            is_epoch(epoch)) {
            if (step > (double)done) break;
            f->evaluated = (int)epoch;
            if (ap > f->best) {
                f->best = ap;
                f->best_epoch = (int)epoch;
            }
        }
        r.keep = r.end;
    }
    return cut(&r, path);
}

/* The number after `key` in a line of JSON of ours, or -1. */
static double field(const char *line, const char *key) {
    const char *at = strstr(line, key);
    return at ? strtod(at + strlen(key), NULL) : -1.0;
}

/* Is this line to stay?  Takes what it tells. */
static bool read_log_line(run_folder *f, const char *line, int64_t done, int64_t epoch_start) {
    const double step = field(line, "\"iter\": "), epoch = field(line, "\"epoch\": ");
    const char *best = strstr(line, "\"best\": \"");
    if (step < 0 || step > (double)done) return false;
    if (strstr(line, "\"eval\": ")) {
        if (epoch > f->evaluated) return step < (double)done;
        if (!best || !is_epoch(epoch)) return true;
        f->best = as_logged(field(line, "\"bbox_mAP\": "));
        f->best_epoch = (int)epoch;
        snprintf(f->best_file, 17, "%s", best + strlen("\"best\": \""));
        return true;
    }
    f->rate = field(line, "\"lr\": ");
    if (step <= (double)epoch_start || !strstr(line, "\"loss_cls\"")) return true;
    f->sums[0] += field(line, "\"loss_cls\": ");
    f->sums[1] += field(line, "\"loss_bbox\": ");
    f->sums[2] += field(line, "\"loss_dfl\": ");
    f->n_sums++;
    return true;
}

/* Of train.jsonl: the losses of the epoch that goes on, or of one that has yet to be evaluated. */
static int read_log(run_folder *f, const gfl_trainer_info *plan) {
    const int64_t done = plan->n_done, each = plan->steps_per_epoch;
    const int64_t epoch_start = done > 0 ? (done - 1) / each * each : 0;
    const char *path = run_file(f, "train.jsonl");
    reader r;
    memset(&r, 0, sizeof r);
    r.file = os_open(path);
    while (next_line(&r)) {
        const bool first = r.keep == 0;
        if (read_log_line(f, r.line, done, epoch_start) || first) r.keep = r.end;
    }
    return cut(&r, path);
}

/* ---- the best weights of a run that goes on -------------------------------------------------- */

static bool copy_file(const char *from, const char *to) {
    char bytes[16384];
    os_output out;
    FILE *f = os_open(from);
    bool good = f && os_create(&out, to);
    if (!good) {
        if (f) fclose(f);
        return false;
    }
    for (size_t n; good && (n = fread(bytes, 1, sizeof bytes, f)) > 0;)
        good = fwrite(bytes, 1, n, out.stream) == n;
    good = good && !ferror(f);
    fclose(f);
    if (good) return os_commit(&out);
    os_abandon(&out);
    return false;
}

/* Write the best weights again from the pair that has those of their epoch. */
static int mend_best(const run_folder *f, const char *pair) {
    const char *best = run_file(f, best_name);
    if (!copy_file(in_pair(f, pair, weights_name), best))
        return failed(best, "it is not what results.csv calls the best, and cannot be written");
    talk("warning: %s was not what results.csv calls the best, epoch %d: it is written again from "
         "%s%s",
         best, f->best_epoch, pair, weights_name);
    return CMD_OK;
}

/* What results.csv calls the best must be there.  An evaluation that was interrupted between its
 * weights and its lines is made up, and comes to the same. */
static int check_best(run_folder *f, const gfl_trainer_info *plan) {
    char found[20], last[20], previous[20];
    const int64_t done = plan->n_done, each = plan->steps_per_epoch;
    const char *best = run_file(f, best_name);
    const bool there = os_exists(best), known = f->best_file[0] != 0;
    fingerprint(best, found);
    fingerprint(in_pair(f, "last", weights_name), last);
    f->owed = there && done % each == 0 && f->evaluated < done / each && !strcmp(found, last);
    if (!f->best_epoch || f->owed || (there && known && !strcmp(found, f->best_file)))
        return CMD_OK;
    if (f->best_epoch * each == done)
        return there && !strcmp(found, last) ? CMD_OK : mend_best(f, "last");
    if (there && !known) return CMD_OK;
    fingerprint(in_pair(f, "previous", weights_name), previous);
    if (known && !strcmp(previous, f->best_file)) return mend_best(f, "previous");
    talk("warning: %s %s epoch %d, which is the best in results.csv; from now on it will hold the "
         "best of what follows",
         best, there ? "does not hold the weights of" : "is missing: it held the weights of",
         f->best_epoch);
    f->best = -1;
    return CMD_OK;
}

/* ---- beginning ------------------------------------------------------------------------------- */

/* Under another name first: a file with half the options would be taken for all of them. */
static int write_settings(run_folder *f, const opt *options) {
    const char *path = run_file(f, "config.txt"), *temporary = run_file(f, "config.txt.tmp");
    FILE *file = os_open_log(temporary, true);
    bool good = file && opt_write(options, file);
    good = good && os_sync(file, temporary);
    if (file && fclose(file) != 0) good = false;
    good = good && os_replace_locked(&f->lock, temporary, path);
    if (good) {
        f->lock.made = false; /* it stays */
        os_sync_folder(f->path);
        return CMD_OK;
    }
    const int code = failed(path, "it cannot be written");
    os_remove(temporary);
    return code;
}

static bool remove_one(const run_folder *f, const char *name) {
    return !os_exists(run_file(f, name)) || os_remove(run_file(f, name));
}

/* Put what an earlier run left out of the way; its weights stay until the second save. */
static bool clear(const run_folder *f) {
    const bool both = has(f, "last", weights_name) && has(f, "last", state_name);
    bool good = remove_pair(f, "next") && (!both || remove_pair(f, "previous"));
    for (int i = 0; i < 2; i++) {
        const char *ending = i ? weights_name : state_name;
        if (good && has(f, "last", ending))
            good = os_rename(in_pair(f, "last", ending), in_pair(f, "previous", ending));
    }
    return good && remove_one(f, best_name) && remove_one(f, "results.csv") &&
           remove_one(f, "train.jsonl");
}

/* While an earlier run is put away, config.txt says overwrite = true: should the process be killed
 * meanwhile, --resume goes on with that. */
static int begin(run_folder *f, const run_facts *facts) {
    int code = CMD_OK;
    *facts->overwrite = holds_run(f) || has_results(f);
    if (*facts->overwrite) code = write_settings(f, facts->options);
    if (code == CMD_OK && !clear(f)) code = failed(f->path, "an earlier run cannot be put away");
    *facts->overwrite = false;
    return code;
}

static int go_on(run_folder *f, const gfl_trainer_info *plan) {
    f->saved = plan->n_done;
    int code = read_results(f, plan->n_done);
    if (code == CMD_OK) code = read_log(f, plan);
    if (code == CMD_OK) code = check_best(f, plan);
    return code;
}

/* The first line of train.jsonl, and one at each --resume. */
static void log_run(const run_folder *f, const run_facts *facts) {
    const gfl_trainer_info *plan = facts->plan;
    gfl_json_writer json = json_to(f->log);
    char hash[20];
    fingerprint(facts->data, hash);
    gfl_json_object(&json, NULL);
    gfl_json_text(&json, "gfl", GFL_VERSION_TEXT);
    gfl_json_integer(&json, "resumed_at", plan->n_done);
    gfl_json_integer(&json, "seed", facts->seed);
    gfl_json_text(&json, "device", "cpu");
    gfl_json_integer(&json, "threads", facts->threads);
    gfl_json_text(&json, "decoder", "stb_image");
    gfl_json_text(&json, "fingerprint", hash);
    gfl_json_integer(&json, "images", plan->n_images);
    gfl_json_integer(&json, "batch", plan->desc.batch);
    gfl_json_integer(&json, "epochs", plan->desc.epochs);
    gfl_json_number(&json, "lr", plan->desc.lr);
    opt_write_json(facts->options, &json, "config");
    gfl_json_end(&json);
    gfl_json_line(&json);
}

static int open_logs(run_folder *f, const run_facts *facts) {
    const char *log = run_file(f, "train.jsonl"), *csv = run_file(f, "results.csv");
    f->log = os_open_log(log, f->fresh);
    if (!f->log) return failed(log, "it cannot be written");
    f->csv = os_open_log(csv, f->fresh);
    if (!f->csv) return failed(csv, "it cannot be written");
    log_run(f, facts);
    if (!os_flush(f->log, log)) return failed(log, "it cannot be written");
    if (fseek(f->csv, 0, SEEK_END) == 0 && ftell(f->csv) == 0)
        fputs("epoch,step,lr,loss,loss_cls,loss_bbox,loss_dfl,bbox_mAP,bbox_mAP_50,bbox_mAP_75,"
              "bbox_mAP_s,bbox_mAP_m,bbox_mAP_l\n",
              f->csv);
    return os_flush(f->csv, csv) ? CMD_OK : failed(csv, "it cannot be written");
}

int run_begin(run_folder *f, const run_facts *facts) {
    int code = f->fresh ? begin(f, facts) : go_on(f, facts->plan);
    if (code == CMD_OK) code = write_settings(f, facts->options);
    if (code == CMD_OK) code = open_logs(f, facts);
    return code;
}

/* ---- writing the logs ------------------------------------------------------------------------ */

static double rounded(double value, double unit) {
    return floor(value * unit + 0.5) / unit;
}

int run_log_step(run_folder *f, const gfl_step_report *s, double seconds_left) {
    const char *path = run_file(f, "train.jsonl");
    gfl_json_writer json = json_to(f->log);
    gfl_json_object(&json, NULL);
    gfl_json_integer(&json, "epoch", s->epoch + 1);
    gfl_json_integer(&json, "iter", s->step);
    gfl_json_number(&json, "lr", s->lr);
    gfl_json_number(&json, "loss", s->loss);
    gfl_json_number(&json, "loss_cls", s->loss_cls);
    gfl_json_number(&json, "loss_bbox", s->loss_bbox);
    gfl_json_number(&json, "loss_dfl", s->loss_dfl);
    gfl_json_number(&json, "grad_norm", s->grad_norm);
    gfl_json_number(&json, "time", rounded(s->seconds, 1e4));
    gfl_json_number(&json, "data_time", rounded(s->data_seconds, 1e4));
    gfl_json_integer(&json, "memory", os_peak_megabytes());
    gfl_json_number(&json, "eta", rounded(seconds_left, 1));
    gfl_json_end(&json);
    gfl_json_line(&json);
    f->sums[0] += s->loss_cls;
    f->sums[1] += s->loss_bbox;
    f->sums[2] += s->loss_dfl;
    f->n_sums++;
    f->rate = s->lr;
    f->unsaved = true;
    return os_flush(f->log, path) ? CMD_OK : failed(path, "it cannot be written");
}

static int log_evaluation(const run_folder *f, const gfl_evaluator *evaluator,
                          const gfl_eval_result *e, const gfl_dataset *val, int epoch,
                          int64_t step) {
    const char *path = run_file(f, "train.jsonl");
    gfl_json_writer json = json_to(f->log);
    gfl_json_object(&json, NULL);
    gfl_json_integer(&json, "epoch", epoch);
    gfl_json_integer(&json, "iter", step);
    if (f->best_epoch == epoch) gfl_json_text(&json, "best", f->best_file);
    write_json_result(&json, "eval", evaluator, e, val);
    gfl_json_end(&json);
    gfl_json_line(&json);
    return os_flush(f->log, path) ? CMD_OK : failed(path, "it cannot be written");
}

static int log_result(const run_folder *f, const gfl_eval_result *e, int epoch, int64_t step) {
    const char *path = run_file(f, "results.csv");
    const double n = f->n_sums; /* none: someone took them out of train.jsonl */
    const double cls = f->sums[0] / n, bbox = f->sums[1] / n, dfl = f->sums[2] / n;
    fprintf(f->csv, "%d,%lld,%.8g,%.6g,%.6g,%.6g,%.6g,%.10g,%.10g,%.10g,%.10g,%.10g,%.10g\n", epoch,
            (long long)step, f->rate, cls + bbox + dfl, cls, bbox, dfl, e->ap, e->ap50, e->ap75,
            e->ap_small, e->ap_medium, e->ap_large);
    return os_flush(f->csv, path) ? CMD_OK : failed(path, "it cannot be written");
}

int run_log_evaluation(run_folder *f, gfl_context *context, const gfl_model *model,
                       const gfl_evaluator *evaluator, const gfl_eval_result *e,
                       const gfl_dataset *val, int epoch, int64_t step) {
    const char *best = run_file(f, best_name);
    if (as_logged(e->ap) > f->best) {
        gfl_status status = gfl_model_save(model, best);
        if (status != GFL_OK) return report(context, status, "saving");
        fingerprint(best, f->best_file);
        f->best = as_logged(e->ap);
        f->best_epoch = epoch;
    }
    int code = log_evaluation(f, evaluator, e, val, epoch, step);
    if (code == CMD_OK) code = log_result(f, e, epoch, step);
    if (code != CMD_OK) return code;
    f->evaluated = epoch;
    f->owed = false;
    talk("epoch %d: bbox_mAP %.4f%s", epoch, e->ap,
         f->best_epoch == epoch ? ", the best so far" : "");
    return CMD_OK;
}

void run_end_epoch(run_folder *f) {
    memset(f->sums, 0, sizeof f->sums);
    f->n_sums = 0;
}
