/* plan.h - a network compiled for an input size: a flat list of steps over maps */
#pragma once

/* A map of the plan.  Views (levels of a pyramid) share the memory of their parent. */
typedef struct gfli_slot {
    gfli_map map;    /* data is NULL until the plan is bound to memory */
    int parent;      /* slot whose level this is, or -1 */
    int level;       /* of the parent */
    size_t offset;   /* floats from the start of the workspace (parents only) */
    size_t size;     /* floats of that; 0 of a view */
    int held;        /* the slot that holds the network's i-th map, this being i; -1: none yet */
    int placed;      /* while maps are placed: the slot that was placed as the i-th, this being i */
    int first, last; /* steps during which the contents matter */
    const char *name; /* "C3", "P5", "cls_score" and so on, or NULL */
} gfli_slot;

typedef struct gfli_plan {
    int batch, height, width; /* padded input */
    bool training;            /* keeps every map; inference reuses memory by liveness */
    gfli_slot *maps;
    int n_slots;
    gfli_step *steps;
    int n_steps;
    size_t slot_capacity, step_capacity;
    int input, cls, reg;     /* slots: network input, class logits, scaled box logits (pyramids) */
    size_t workspace_floats; /* all slots */
    size_t stats_floats;
    size_t scratch_bytes;
    int64_t macs;
} gfli_plan;
