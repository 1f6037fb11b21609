"""AdvCAM (official preset) against the literal official procedure, in one run.

Run from the repository root: ``python tests/benchmarks/bench_advcam.py [--help]``. Rounds of the
forms alternate, so that whatever else the machine does hits all of them alike. The literal form
takes one image and one class at a time in float32, two full backward passes a step; ours takes all
pairs of the images, in float32 and in bf16. Both see the same pixels at scale 1.

The literal form also climbs after the last map that it adds; ours does not. With few steps that
flatters ours, so a third figure, ``ratio_27``, puts the costs of a first and of a further step
together to what 27 steps take.
"""

import argparse
import copy
import json
import platform
import re
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck

sys.path.insert(0, str(Path(__file__).parents[2]))

from rayseg.attribution import AdvCAM
from rayseg.nets.classifier import CamClassifier
from tests.reference import attribution_literal as literal

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data"
IMAGES = DATA / "voc_animals/VOCdevkit/VOC2012/JPEGImages"
OFFICIAL_STEPS = 27


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trunk", nargs="+", default=["mobilenet_v2", "resnet50"])
    parser.add_argument("--size", nargs=2, type=int, default=[375, 500], metavar=("H", "W"))
    parser.add_argument("--steps", type=int, default=4, help="maps added, T")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=2, help="of one and two classes in turn")
    parser.add_argument("--threads", type=int, default=0, help="0 leaves torch's own choice")
    parser.add_argument("--precision", nargs="+", default=["fp32", "bf16"])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--max-pairs", type=int, default=0, help="0: the method's own choice")
    parser.add_argument("--double", action="store_true", help="also compare with float64")
    parser.add_argument("--profile", action="store_true", help="top operations of one step")
    parser.add_argument("--out", type=Path, default=ROOT / "tests/benchmarks/results")
    return parser.parse_args()


