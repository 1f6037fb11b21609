"""A training step of DeepLab-v2 on a CPU against the straightforward way of taking it.

Run from the repository root: ``python tests/benchmarks/bench_segmenter_training.py``. The baseline
is the network as anybody would write it: dilated convolutions in the ASPP, everything under
autocast as it comes. Ours takes the ASPP as one product and depthwise convolutions in float32. Both
see the same crops in turn within one run; their losses must agree.
"""

import json
import os
import platform
import statistics
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from rayseg.nets.backbones import freeze_normalisation, keep_depthwise_float
from rayseg.nets.deeplab import ASPP, Segmenter
from rayseg.nets.losses import segmentation_loss

RESULT = Path(__file__).parent / "results" / "segmenter-training.json"
CASES = (("mobilenet_v2", 16, 257), ("mobilenet_v2", 8, 257), ("resnet50", 8, 257))
IMAGES, ROUNDS = 4, 5


class PlainASPP(ASPP):
    """The sum of dilated convolutions."""

    def forward(self, features):
        return sum(branch(features) for branch in self.branches)


def build(trunk, stride, lean):
    torch.manual_seed(0)
    network = Segmenter("deeplab_v2", trunk, 21, stride)
    freeze_normalisation(network.trunk)
    if lean:
        keep_depthwise_float(network)
    else:
        network.head.__class__ = PlainASPP
    return network.train()


def step(network, images, labels):
    network.zero_grad()
    start = time.perf_counter()
    with torch.autocast("cpu", torch.bfloat16):
        outputs = network(images)
    terms = [segmentation_loss(logits, labels) for logits in outputs]
    loss = sum(total / count for total, count in terms)
    loss.backward()
    return time.perf_counter() - start, loss.item()


def compare(trunk, stride, crop):
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(IMAGES, 3, crop, crop, generator=generator)
    images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, 21, (IMAGES, crop, crop), generator=generator)
    forms = {name: build(trunk, stride, name == "ours") for name in ("ours", "plain")}
    seconds = {name: [] for name in forms}
    losses = {}
    for _ in range(ROUNDS + 1):
        for name, network in forms.items():
            spent, losses[name] = step(network, images, labels)
            seconds[name].append(spent / IMAGES)
    if abs(losses["ours"] / losses["plain"] - 1) > 0.02:
        raise AssertionError(f"losses differ: {losses}")
    found = {name: statistics.median(spent[1:]) for name, spent in seconds.items()}
    return {
        "trunk": trunk, "stride": stride, "crop": crop,
        "seconds_per_image": found, "times": found["plain"] / found["ours"],
    }  # fmt: skip


def main():
    cases = []
    for case in CASES:
        cases.append(compare(*case))
        print(json.dumps(cases[-1]), flush=True)
    result = {
        "device": platform.processor() or platform.machine(), "threads": torch.get_num_threads(),
        "amx_bf16": bool(torch.cpu.get_capabilities().get("amx_bf16")), "cores": os.cpu_count(),
        "rounds": ROUNDS, "cases": cases,
    }  # fmt: skip
    RESULT.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
