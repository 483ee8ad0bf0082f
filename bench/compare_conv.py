#!/usr/bin/env python3
"""compare_conv.py - the lines of bench/conv beside PyTorch's time for the same convolution.

    compare_conv.py PATH_OF_CONV [threads] [seconds per line] [part of a name] [avx2 | portable]

PyTorch runs as the networks do (NCHW), with oneDNN limited to AVX2 unless ONEDNN_MAX_CPU_ISA says
otherwise.  Each shape is measured in turn by both, so that a busy machine disturbs both alike.
"""
import os
import subprocess
import sys
import time

os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX2")
import torch
import torch.nn.functional as F
from torchvision.ops import deform_conv2d


def shapes(program):
    """name, in, out, kernel, stride, pad, groups, n, h, w, train, deform - as conv list prints them"""
    text = subprocess.run([program, "list"], capture_output=True, text=True, check=True).stdout
    for line in text.splitlines():
        name, *numbers = line.split("\t")
        yield name, *(int(v) for v in numbers)


def best(fn, seconds):
    fn()
    start, least = time.perf_counter(), 1e9
    while time.perf_counter() - start < seconds:
        before = time.perf_counter()
        fn()
        least = min(least, time.perf_counter() - before)
    return least * 1e3


def main():
    program = sys.argv[1]
    threads = sys.argv[2] if len(sys.argv) > 2 else "2"
    seconds = sys.argv[3] if len(sys.argv) > 3 else "0.3"
    part = sys.argv[4] if len(sys.argv) > 4 else ""
    torch.set_num_threads(int(threads))
    print(f"{'ms':24} {'forward':>9} {'torch':>9} {'ratio':>6}   "
          f"{'gradients':>9} {'torch':>9} {'ratio':>6}")
    sums = [0.0] * 4
    for name, c, o, k, stride, pad, groups, n, h, w, train, deform in shapes(program):
        if part not in name:
            continue
        line = subprocess.run([program, threads, seconds, name, *sys.argv[5:]], capture_output=True, text=True,
                              check=True).stdout.splitlines()[1]
        ours = [float(v) for v in line[24:].split()]
        x, weight = torch.randn(n, c, h, w), torch.randn(o, c // groups, k, k)
        bias = torch.randn(o)
        size = [(v + 2 * pad - k) // stride + 1 for v in (h, w)]
        offset, mask = torch.randn(n, 18, *size), torch.rand(n, 9, *size) if deform == 2 else None

        def convolve(x, weight, bias):
            if deform:
                return deform_conv2d(x, offset, weight, bias, stride, pad, 1, mask)
            return F.conv2d(x, weight, bias, stride, pad, 1, groups)

        with torch.inference_mode():
            forward = best(lambda: F.relu_(convolve(x, weight, bias)), float(seconds))
        sums[0] += ours[1]
        sums[1] += forward
        text = f"{name:24} {ours[1]:9.3f} {forward:9.3f} {ours[1] / forward:6.2f}"
        if train:
            leaves = [t.requires_grad_() for t in (x, weight, bias, offset, mask)[:5 if deform else 3]
                      if t is not None]
            y = convolve(x, weight, bias)
            dy = torch.randn_like(y)
            grad = best(lambda: torch.autograd.grad(y, leaves, dy, retain_graph=True),
                        float(seconds))
            if deform:
                own = ours[0] * 2e3 / ours[3] + ours[4]
            else:
                own = ours[0] * 1e3 * (1 / ours[3] + 1 / ours[4]) + ours[5]
            sums[2] += own
            sums[3] += grad
            text += f"   {own:9.3f} {grad:9.3f} {own / grad:6.2f}"
        print(text, flush=True)
    print(f"{'sum':24} {sums[0]:9.3f} {sums[1]:9.3f} {sums[0] / sums[1]:6.2f}"
          f"   {sums[2]:9.3f} {sums[3]:9.3f} {sums[2] / max(sums[3], 1e-9):6.2f}")


main()
