#!/usr/bin/env python3
"""compare_gpu.py - whole networks on a GPU beside PyTorch.

    compare_gpu.py PATH_OF_BENCH_LAYERS [--models r50 r101 ...] [--batches 1 16]
                   [--size 1344x800] [--turns 7] [--runs 20] [--no-compile] [--device cuda]

The networks of bench/compare_torch.py, batch norms folded, in bfloat16: gfl, PyTorch eager
(channels last) and torch.compile(mode="max-autotune"), whose graphs are CUDA graphs.  All sides
take turns, so that whatever disturbs the GPU disturbs them alike; a turn is the median of --runs
runs a side, and the medians over the turns are printed, in milliseconds a batch.  Inputs are
random.  "detect" is gfl_detect, from pixels of the host to boxes of the host; with random weights
nothing is above the threshold, so that suppression has nothing to do.

torch's deform_conv2d has no bfloat16: deformable layers run in float16.
"""
import argparse
import os
import statistics
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
import compare_torch as plain
import torch


class HalfDeformConv(torch.nn.Module):
    def __init__(self, conv):
        super().__init__()
        self.inner = conv.half()

    def forward(self, x):
        return self.inner(x.half()).to(x.dtype)


def halve_deformables(module):
    for name, child in list(module.named_children()):
        if isinstance(child, plain.DeformConv):
            setattr(module, name, HalfDeformConv(child))
        else:
            halve_deformables(child)


class Gfl:
    """bench/gpu/layers.cc, serving."""

    def __init__(self, path, model, batch, width, height, narrow):
        command = [path, "serve=1", f"model={model}", f"batch={batch}", f"width={width}",
                   f"height={height}", "precision=bf16"]
        if narrow:
            command += ["narrow=1", "copy=1"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        text=True)
        if self.process.stdout.readline().strip() != "ready":
            raise SystemExit(f"compare_gpu.py: {' '.join(command)} did not start")

    def run(self, runs):
        self.process.stdin.write(f"{runs}\n")
        self.process.stdin.flush()
        return [float(ms) for ms in self.process.stdout.readline().split()]

    def close(self):
        self.process.stdin.close()
        self.process.wait()


class Torch:
    def __init__(self, network, x, device):
        self.network, self.x, self.device = network, x, device
        with torch.inference_mode():
            for _ in range(3):
                network(x)

    def run(self, runs):
        times = []
        with torch.inference_mode():
            for _ in range(runs):
                if self.device == "cuda":
                    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
                    start.record()
                    self.network(self.x)
                    end.record()
                    end.synchronize()
                    times.append(start.elapsed_time(end))
                else:
                    begin = time.perf_counter()
                    self.network(self.x)
                    times.append((time.perf_counter() - begin) * 1e3)
        return [statistics.median(times)]


def network_of(name, device):
    network = plain.Network(name).eval()
    plain.fold(network.body)
    network = network.to(device).to(torch.bfloat16).to(memory_format=torch.channels_last)
    halve_deformables(network)
    return network


def compare(options, name, batch):
    width, height = (int(side) for side in options.size.split("x"))
    x = torch.randn(batch, 3, -(-height // 32) * 32, -(-width // 32) * 32)
    x = x.to(options.device).to(torch.bfloat16).to(memory_format=torch.channels_last)
    sides = {"gfl": Gfl(options.layers, name, batch, width, height, options.narrow)}
    try:
        sides["eager"] = Torch(network_of(name, options.device), x, options.device)
        if options.compile:
            try:
                compiled = torch.compile(network_of(name, options.device), mode="max-autotune")
                sides["compile"] = Torch(compiled, x, options.device)
            except Exception as error:  # a compiler's failure says nothing of the others
                print(f"torch.compile of {name}: {error}", file=sys.stderr)
        turns = {side: [] for side in sides}
        for _ in range(options.turns):
            for side, runner in sides.items():
                turns[side].append(runner.run(options.runs))
    finally:
        sides["gfl"].close()
    ms = {side: [statistics.median(column) for column in zip(*rows)]
          for side, rows in turns.items()}
    network, detect = ms["gfl"]
    eager, best = ms["eager"][0], ms.get("compile", [float("nan")])[0]
    print(f"| {name} | {batch} | {network:.3f} | {detect:.3f} | {eager:.3f} | {best:.3f} | "
          f"{eager / network:.2f} | {best / network:.2f} |", flush=True)
    print(f"# {name} {batch}: every turn: {turns}", file=sys.stderr, flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("layers")
    parser.add_argument("--models", nargs="+",
                        default=["r50", "r101", "r101-dcnv2", "x101-32x4d", "x101-32x8d"])
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 16])
    parser.add_argument("--size", default="1344x800")
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--no-compile", dest="compile", action="store_false")
    parser.add_argument("--device", default="cuda", help="cpu: only to see that this program runs")
    parser.add_argument("--narrow", action="store_true", help="gfl's side small, for the same")
    options = parser.parse_args()
    device = torch.cuda.get_device_name() if options.device == "cuda" else "the CPU"
    print(f"{device}, PyTorch {torch.__version__}, bf16, {options.size}, medians of {options.turns} "
          f"turns of {options.runs} runs, ms a batch\n")
    print("| model | batch | gfl network | gfl detect | eager | compile | eager / gfl | "
          "compile / gfl |\n| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for batch in options.batches:
        for name in options.models:
            compare(options, name, batch)


if __name__ == "__main__":
    main()
