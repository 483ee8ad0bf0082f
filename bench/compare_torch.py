#!/usr/bin/env python3
"""compare_torch.py - whole networks beside PyTorch: detection and training steps.

    compare_torch.py PATH_OF_BENCH_NETWORK [threads] [turns] [part of a name]

The same networks, sizes and numbers of boxes as bench/network.c.  All sides take turns, so that a
busy machine disturbs them alike: a turn is the lesser of two runs a side, and medians over the
turns are printed; gfl runs with the best kernels of the machine, and with those for AVX2.  PyTorch
runs on the CPU in NCHW with oneDNN limited to AVX2 unless ONEDNN_MAX_CPU_ISA says otherwise; for
detection its batch norms are folded into the convolutions.
"""
import os
import statistics
import subprocess
import sys
import time

os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX2")
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_conv_bn_weights
import torchvision
from torchvision.ops import deform_conv2d

STRIDES = [8, 16, 32, 64, 128]
N_CLASSES, N_BINS = 80, 17


class DeformConv(nn.Module):
    """Deformable convolution, version 2."""

    def __init__(self, conv):
        super().__init__()
        self.weight, self.bias, self.stride = conv.weight, None, conv.stride
        self.conv_offset = nn.Conv2d(conv.in_channels, 27, 3, conv.stride, 1)

    def forward(self, x):
        offset = self.conv_offset(x)
        return deform_conv2d(x, offset[:, :18], self.weight, self.bias, self.stride, (1, 1), (1, 1),
                             offset[:, 18:].sigmoid())


def backbone(name):
    """r18, r50, r101, x101-32x4d, x101-32x8d, and -dcnv2: deformable from C3 on."""
    kind = name.split("-")[0]
    if kind[0] == "x":
        body = torchvision.models.resnet.ResNet(torchvision.models.resnet.Bottleneck,
                                                [3, 4, 23, 3], groups=32,
                                                width_per_group=8 if "32x8d" in name else 4)
    else:
        body = getattr(torchvision.models, kind.replace("r", "resnet"))(weights=None)
    del body.fc
    for layer in (body.layer2, body.layer3, body.layer4):
        for block in layer if name.endswith("-dcnv2") else ():
            block.conv2 = DeformConv(block.conv2)
    return body


class Network(nn.Module):
    def __init__(self, name):
        super().__init__()
        self.body = backbone(name)
        widths = [128, 256, 512] if name == "r18" else [512, 1024, 2048]
        self.lateral = nn.ModuleList(nn.Conv2d(w, 256, 1) for w in widths)
        self.smooth = nn.ModuleList(nn.Conv2d(256, 256, 3, 1, 1) for _ in widths)
        self.extra = nn.ModuleList(nn.Conv2d(256, 256, 3, 2, 1) for _ in range(2))
        self.cls_tower, self.reg_tower = self.tower(), self.tower()
        self.cls = nn.Conv2d(256, N_CLASSES, 3, 1, 1)
        self.reg = nn.Conv2d(256, 4 * N_BINS, 3, 1, 1)
        self.scale = nn.Parameter(torch.ones(5))

    @staticmethod
    def tower():
        layers = []
        for _ in range(4):
            layers += [nn.Conv2d(256, 256, 3, 1, 1, bias=False), nn.GroupNorm(32, 256),
                       nn.ReLU(inplace=True)]
        return nn.Sequential(*layers)

    def forward(self, x):
        b = self.body
        x = b.layer1(b.maxpool(b.relu(b.bn1(b.conv1(x)))))
        levels = []
        for layer in (b.layer2, b.layer3, b.layer4):
            x = layer(x)
            levels.append(x)
        maps = [lateral(level) for lateral, level in zip(self.lateral, levels)]
        for i in (1, 0):
            maps[i] = maps[i] + F.interpolate(maps[i + 1], size=maps[i].shape[2:], mode="nearest")
        maps = [smooth(m) for smooth, m in zip(self.smooth, maps)]
        for extra in self.extra:
            maps.append(extra(maps[-1]))
        cls = [self.cls(self.cls_tower(m)) for m in maps]
        reg = [self.reg(self.reg_tower(m)) * s for m, s in zip(maps, self.scale)]
        return cls, reg


