/* cmd_run.h - the folder of a training run: its weights, state and logs */
#ifndef GFL_CMD_RUN_H
#define GFL_CMD_RUN_H

#include "cmd.h"

typedef struct run_folder {
    const char *path;
    FILE *log, *csv;
    double best;   /* AP of the best weights so far, or -1 */
    int evaluated; /* the last epoch whose evaluation is in results.csv */
    bool unsaved;  /* there are steps since the last save */
    double sums[3];
    int n_sums;
} run_folder;

/* What the first line of train.jsonl tells about a run. */
typedef struct run_facts {
    const opt *options;
    const char *data;
    int seed, threads;
    const gfl_train_plan *plan;
} run_facts;

/* The path of a file in the folder; the last four stay valid. */
const char *run_file(const run_folder *f, const char *name);

/* Make the folder fit for a run that begins or goes on; an exit code. */
int run_open(run_folder *f, bool resume, bool overwrite);
/* Open the logs, whose lines of steps after plan.n_done are taken out, and write the settings. */
int run_open_logs(run_folder *f, bool resume, const run_facts *facts);
int run_close(run_folder *f);

/* Weights and state of this step, where there are steps since the last save; an exit code. */
int run_save(run_folder *f, gfl_context *context, const gfl_model *model,
             const gfl_trainer *trainer);

void run_log_step(run_folder *f, const gfl_step_report *s, double seconds_left);
/* An evaluation of the model: rows in the logs, and the weights where they are the best so far. */
int run_log_evaluation(run_folder *f, gfl_context *context, const gfl_model *model,
                       const gfl_evaluator *evaluator, const gfl_eval_result *e,
                       const gfl_dataset *val, const gfl_step_report *at);
/* Begin the sums of another epoch. */
void run_end_epoch(run_folder *f);

#endif
