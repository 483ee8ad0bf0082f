/* cmd_run.c - the folder of a training run: its weights, state and logs */
#define _POSIX_C_SOURCE 200809L
#include "cmd_run.h"
#include "cmd_os.h"
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

const char *run_file(const run_folder *f, const char *name) {
    static char paths[4][4400];
    static int next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%.4096s/%s", f->path, name);
    return path;
}

/* ---- weights and state ----------------------------------------------------------------------- */

/* Weights and state belong together: both are written under other names and renamed at the end,
 * weights first, so that finish_renames can always restore a pair. */
static bool finish_renames(const run_folder *f) {
    const bool weights = os_exists(run_file(f, "next.safetensors"));
    const bool state = os_exists(run_file(f, "next.state.safetensors"));
    if (weights && !state) return os_remove(run_file(f, "next.safetensors"));
    bool good = true;
    if (weights) good = os_rename(run_file(f, "next.safetensors"), run_file(f, "last.safetensors"));
    if (good && state)
        good =
            os_rename(run_file(f, "next.state.safetensors"), run_file(f, "last.state.safetensors"));
    return good;
}

int run_save(run_folder *f, gfl_context *context, const gfl_model *model,
             const gfl_trainer *trainer) {
    if (!f->unsaved) return CMD_OK;
    gfl_status status = gfl_model_save(model, run_file(f, "next.safetensors"));
    if (status == GFL_OK)
        status = gfl_trainer_save_state(trainer, run_file(f, "next.state.safetensors"));
    if (status != GFL_OK) {
        int code = report(context, status, "saving");
        os_remove(run_file(f, "next.state.safetensors"));
        os_remove(run_file(f, "next.safetensors"));
        return code;
    }
    if (!finish_renames(f)) {
        talk("gfl: %s: renaming failed: %s", run_file(f, "last.safetensors"), strerror(errno));
        return CMD_FAILED;
    }
    f->unsaved = false;
    return CMD_OK;
}

int run_open(run_folder *f, bool resume, bool overwrite) {
    char failed[4096];
    if (!os_make_folder(f->path, failed)) {
        talk("gfl: --out %s: %s: %s", f->path, failed, strerror(errno));
        return CMD_FAILED;
    }
    if (resume && !finish_renames(f)) {
        talk("gfl: %s: %s", f->path, strerror(errno));
        return CMD_FAILED;
    }
    const char *state = run_file(f, "last.state.safetensors");
    if (resume && !os_exists(state)) return usage_error("--resume: there is no %s", state);
    if (!resume && !overwrite && os_exists(state))
        return usage_error("--out %s holds a run: --resume to go on with it, another folder, or "
                           "--overwrite",
                           f->path);
    return CMD_OK;
}

/* ---- logs ------------------------------------------------------------------------------------ */

/* What results.csv of the run before says: best AP, last evaluated epoch. */
static void read_results(run_folder *f) {
    char line[1024];
    FILE *file = fopen(run_file(f, "results.csv"), "r");
    if (!file) return;
    while (fgets(line, sizeof line, file)) {
        int epoch;
        double ap;
        if (sscanf(line, "%d,%*d,%*f,%*f,%*f,%*f,%*f,%lf", &epoch, &ap) != 2) continue;
        f->evaluated = epoch;
        if (ap > f->best) f->best = ap;
    }
    fclose(file);
}

/* The number after `key` in a line of JSON of ours, or -1. */
static double field(const char *line, const char *key) {
    const char *at = strstr(line, key);
    return at ? strtod(at + strlen(key), NULL) : -1.0;
}

/* Takes what came after the saved state out of train.jsonl, and the losses of the epoch that goes
 * on into the sums. */
static bool restore_log(run_folder *f, const gfl_train_plan *plan) {
    const int64_t done = plan->n_done; /* a finished epoch may have yet to be evaluated */
    const int64_t first = done > 0 ? (done - 1) / plan->steps_per_epoch * plan->steps_per_epoch : 0;
    char *line = NULL;
    size_t room = 0;
    FILE *from = fopen(run_file(f, "train.jsonl"), "r"), *to = fopen(run_file(f, "train.tmp"), "w");
    bool good = to != NULL;
    while (good && from && getline(&line, &room, from) > 0) {
        const double step = field(line, "\"iter\": ");
        if (step > (double)done) continue;
        good = fputs(line, to) >= 0;
        if (step <= (double)first || !strstr(line, "\"loss_cls\"")) continue;
        f->sums[0] += field(line, "\"loss_cls\": ");
        f->sums[1] += field(line, "\"loss_bbox\": ");
        f->sums[2] += field(line, "\"loss_dfl\": ");
        f->n_sums++;
    }
    if (from) fclose(from);
    if (to && fclose(to) != 0) good = false;
    free(line);
    return good && os_rename(run_file(f, "train.tmp"), run_file(f, "train.jsonl"));
}