def fold(module):
    """Batch norms into the convolutions before them."""
    for a, b in (("conv1", "bn1"), ("conv2", "bn2"), ("conv3", "bn3")):
        if not hasattr(module, b):
            continue
        conv, bn = getattr(module, a), getattr(module, b)
        if isinstance(conv, DeformConv):
            conv.weight, conv.bias = fuse_conv_bn_weights(
                conv.weight, None, bn.running_mean, bn.running_var, bn.eps, bn.weight, bn.bias)
        else:
            setattr(module, a, fuse_conv_bn_eval(conv, bn))
        setattr(module, b, nn.Identity())
    down = getattr(module, "downsample", None)
    if down is not None:
        module.downsample = nn.Sequential(fuse_conv_bn_eval(down[0], down[1]))
    for child in list(module.children()):
        fold(child)


def cells(shapes):
    """Centres and strides of all cells, and how many a level has."""
    centres, strides = [], []
    for (h, w), s in zip(shapes, STRIDES):
        y, x = torch.meshgrid(torch.arange(h) * s, torch.arange(w) * s, indexing="ij")
        centres.append(torch.stack([x, y], -1).reshape(-1, 2).float())
        strides.append(torch.full((h * w,), float(s)))
    return torch.cat(centres), torch.cat(strides), [h * w for h, w in shapes]


def iou(a, b):
    lt, rb = torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., 2:], b[..., 2:])
    inter = (rb - lt).clamp(min=0).prod(-1)
    union = (a[..., 2:] - a[..., :2]).prod(-1) + (b[..., 2:] - b[..., :2]).prod(-1) - inter
    return inter / union.clamp(min=1e-6), union


def giou(a, b):
    overlap, union = iou(a, b)
    lt, rb = torch.minimum(a[..., :2], b[..., :2]), torch.maximum(a[..., 2:], b[..., 2:])
    hull = (rb - lt).prod(-1).clamp(min=1e-6)
    return overlap - (hull - union) / hull


def assign(centres, strides, counts, boxes):
    """ATSS: the box of each cell, or -1."""
    half = 4 * strides[:, None]
    anchors = torch.cat([centres - half, centres + half], 1)
    overlap = iou(anchors[:, None], boxes[None])[0]
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    distance = (centres[:, None] - middle[None]).norm(dim=-1)
    chosen, first = [], 0
    for n in counts:
        chosen.append(distance[first:first + n].topk(min(9, n), 0, largest=False)[1] + first)
        first += n
    chosen = torch.cat(chosen)
    picked = overlap.gather(0, chosen)
    threshold = picked.mean(0) + picked.std(0)
    c = centres[chosen]
    inside = torch.cat([c - boxes[None, :, :2], boxes[None, :, 2:] - c], -1).min(-1)[0] > 0.01
    good = (picked >= threshold) & inside
    best = torch.full_like(overlap, -1.0)
    best.scatter_(0, chosen, torch.where(good, picked, torch.full_like(picked, -1.0)))
    value, index = best.max(1)
    return torch.where(value >= 0, index, torch.full_like(index, -1))


def losses(cls, reg, boxes, labels):
    centres, strides, counts = cells([m.shape[2:] for m in cls])
    n = cls[0].shape[0]
    cls = torch.cat([m.permute(0, 2, 3, 1).reshape(n, -1, N_CLASSES) for m in cls], 1)
    reg = torch.cat([m.permute(0, 2, 3, 1).reshape(n, -1, 4, N_BINS) for m in reg], 1)
    gt = torch.stack([assign(centres, strides, counts, b) for b in boxes])
    image, cell = (gt >= 0).nonzero(as_tuple=True)
    target = torch.stack([boxes[i][gt[i, c]] for i, c in zip(image.tolist(), cell.tolist())])
    label = torch.stack([labels[i][gt[i, c]] for i, c in zip(image.tolist(), cell.tolist())])
    s, logits = strides[cell][:, None], reg[image, cell]
    offsets = (logits.softmax(-1) * torch.arange(N_BINS)).sum(-1) * s
    centre = centres[cell]
    box = torch.cat([centre - offsets[:, :2], centre + offsets[:, 2:]], 1)
    quality = iou(box.detach(), target)[0]
    score = cls.sigmoid()
    qfl = F.binary_cross_entropy_with_logits(cls, torch.zeros_like(cls),
                                             reduction="none") * score.pow(2)
    here = cls[image, cell, label]
    positive = F.binary_cross_entropy_with_logits(here, quality, reduction="none")
    positive = positive * (quality - here.sigmoid()).abs().pow(2)
    qfl = qfl.sum() - qfl[image, cell, label].sum() + positive.sum()
    weight = score.detach()[image, cell].max(-1)[0]
    total = weight.sum().clamp(min=1)
    distance = torch.cat([centre - target[:, :2], target[:, 2:] - centre], 1) / s
    distance = distance.clamp(0, N_BINS - 1.1)
    low = distance.long()
    flat = logits.reshape(-1, N_BINS)
    dfl = (F.cross_entropy(flat, low.reshape(-1), reduction="none") *
           (low + 1 - distance).reshape(-1) +
           F.cross_entropy(flat, low.reshape(-1) + 1, reduction="none") *
           (distance - low).reshape(-1)).reshape(-1, 4)
    return (qfl / max(len(image), 1) + 2 * ((1 - giou(box, target)) * weight).sum() / total +
            0.25 * (dfl * weight[:, None]).sum() / 4 / total)


