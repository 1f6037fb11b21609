"""FickleNet's closed form against the expanded map of Figure 3.2b, in one run.

Run from the repository root: ``python tests/benchmarks/bench_ficklenet.py [--help]``. Rounds of the
forms alternate, so that whatever else the machine does hits both alike; figures are medians.

Maps: the passes of one image and one class. The expanded form makes the expanded and dropped map,
the logit of its convolution and the gradient at the features in every pass; its windows come from
the same random numbers, whose drawing counts for both. Steps: logits of a batch in training, and
the gradients at features and head; two images are what fits in 4 GB. Nothing of the trunk counts
for either.
"""

import argparse
import json
import platform
import re
import statistics
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from rayseg.attribution.classes.base import seeded
from rayseg.attribution.classes.ficklenet import FickleNet, draw_selections, place_maps
from rayseg.nets.ficklenet import closed_logits, draw_selection, expanded_logits

ROOT = Path(__file__).parents[2]
SIDE, DROP_RATE = 9, 0.9
SHAPES = {"vgg16 at stride 8": (512, 41, 41), "mobilenet_v2 at stride 16": (1280, 21, 21)}
"""Features of a 321-pixel image."""


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--passes", type=int, default=20)
    parser.add_argument("--classes", type=int, default=20, help="of a step's head")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=2, help="images of a step; 0 skips steps")
    parser.add_argument("--threads", type=int, default=0, help="0 leaves torch's own choice")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, default=ROOT / "tests/benchmarks/results")
    return parser.parse_args()


def make_features(number, shape, device):
    """Half of the units are zero, as behind a ReLU."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(number, *shape, generator=generator).relu().to(device)


def make_kernel(classes, depth, device):
    generator = torch.Generator().manual_seed(1)
    return (torch.randn(classes, depth, SIDE, SIDE, generator=generator) * 0.01).to(device)


def expanded_maps(features, kernel, passes):
    """Each pass's map by Figure 3.2b and a backward pass; (t, h, w)."""
    height, width = features.shape[1:]
    generator, maps = seeded(0, "bench"), []
    for _ in range(passes):
        drawn = draw_selections(1, height * width, SIDE**2, DROP_RATE, generator)[0]
        selection = drawn.t().unflatten(1, (height, width))[None].to(features.device)
        inputs = features[None].detach().requires_grad_()
        score = expanded_logits(inputs, kernel, selection)
        (gradient,) = torch.autograd.grad(score.sum(), inputs)
        maps.append((inputs.detach() * gradient).sum(1)[0].relu())
    return torch.stack(maps)


def closed_maps(features, kernel, passes):
    """The same as `FickleNet` makes them."""
    method = FickleNet(num_passes=passes, drop_rate=DROP_RATE)
    blocks = method._passes(place_maps(features, kernel), seeded(0, "bench"))
    return torch.cat(list(blocks), 1)[..., 0].t().unflatten(1, features.shape[1:])


def step(form, features, kernel):
    """Gradients of a training step at the features and the head."""
    generator = torch.Generator().manual_seed(0)
    selection = draw_selection(SIDE, DROP_RATE, len(features), *features.shape[2:], generator).to(
        features.device
    )
    features, kernel = features.detach().requires_grad_(), kernel.detach().requires_grad_()
    if form == "closed":
        logits = closed_logits(features, kernel, selection.to(features.dtype))
    else:
        logits = expanded_logits(features, kernel, selection)
    return torch.cat([g.flatten() for g in torch.autograd.grad(logits.sum(), (features, kernel))])


def compare(forms, rounds, device):
    """Median seconds of each form, and the largest difference between their results.

    A form takes the number of passes, None for as many as are asked for; a step has none.
    """
    times = {name: [] for name in forms}
    results = {name: form(2) for name, form in forms.items()}  # warms up
    for _ in range(rounds):
        for name, form in forms.items():
            start = time.perf_counter()
            form(None)
            if device == "cuda":
                torch.cuda.synchronize()
            times[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(taken) for name, taken in times.items()}
    expanded, closed = results["expanded"], results["closed"]
    return {
        "seconds": medians,
        "ratio": medians["expanded"] / medians["closed"],
        "relative_difference": float((expanded - closed).abs().max() / expanded.abs().max()),
        "seconds_of_rounds": {
            name: [round(value, 5) for value in taken] for name, taken in times.items()
        },
    }


def compare_maps(shape, options):
    features = make_features(1, shape, options.device)[0]
    kernel = make_kernel(1, shape[0], options.device)
    forms = {
        "expanded": lambda few: expanded_maps(features, kernel, few or options.passes),
        "closed": lambda few: closed_maps(features, kernel, few or options.passes),
    }
    return compare(forms, options.rounds, options.device)


def compare_steps(shape, options):
    features = make_features(options.batch, shape, options.device)
    kernel = make_kernel(options.classes, shape[0], options.device)
    forms = {
        name: lambda _, name=name: step(name, features, kernel) for name in ("expanded", "closed")
    }
    return compare(forms, options.rounds, options.device)


def machine(device):
    if device == "cuda":
        return torch.cuda.get_device_name()
    return str(torch.cpu.get_capabilities().get("cpu_name") or platform.machine())


def main():
    options = parse()
    if options.threads:
        torch.set_num_threads(options.threads)
    name = machine(options.device)
    facts = {
        "machine": name,
        "device": options.device,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "passes": options.passes,
        "classes": options.classes,
        "side": SIDE,
        "rounds": options.rounds,
        "batch": options.batch,
    }
    sys.stdout.write(json.dumps(facts) + "\n")
    results = []
    for trunk, shape in SHAPES.items():
        kinds = {"maps": compare_maps} | ({"step": compare_steps} if options.batch else {})
        for kind, measure in kinds.items():
            found = measure(shape, options)
            results.append({"features": trunk, "shape": shape, "of": kind, **found})
            sys.stdout.write(
                f"{trunk:26} {kind:5} expanded {found['seconds']['expanded']:8.3f} s, closed "
                f"{found['seconds']['closed']:8.4f} s, {found['ratio']:7.1f} times, "
                f"max diff {found['relative_difference']:.1e}\n"
            )
            sys.stdout.flush()
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / f"ficklenet-{slug}.json"
    path.write_text(json.dumps({**facts, "results": results}, indent=2) + "\n")
    sys.stdout.write(f"written to {path}\n")


if __name__ == "__main__":
    main()