def load_images(count, size_hw):
    """Real photographs where there are any, else noise; uint8 (n, h, w, 3)."""
    paths = sorted(IMAGES.glob("*.jpg")) if IMAGES.exists() else []
    if not paths:
        noise = np.random.default_rng(0).integers(0, 256, (count, *size_hw, 3))
        return torch.from_numpy(noise.astype(np.uint8))
    chosen = [paths[i * len(paths) // count] for i in range(count)]
    sizes = [Image.open(path).convert("RGB").resize(size_hw[::-1]) for path in chosen]
    return torch.from_numpy(np.stack([np.asarray(image) for image in sizes]))


def make_network(trunk, images, device):
    """Trained weights for MobileNetV2 where there are any, else random ones.

    Random residual branches are damped, as trained ones are: at full strength the gradient of a
    deep random network is chaotic, and float32 differs from float64 by percents after one step,
    whoever computes it.
    """
    torch.manual_seed(0)
    weights = DATA / "weights" / "mobilenet_v2.pth"
    trained = trunk == "mobilenet_v2" and weights.exists()
    network = CamClassifier(trunk, 20, 16, str(weights) if trained else "none").to(device)
    if not trained:
        for module in network.modules():
            if isinstance(module, Bottleneck | BasicBlock):
                last = module.bn3 if isinstance(module, Bottleneck) else module.bn2
                nn.init.constant_(last.weight, 0.2)
        settle_statistics(network, images.to(device))
    nn.init.normal_(network.head.weight, 0, 0.05)
    return network.eval(), "trained" if trained else "random"


@torch.no_grad()
def settle_statistics(network, images):
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.train()
        norm.momentum = None
    planes = images.permute(0, 3, 1, 2).float() / 255
    network((planes - 0.45) / 0.23)
    network.eval()


def literal_maps(network, images, classes, steps):
    return [
        literal.advcam(network, image, target, scales=(1.0,), num_steps=steps)
        for image, own in zip(images.numpy(), classes, strict=True)
        for target in own
    ]


def seconds(call, device):
    start = time.perf_counter()
    result = call()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start, result


def our_maps(method, lean, images, classes):
    return [one.cpu().numpy() for found in method.run(lean, images, classes) for one in found.maps]


def compare(trunk, options, images, classes):
    network, weights = make_network(trunk, images, options.device)
    forms = {}
    for precision in options.precision:
        method = AdvCAM(
            scales=(1.0,), num_steps=options.steps, precision=precision, max_pairs=options.max_pairs
        )
        first = AdvCAM(scales=(1.0,), num_steps=1, precision=precision, max_pairs=options.max_pairs)
        forms[precision] = (method, first, method.prepare(network))
    times = {name: [] for name in ["literal", *forms, *(f"{name} first" for name in forms)]}
    maps = {}
    warm_up(network, forms, images, classes)
    for _ in range(options.rounds):
        taken, maps["literal"] = seconds(
            lambda: literal_maps(network, images, classes, options.steps), options.device
        )
        times["literal"].append(taken)
        for name, (method, first, lean) in forms.items():
            taken, maps[name] = seconds(
                lambda m=method, n=lean: our_maps(m, n, images, classes), options.device
            )
            times[name].append(taken)
            taken, _ = seconds(
                lambda m=first, n=lean: our_maps(m, n, images, classes), options.device
            )
            times[f"{name} first"].append(taken)
    if options.double:  # how far float32 itself is off, whoever computes it
        exact = copy.deepcopy(network).double()
        maps["float64"] = literal_maps(exact, images, classes, options.steps)
    medians = {name: statistics.median(values) for name, values in times.items()}
    return {
        "trunk": trunk,
        "weights": weights,
        "forms": [
            row(name, medians, maps, options.steps, len(images)) for name in ["literal", *forms]
        ],
        "seconds_of_rounds": {
            name: [round(value, 4) for value in values] for name, values in times.items()
        },
    }


def warm_up(network, forms, images, classes):
    literal_maps(network, images[:1], [classes[0][:1]], 1)
    for _, first, lean in forms.values():
        first.run(lean, images, classes)


def largest_difference(expected, found):
    """Largest difference of any map, relative to its largest value."""
    pairs = zip(expected, found, strict=True)
    return float(max(np.abs(a - b).max() / np.abs(a).max() for a, b in pairs))


def row(name, medians, maps, steps, count):
    result = {
        "form": name,
        "seconds": medians[name],
        "images_per_second": count / medians[name],
        "ratio": medians["literal"] / medians[name],
        "ratio_27": 1.0,
        "relative_difference": largest_difference(maps["literal"], maps[name]),
    }
    if "float64" in maps:
        result["difference_from_float64"] = largest_difference(maps["float64"], maps[name])
    if name != "literal" and steps > 1:
        first = medians[f"{name} first"]
        further = (medians[name] - first) / (steps - 1)
        literal_27 = medians["literal"] / steps * OFFICIAL_STEPS
        result["ratio_27"] = literal_27 / (first + further * (OFFICIAL_STEPS - 1))
    return result


def table(result):
    lines = [f"{result['trunk']} ({result['weights']} weights)"]
    lines.append(
        f"  {'form':8} {'s':>9} {'images/s':>9} {'ratio':>6} {'at 27':>6} "
        f"{'max diff':>9} {'to fp64':>9}"
    )
    for one in result["forms"]:
        lines.append(
            f"  {one['form']:8} {one['seconds']:9.3f} {one['images_per_second']:9.3f} "
            f"{one['ratio']:6.2f} {one['ratio_27']:6.2f} {one['relative_difference']:9.1e} "
            f"{one.get('difference_from_float64', float('nan')):9.1e}"
        )
    return "\n".join(lines) + "\n"


def profile(trunk, options, images, classes):
    """The twelve operations that take most time of themselves in one step of ours."""
    network, _ = make_network(trunk, images, options.device)
    activities = [torch.profiler.ProfilerActivity.CPU]
    if options.device == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    lines = []
    for precision in options.precision:
        method = AdvCAM(scales=(1.0,), num_steps=2, precision=precision)  # one climb, two maps
        lean = method.prepare(network)
        method.run(lean, images, classes)
        with torch.profiler.profile(activities=activities) as profiler:
            method.run(lean, images, classes)
        order = "self_cuda_time_total" if options.device == "cuda" else "self_cpu_time_total"
        found = profiler.key_averages().table(sort_by=order, row_limit=12, max_name_column_width=45)
        lines.append(f"{trunk}, {precision}\n{found}\n")
    return "\n".join(lines)


def machine(device):
    if device == "cuda":
        return torch.cuda.get_device_name()
    return str(torch.cpu.get_capabilities().get("cpu_name") or platform.machine())


def main():
    options = parse()
    if options.threads:
        torch.set_num_threads(options.threads)
    images = load_images(options.images, tuple(options.size))
    classes = [[3, 11][: 1 + number % 2] for number in range(options.images)]
    name = machine(options.device)
    facts = {
        "machine": name,
        "device": options.device,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "size_hw": options.size,
        "scales": [1.0],
        "steps": options.steps,
        "rounds": options.rounds,
        "images": options.images,
        "pairs": sum(map(len, classes)),
    }
    sys.stdout.write(json.dumps(facts) + "\n")
    results = []
    for trunk in options.trunk:
        if options.profile:
            sys.stdout.write(profile(trunk, options, images, classes))
            continue
        results.append(compare(trunk, options, images, classes))
        sys.stdout.write(table(results[-1]))
    if results:
        slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
        options.out.mkdir(parents=True, exist_ok=True)
        path = options.out / f"advcam-{slug}.json"
        path.write_text(json.dumps({**facts, "results": results}, indent=2) + "\n")
        sys.stdout.write(f"written to {path}\n")


if __name__ == "__main__":
    main()
