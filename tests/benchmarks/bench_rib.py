"""RIB (official preset) against the straightforward procedure, in one run, at equal maps.

Run from the repository root: ``python tests/benchmarks/bench_rib.py [--help]``. Rounds of the forms
alternate, so that whatever else the machine does hits all of them alike. The straightforward form
does in each step what the authors' code does: it decodes and crops the companions from their files,
computes all features of all scales and holds one graph over all rows, in float32; the weights of
each image are loaded by name. Ours has its bank of crops, cut beforehand, and runs in float32 and
in bf16. Both see the same pixels, the same companions and the same crops of them.

Margin and explosion are switched off, so that every image takes all steps. Ours keeps features of
companions from image to image; its first round, which has none yet, stands apart as ``cold``.
"""

import argparse
import copy
import json
import platform
import re
import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).parents[2]))

from rayseg.attribution import RIB, Companions
from rayseg.attribution.classes.base import seeded
from rayseg.attribution.classes.views import ViewBatch, resize_maps
from rayseg.learn import Crops
from rayseg.nets.classifier import CamClassifier
from rayseg.nets.inputs import normalise

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data"
VOC = DATA / "voc_animals/VOCdevkit/VOC2012"
CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train",
    "tvmonitor",
)  # fmt: skip


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trunk", default="mobilenet_v2")
    parser.add_argument("--size", nargs=2, type=int, default=[375, 500], metavar=("H", "W"))
    parser.add_argument("--scales", nargs="+", type=float, default=[1.0, 0.5, 1.5, 2.0])
    parser.add_argument("--steps", type=int, default=10, help="K")
    parser.add_argument("--companions", type=int, default=20, help="in each step")
    parser.add_argument("--crop", type=int, default=512, help="side of the companions' crops")
    parser.add_argument("--bank", type=int, default=200, help="crops in the bank")
    parser.add_argument("--images", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3, help="after the cold one")
    parser.add_argument("--threads", type=int, default=0, help="0 leaves torch's own choice")
    parser.add_argument("--precision", nargs="+", default=["fp32", "bf16"])
    parser.add_argument("--profile", action="store_true", help="where the time of ours goes")
    parser.add_argument("--out", type=Path, default=ROOT / "tests/benchmarks/results")
    return parser.parse_args()


def tags_of(path):
    """The classes that a VOC image's boxes name."""
    tree = ElementTree.parse(VOC / "Annotations" / f"{path.stem}.xml")
    return sorted({CLASSES.index(one.findtext("name")) for one in tree.iter("object")})


def load_images(paths, size_hw):
    sizes = [Image.open(path).convert("RGB").resize(size_hw[::-1]) for path in paths]
    return torch.from_numpy(np.stack([np.asarray(image) for image in sizes]))


def cut(path, number, crops):
    """The crop of one companion: the same whenever it is cut."""
    pixels = np.asarray(Image.open(path).convert("RGB"))
    levels, box = crops.cut_levels(pixels, np.random.default_rng(number))
    return torch.from_numpy(levels), torch.tensor(box)


def fill_bank(paths, crops):
    cuts = [cut(path, number, crops) for number, path in enumerate(paths)]
    pixels, boxes = (torch.stack(part) for part in zip(*cuts, strict=True))
    tags = torch.zeros(len(paths), len(CLASSES), dtype=torch.bool)
    for row, path in zip(tags, paths, strict=True):
        row[tags_of(path)] = True
    return Companions(tuple(path.stem for path in paths), pixels, boxes, tags)


def make_network(trunk):
    """MobileNetV2 with ImageNet's weights; the head is random, as long as those that are learnt."""
    torch.manual_seed(0)
    weights = DATA / "weights" / "mobilenet_v2.pth"
    trained = trunk == "mobilenet_v2" and weights.exists()
    network = CamClassifier(trunk, len(CLASSES), 16, str(weights) if trained else "none")
    nn.init.normal_(network.head.weight, 0, 0.05)
    return network.eval(), "trained" if trained else "random"


