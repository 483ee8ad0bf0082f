/* cmd_run.h - the folder of a training run: its weights, state and logs */
#ifndef GFL_CMD_RUN_H
#define GFL_CMD_RUN_H

#include "cmd.h"
#include "cmd_os.h"

/* What stands in the folder, and what a process that ends at any moment leaves to the next:
 *
 *   config.txt                    every option; held by the process that trains, and empty where it
 *                                 ended before it began
 *   last.safetensors              weights, and
 *   last.state.safetensors          what going on with them needs
 *   previous.safetensors          the pair that was saved before that one
 *   previous.state.safetensors
 *   next.safetensors              only while a pair is saved: it is whole once the second is there
 *   next.state.safetensors
 *   best_bbox_mAP.safetensors     written before the lines that name it
 *   train.jsonl                   a line per step and per evaluation; never behind the state
 *   results.csv                   a line per evaluation, written after all that it tells
 *
 * So a run that goes on cuts what is later than last.* from the logs, and does that again. */
typedef struct run_folder {
    const char *path;
    os_lock lock;
    bool fresh; /* the run begins: with --resume, too, where nothing was saved yet */
    FILE *log, *csv;
    int64_t saved;      /* the step of last.*, or -1 */
    bool unsaved;       /* there are steps since then */
    int evaluated;      /* the last epoch that is in results.csv */
    double best;        /* AP of the best weights so far, or -1 */
    int best_epoch;     /* 0: none yet */
    char best_file[20]; /* fingerprint of their file; "": a run of version 0.1.0 does not tell */
    bool owed;          /* an evaluation had written its weights but not its lines */
    double sums[3];     /* losses of this epoch's steps */
    int n_sums;
    double rate; /* of the last step */
} run_folder;

/* What the first line of train.jsonl tells about a run. */
typedef struct run_facts {
    const opt *options;
    bool *overwrite; /* among them */
    const char *data;
    int seed, threads;
    const gfl_trainer_info *plan;
} run_facts;

/* Do these weights and this state go together, and with the data and the options? */
typedef gfl_status (*run_probe)(void *user, const char *weights, const char *state);

/* The path of a file in the folder; the last eight stay valid. */
const char *run_file(const run_folder *f, const char *name);

/* Make the folder and hold it; sets fresh.  An exit code. */
int run_open(run_folder *f, bool resume, bool overwrite);
/* Of a run that goes on: let the newest whole pair be last.*.  An exit code. */
int run_settle(run_folder *f, gfl_context *context, run_probe probe, void *user);
/* Write the settings and open the logs, whose lines after the step plan.n_done are cut; before
 * that, nothing of an earlier run is touched.  An exit code. */
int run_begin(run_folder *f, const run_facts *facts);
/* Give it back; what was never begun leaves nothing. */
int run_close(run_folder *f);

/* Weights and state of this step, where there are steps since the last save; an exit code. */
int run_save(run_folder *f, gfl_context *context, const gfl_model *model,
             const gfl_trainer *trainer);
/* Say where the last good weights are. */
void run_say_saved(const run_folder *f);

int run_log_step(run_folder *f, const gfl_step_report *s, double seconds_left);
/* An evaluation of the model after an epoch, counted from 1: the weights where they are the best so
 * far, then the lines. */
int run_log_evaluation(run_folder *f, gfl_context *context, const gfl_model *model,
                       const gfl_evaluator *evaluator, const gfl_eval_result *e,
                       const gfl_dataset *val, int epoch, int64_t step);
/* Begin the sums of another epoch. */
void run_end_epoch(run_folder *f);

#endif