/* FNV-1a of a file's bytes: was it the same data? */
static uint64_t fingerprint(const char *path) {
    unsigned char bytes[16384];
    uint64_t hash = 0xcbf29ce484222325u;
    FILE *f = fopen(path, "rb");
    for (size_t n; f && (n = fread(bytes, 1, sizeof bytes, f)) > 0;)
        for (size_t i = 0; i < n; i++) hash = (hash ^ bytes[i]) * 0x100000001b3u;
    if (f) fclose(f);
    return hash;
}

/* The first line of train.jsonl, and one at each --resume. */
static void log_run(const run_folder *f, const run_facts *facts) {
    const gfl_train_plan *plan = facts->plan;
    gfl_json_writer json = json_to(f->log);
    char hash[20];
    snprintf(hash, sizeof hash, "%016llx", (unsigned long long)fingerprint(facts->data));
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

int run_open_logs(run_folder *f, bool resume, const run_facts *facts) {
    const char *mode = resume ? "a" : "w";
    f->best = -1; /* the AP of no box to find */
    if (resume) read_results(f);
    if (!resume || restore_log(f, facts->plan)) f->log = fopen(run_file(f, "train.jsonl"), mode);
    f->csv = fopen(run_file(f, "results.csv"), mode);
    if (!f->log || !f->csv || !opt_write(facts->options, run_file(f, "config.txt"))) {
        talk("gfl: --out %s: logs cannot be written: %s", f->path, strerror(errno));
        return CMD_FAILED;
    }
    log_run(f, facts);
    if (!resume)
        fputs("epoch,step,lr,loss,loss_cls,loss_bbox,loss_dfl,bbox_mAP,bbox_mAP_50,bbox_mAP_75,"
              "bbox_mAP_s,bbox_mAP_m,bbox_mAP_l\n",
              f->csv);
    fflush(f->csv);
    return fflush(f->log) ? CMD_FAILED : CMD_OK;
}

int run_close(run_folder *f) {
    int code = CMD_OK;
    if (f->log && fclose(f->log) != 0) code = CMD_FAILED;
    if (f->csv && fclose(f->csv) != 0) code = CMD_FAILED;
    return code;
}

static double rounded(double value, double unit) {
    return floor(value * unit + 0.5) / unit;
}

void run_log_step(run_folder *f, const gfl_step_report *s, double seconds_left) {
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
    fflush(f->log);
    f->sums[0] += s->loss_cls;
    f->sums[1] += s->loss_bbox;
    f->sums[2] += s->loss_dfl;
    f->n_sums++;
}

int run_log_evaluation(run_folder *f, gfl_context *context, const gfl_model *model,
                       const gfl_evaluator *evaluator, const gfl_eval_result *e,
                       const gfl_dataset *val, const gfl_step_report *at) {
    const double n = f->n_sums ? f->n_sums : 1;
    const double cls = f->sums[0] / n, bbox = f->sums[1] / n, dfl = f->sums[2] / n;
    const int epoch = at->epoch + 1;
    fprintf(f->csv, "%d,%lld,%.8g,%.6g,%.6g,%.6g,%.6g,%.10g,%.10g,%.10g,%.10g,%.10g,%.10g\n", epoch,
            (long long)at->step, at->lr, cls + bbox + dfl, cls, bbox, dfl, e->ap, e->ap50, e->ap75,
            e->ap_small, e->ap_medium, e->ap_large);
    fflush(f->csv);
    gfl_json_writer json = json_to(f->log);
    gfl_json_object(&json, NULL);
    gfl_json_integer(&json, "epoch", epoch);
    gfl_json_integer(&json, "iter", at->step);
    write_json_result(&json, "eval", evaluator, e, val);
    gfl_json_end(&json);
    gfl_json_line(&json);
    fflush(f->log);
    f->evaluated = epoch;
    talk("epoch %d: bbox_mAP %.4f%s", epoch, e->ap, e->ap > f->best ? ", the best so far" : "");
    if (!(e->ap > f->best)) return CMD_OK;
    gfl_status status = gfl_model_save(model, run_file(f, "best_bbox_mAP.safetensors"));
    if (status != GFL_OK) return report(context, status, "saving");
    f->best = e->ap;
    return CMD_OK;
}

void run_end_epoch(run_folder *f) {
    memset(f->sums, 0, sizeof f->sums);
    f->n_sums = 0;
}