def detection(name):
    network = Network(name).eval()
    fold(network.body)
    x = torch.randn(1, 3, 640, 640)

    def run():
        with torch.inference_mode():
            network(x)
    return run


def training(name):
    network = Network(name).train()
    frozen = [network.body.conv1, network.body.bn1, network.body.layer1]
    for module in frozen:
        module.requires_grad_(False)
    for module in network.body.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], 1e-3, 0.9,
                                weight_decay=1e-4)
    x = torch.randn(4, 3, 256, 320)
    boxes, labels = [], []
    for image in range(4):
        corner = torch.tensor([[10.0 + 20 * (i % 10), 10.0 + 15 * (i % 7)]
                               for i in range(10 * image, 10 * image + 10)])
        size = torch.tensor([[30.0 + 5 * (i % 9), 30.0 + 7 * (i % 5)]
                             for i in range(10 * image, 10 * image + 10)])
        boxes.append(torch.cat([corner, corner + size], 1))
        labels.append(torch.arange(10 * image, 10 * image + 10) % N_CLASSES)

    def run():
        optimizer.zero_grad(set_to_none=True)
        losses(*network(x), boxes, labels).backward()
        nn.utils.clip_grad_norm_(network.parameters(), 35)
        optimizer.step()
    return run


def best_of_two(run):
    times = []
    for _ in range(2):
        before = time.perf_counter()
        run()
        times.append(time.perf_counter() - before)
    return min(times)


def main():
    program = sys.argv[1]
    threads = sys.argv[2] if len(sys.argv) > 2 else "2"
    turns = int(sys.argv[3]) if len(sys.argv) > 3 else 3
    torch.set_num_threads(int(threads))
    torch.manual_seed(1)
    for task, name, width, height, batch in (("detect", "r50", 640, 640, 1),
                                             ("detect", "x101-32x4d", 640, 640, 1),
                                             ("detect", "r101-dcnv2", 640, 640, 1),
                                             ("train", "r18", 320, 240, 4)):
        title = f"{task} {name} {width}x{height} batch {batch}"
        if len(sys.argv) > 4 and sys.argv[4] not in title:
            continue
        run = detection(name) if task == "detect" else training(name)
        run()
        own, avx2, other = [], [], []
        for _ in range(turns):
            for times, more in (own, []), (avx2, ["avx2"]):
                text = subprocess.run([program, task, name, str(width), str(height), str(batch),
                                       threads, "2", *more],
                                      capture_output=True, text=True, check=True).stdout
                times.append(min(float(line) for line in text.split()))
            other.append(best_of_two(run))
        isa = os.environ["ONEDNN_MAX_CPU_ISA"]
        seconds = [statistics.median(times) for times in (own, avx2, other)]
        ratios = [statistics.median(a / b for a, b in zip(times, other)) for times in (own, avx2)]
        print(f"{title}, {threads} threads: gfl {seconds[0]:.3f} s, with AVX2 {seconds[1]:.3f} s, "
              f"PyTorch {torch.__version__} ({isa}) {seconds[2]:.3f} s, "
              f"ratios {ratios[0]:.2f} and {ratios[1]:.2f}", flush=True)


if __name__ == "__main__":
    main()
