"""Whole networks beside PyTorch, interleaved in one run.

    python3 bench/compare_torch.py build/release/bench_network [rounds]

Needs torch and torchvision (pip); nothing else of gfl does.  PyTorch runs the same network in its favour:
batch norm folded for inference, and a training step whose loss is one line instead of QFL, DFL, GIoU and ATSS.
On machines with AVX-512, oneDNN is held to AVX2, which is what gfl's kernels use by default in comparison.
"""
import os
import statistics
import subprocess
import sys
import time

os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX2")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
THREADS = 2
os.environ["OMP_NUM_THREADS"] = str(THREADS)

import torch
import torchvision
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

torch.set_num_threads(THREADS)


class GFL(nn.Module):
    def __init__(self, depth, classes=80):
        super().__init__()
        self.body = getattr(torchvision.models, f"resnet{depth}")(weights=None)
        widths = [128, 256, 512] if depth < 50 else [512, 1024, 2048]
        self.lateral = nn.ModuleList(nn.Conv2d(w, 256, 1) for w in widths)
        self.out = nn.ModuleList(nn.Conv2d(256, 256, 3, 2 if i > 2 else 1, 1) for i in range(5))
        self.cls, self.reg = self.tower(), self.tower()
        self.gfl_cls = nn.Conv2d(256, classes, 3, 1, 1)
        self.gfl_reg = nn.Conv2d(256, 68, 3, 1, 1)
        self.scales = nn.ParameterList(nn.Parameter(torch.ones(())) for _ in range(5))

    @staticmethod
    def tower():
        blocks = []
        for _ in range(4):
            blocks += [nn.Conv2d(256, 256, 3, 1, 1, bias=False), nn.GroupNorm(32, 256), nn.ReLU(True)]
        return nn.Sequential(*blocks)

    def forward(self, x):
        b = self.body
        x = b.maxpool(b.relu(b.bn1(b.conv1(x))))
        c2 = b.layer1(x)
        c3 = b.layer2(c2)
        c4 = b.layer3(c3)
        c5 = b.layer4(c4)
        l3, l4, l5 = [f(c) for f, c in zip(self.lateral, (c3, c4, c5))]
        up = nn.functional.interpolate
        l4 = l4 + up(l5, size=l4.shape[-2:])
        l3 = l3 + up(l4, size=l3.shape[-2:])
        p = [self.out[0](l3), self.out[1](l4), self.out[2](l5)]
        p.append(self.out[3](p[-1]))
        p.append(self.out[4](p[-1]))
        return [(self.gfl_cls(self.cls(f)), self.gfl_reg(self.reg(f)) * s) for f, s in zip(p, self.scales)]


def fold(module):
    """Fold every batch norm into the convolution before it."""
    for block in module.modules():
        for conv, bn in (("conv1", "bn1"), ("conv2", "bn2"), ("conv3", "bn3")):
            if hasattr(block, conv) and isinstance(getattr(block, bn, None), nn.BatchNorm2d):
                setattr(block, conv, fuse_conv_bn_eval(getattr(block, conv), getattr(block, bn)))
                setattr(block, bn, nn.Identity())
        down = getattr(block, "downsample", None)
        if down is not None:
            block.downsample = nn.Sequential(fuse_conv_bn_eval(down[0], down[1]))
    return module


def torch_forward(depth, width, height, batch):
    net = fold(GFL(depth).eval())
    x = torch.rand(batch, 3, height, width)

    def run():
        with torch.inference_mode():
            net(x)
    return run


def torch_train(depth, width, height, batch):
    net = GFL(depth)
    for m in net.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.eval()
    for part in (net.body.conv1, net.body.bn1, net.body.layer1):
        for p in part.parameters():
            p.requires_grad_(False)
    sgd = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], 1e-6, 0.9, weight_decay=1e-4)
    x = torch.rand(batch, 3, height, width)

    def run():
        sgd.zero_grad()
        sum(c.square().mean() + r.square().mean() for c, r in net(x)).backward()
        sgd.step()
    return run


def compare(binary, what, depth, width, height, batch, rounds):
    run = (torch_forward if what == "detect" else torch_train)(depth, width, height, (batch))
    run()
    ours, theirs = [], []
    for _ in range(rounds):
        out = subprocess.run([binary, what, f"r{depth}", str(width), str(height), str(batch), str(THREADS), "2"],
                             check=True, capture_output=True, text=True).stdout.split()
        ours += map(float, out)
        for _ in range(2):
            start = time.perf_counter()
            run()
            theirs.append(time.perf_counter() - start)
    a, b = statistics.median(ours), statistics.median(theirs)
    print(f"{what:7} r{depth} {width}x{height} batch {batch}, {THREADS} threads: gfl {a:.3f} s (best {min(ours):.3f}), "
          f"PyTorch {torch.__version__} {b:.3f} s (best {min(theirs):.3f}), PyTorch / gfl = {b / a:.2f}", flush=True)


if __name__ == "__main__":
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 5
    compare(sys.argv[1], "detect", 50, 640, 640, 1, rounds)
    compare(sys.argv[1], "train", 18, 320, 240, 4, rounds)
