#!/usr/bin/env python3
"""compare_training.py - the curves of training runs beside the official ones.

    compare_training.py bccd_r18_training.json RUN [RUN ...]

The first is fixtures/reference's file, a RUN a folder that `gfl train` wrote (the command is in
bench/results).  For each loss and epoch: the mean over the runs, over the official seeds, and how
far apart they are.  Only Python's own library is needed.
"""
import json
import sys

# mmdetection's log gives the mean of the last 50 steps (default_runtime.py: window_size=50).
WINDOW = 50


def ours(folder):
    steps, scores = {}, {}
    with open(folder + "/train.jsonl") as f:
        for entry in map(json.loads, f):
            if "eval" in entry:
                scores[entry["epoch"]] = entry["eval"]["bbox_mAP"]
            elif "loss_bbox" in entry:
                steps[entry["iter"]] = entry
    return steps, scores


def mean(values):
    return sum(values) / len(values)


def main():
    with open(sys.argv[1]) as f:
        official = json.load(f)
    runs = [ours(folder) for folder in sys.argv[2:]]
    per_epoch = runs[0][0][max(runs[0][0])]["iter"] // max(e["epoch"] for e in runs[0][0].values())
    epochs = sorted({(entry["step"] - 1) // per_epoch for entry in official[0]["losses"]})
    print("| loss | epoch | gfl | official | difference |\n| --- | --- | --- | --- | --- |")
    for key in ("loss_bbox", "loss_dfl", "loss_cls"):
        for epoch in epochs:
            theirs, mine = [], []
            for i, entry in enumerate(official[0]["losses"]):
                last = entry["step"]
                if (last - 1) // per_epoch != epoch:
                    continue
                theirs += [seed["losses"][i][key] for seed in official]
                window = range(max(1, last - WINDOW + 1), last + 1)
                mine += [mean([steps[t][key] for t in window]) for steps, _ in runs]
            a, b = mean(mine), mean(theirs)
            print(f"| {key} | {epoch + 1} | {a:.3f} | {b:.3f} | {100 * (a / b - 1):+.1f}% |")
    for folder, (_, scores) in zip(sys.argv[2:], runs):
        print(folder, "AP:", " ".join(f"{scores[e]:.3f}" for e in sorted(scores)))


if __name__ == "__main__":
    main()