class Straightforward:
    """The procedure step by step, nothing kept that could be computed again."""

    def __init__(self, method, network, bank, paths, crops):
        self.method, self.network, self.bank = method, copy.deepcopy(network), bank
        self.paths, self.crops = paths, crops
        self.theta_0 = copy.deepcopy(network.state_dict())
        self.decoding = 0.0

    def run(self, images, classes, ids):
        found = zip(images, classes, ids, strict=True)
        return [maps for image, own, name in found for maps in self.adapt(image, own, name)]

    def adapt(self, image, own, name):
        method, network = self.method, self.network
        network.load_state_dict(self.theta_0)
        batch = ViewBatch.of(image[None], [own], [name], torch.device("cpu"))
        views = [batch.views(scale, True)[0] for scale in method.scales]
        own_tags = torch.zeros(1, len(CLASSES), dtype=torch.bool)
        own_tags[0, own] = True
        rates = [method.learning_rate, method.learning_rate * method.head_factor]
        groups = [network.trunk.parameters(), network.head.parameters()]
        optimiser = torch.optim.SGD(
            [{"params": list(part), "lr": rate} for part, rate in zip(groups, rates, strict=True)],
            momentum=method.momentum,
            weight_decay=method.weight_decay,
        )
        draws = self.bank.draws(own, method.num_companions, seeded(method.seed, name), True, name)
        sums = [0.0] * len(views)
        for k in range(method.num_steps):
            logits, labels = [], []
            for place, (scale, pair) in enumerate(zip(method.scales, views, strict=True)):
                raw = self.raw_maps(pair)
                rectified = raw.relu().detach()
                sums[place] = sums[place] + (rectified[0] + rectified[1].flip(-1))[own]
                if scale not in method.unpooled_scales:
                    labels.append(own_tags.expand(2, -1))
                    logits.append(self.pool(raw, labels[-1]))
            crops, tags = self.decode(next(draws).indices)
            labels.append(tags)
            logits.append(self.pool(self.raw_maps(crops), tags))
            loss = -(torch.cat(logits) * torch.cat(labels)).sum()
            for group, rate in zip(optimiser.param_groups, rates, strict=True):
                group["lr"] = rate * (1 - k / method.num_steps) ** method.power
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        size_hw = tuple(image.shape[:2])
        total = sum(resize_maps(one, size_hw, network.stride, 1) for one in sums)
        return [(one / (one.max() + 1e-5)).numpy() for one in total]

    def raw_maps(self, images):
        first, last = self.network.trunk[:3], self.network.trunk[3:]
        return functional.conv2d(last(first(images).detach()), self.network.head.weight)

    def pool(self, maps, tags):
        kept = torch.ones_like(maps)
        for row, target in tags.nonzero().tolist():
            one = maps[row, target].detach()
            kept[row, target] = (one / one.max() < self.method.tau).float()
        return (maps * kept).mean((2, 3))

    def decode(self, indices):
        start = time.perf_counter()
        cuts = [cut(self.paths[i], i, self.crops) for i in indices.tolist()]
        images = torch.zeros(len(cuts), 3, self.crops.crop, self.crops.crop)
        for image, (levels, (top, left, bottom, right)) in zip(images, cuts, strict=True):
            window = levels[top:bottom, left:right].permute(2, 0, 1)
            image[:, top:bottom, left:right] = normalise(window[None])[0]
        self.decoding += time.perf_counter() - start
        return images, self.bank.tags[indices]


def seconds(call):
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result


def our_maps(method, prepared, images, classes, ids):
    found = method.run(prepared, images, classes, ids=ids)
    if any(one.note for one in found):
        raise RuntimeError(
            f"every image must take all its steps, got {[one.note for one in found]}"
        )
    return [maps.numpy() for one in found for maps in one.maps]


def compare(options, network, method, parts):
    images, classes, ids, bank, paths, crops = parts
    plain = Straightforward(method, network, bank, paths, crops)
    calls = {"straightforward": lambda: plain.run(images, classes, ids)}
    for precision in options.precision:
        own = replace(method, precision=precision)
        prepared = own.prepare(network, companions=bank)
        calls[precision] = lambda m=own, p=prepared: our_maps(m, p, images, classes, ids)
    cold = {name: seconds(call)[0] for name, call in calls.items()}
    plain.decoding = 0.0
    times, maps = {name: [] for name in calls}, {}
    for _ in range(options.rounds):
        for name, call in calls.items():
            taken, maps[name] = seconds(call)
            times[name].append(taken)
    medians = {name: statistics.median(values) for name, values in times.items()}
    forms = [
        {
            "form": name,
            "seconds_an_image": medians[name] / len(images),
            "images_per_second": len(images) / medians[name],
            "ratio": medians["straightforward"] / medians[name],
            "cold_ratio": medians["straightforward"] / cold[name],
            "largest_difference": largest_difference(maps["straightforward"], maps[name]),
        }
        for name in calls
    ]
    decoding = plain.decoding / options.rounds / len(images)
    return {
        "forms": forms,
        "decoding_seconds_an_image": decoding,
        "seconds_of_rounds": {
            name: [round(value, 3) for value in [cold[name], *values]]
            for name, values in times.items()
        },
    }


