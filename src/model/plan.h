/* plan.h - a network compiled for an input size: a flat list of steps over maps */
#pragma once

/* A map of the plan.  Views (levels of a pyramid) share the memory of their parent. */
typedef struct gfli_slot {
    gfli_map map;     /* data is NULL until the plan is bound to memory */
    int parent;       /* slot whose level this is, or -1 */
    int level;        /* of the parent */
    int held;         /* the slot that holds the network's i-th map, this being i; -1: none yet */
    const char *name; /* "C3", "P5", "cls_score" and so on, or NULL */
} gfli_slot;

typedef struct gfli_plan {
    int batch, height, width; /* padded input */
    bool training;            /* every map has a place of its own; else, while it is needed */
    gfli_slot *maps;
    int n_slots;
    gfli_step *steps;
    int n_steps;
    gfli_piece *pieces; /* of each slot, in bytes and moments, which are numbers of steps; those of
                         * views are empty.  A backward pass adds those of the gradients. */
    int n_pieces;
    size_t slot_capacity, step_capacity, piece_capacity;
    int input, cls, reg;    /* slots: network input, class logits, scaled box logits (pyramids) */
    size_t workspace_bytes; /* all pieces */
    size_t stats_floats;
    size_t scratch_bytes;
    int64_t macs;
} gfli_plan;

/* The shapes of input that were used last: entry i is that of its user's i-th plan. */
enum { GFLI_PLANS = 12 };
typedef struct gfli_recent {
    int batch[GFLI_PLANS], height[GFLI_PLANS], width[GFLI_PLANS]; /* batch 0: none */
    uint64_t used[GFLI_PLANS], clock;
} gfli_recent;

/* The entry of a shape; *known false: it was that of the shape that was not used for longest, and
 * its plan is to be made anew, or else forgotten. */
int gfli_recent_find(gfli_recent *recent, int batch, int height, int width, bool *known);
void gfli_recent_forget(gfli_recent *recent, int entry);