def largest_difference(expected, found):
    """Of any map; all reach from 0 to 1."""
    return float(max(np.abs(a - b).max() for a, b in zip(expected, found, strict=True)))


def table(result):
    head = f"  {'form':16} {'s/image':>8} {'images/s':>9} {'ratio':>6} {'cold':>6} {'max diff':>9}"
    lines = [
        f"  {one['form']:16} {one['seconds_an_image']:8.2f} {one['images_per_second']:9.4f} "
        f"{one['ratio']:6.2f} {one['cold_ratio']:6.2f} {one['largest_difference']:9.1e}"
        for one in result["forms"]
    ]
    return "\n".join([head, *lines]) + "\n"


PARTS = ("first_features", "companion_features", "raw_maps", "backward", "step", "restore")


class Timed:
    """Adds up the seconds that a function takes."""

    def __init__(self, call):
        self.call, self.total, self.count = call, 0.0, 0

    def __call__(self, *arguments, **named):
        start = time.perf_counter()
        result = self.call(*arguments, **named)
        self.total += time.perf_counter() - start
        self.count += 1
        return result


def profile(options, network, method, parts):
    """Seconds of the parts of ours on warm images, and the operations that take most."""
    images, classes, ids, bank, _, _ = parts
    lines = []
    for precision in options.precision:
        own = replace(method, precision=precision)
        prepared = own.prepare(network, companions=bank)
        our_maps(own, prepared, images, classes, ids)
        timers = {name: Timed(getattr(prepared, name)) for name in PARTS if name != "backward"}
        for name, timer in timers.items():
            object.__setattr__(prepared, name, timer)
        timers["backward"] = Timed(torch.Tensor.backward)
        plain_backward = torch.Tensor.backward
        torch.Tensor.backward = lambda *a, timer=timers["backward"], **b: timer(*a, **b)
        try:
            whole, _ = seconds(lambda m=own, p=prepared: our_maps(m, p, images, classes, ids))
        finally:
            torch.Tensor.backward = plain_backward
        for name in timers:
            if name != "backward":
                object.__delattr__(prepared, name)
        shares = [
            f"  {name:20} {timer.total:7.2f} s {timer.total / whole:5.0%} in {timer.count} calls"
            for name, timer in timers.items()
        ]
        lines += [f"{precision}: {whole:.2f} s for {len(images)} images", *shares]
        with torch.profiler.profile() as profiler:
            our_maps(own, prepared, images, classes, ids)
        lines.append(
            profiler.key_averages().table(
                sort_by="self_cpu_time_total", row_limit=16, max_name_column_width=45
            )
        )
    return "\n".join(lines) + "\n"


def main():
    options = parse()
    if options.threads:
        torch.set_num_threads(options.threads)
    paths = sorted((VOC / "JPEGImages").glob("*.jpg"))
    own_paths = [
        paths[(2 * i + 1) * len(paths) // (2 * options.images)] for i in range(options.images)
    ]
    others = [path for path in paths if path not in own_paths]
    chosen = [others[i * len(others) // options.bank] for i in range(options.bank)]
    crops = Crops(options.crop, (options.crop * 5 // 8, options.crop * 5 // 4))
    bank_seconds, bank = seconds(lambda: fill_bank(chosen, crops))
    network, weights = make_network(options.trunk)
    method = replace(
        RIB.official(),
        scales=tuple(options.scales),
        num_steps=options.steps,
        num_companions=options.companions,
        margin=float("inf"),
        explosion_share=1.0,
    )
    images = load_images(own_paths, tuple(options.size))
    classes = [tags_of(path) for path in own_paths]
    ids = [path.stem for path in own_paths]
    name = str(torch.cpu.get_capabilities().get("cpu_name") or platform.machine())
    facts = {
        "machine": name,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "trunk": options.trunk,
        "weights": weights,
        "size_hw": options.size,
        "scales": options.scales,
        "steps": options.steps,
        "companions": options.companions,
        "crop": options.crop,
        "bank": options.bank,
        "bank_seconds": round(bank_seconds, 2),
        "rounds": options.rounds,
        "images": options.images,
        "classes": classes,
    }
    sys.stdout.write(json.dumps(facts) + "\n")
    parts = images, classes, ids, bank, chosen, crops
    if options.profile:
        sys.stdout.write(profile(options, network, method, parts))
        return
    result = compare(options, network, method, parts)
    sys.stdout.write(table(result))
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / f"rib-{slug}.json"
    path.write_text(json.dumps({**facts, **result}, indent=2) + "\n")
    sys.stdout.write(f"written to {path}\n")


if __name__ == "__main__":
    main()
