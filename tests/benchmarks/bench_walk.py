"""The sparse random walk against IRN's dense squaring and against the CRF, in one run.

Run from the repository root: ``python tests/benchmarks/bench_walk.py [--help]``. Rounds of the
forms alternate, so that whatever else the machine does hits all alike; figures are medians.

Dense: IRN squares the transition matrix of 94x125 cells (375x500 pixels at stride 4) eight times.
One squaring is timed each dense round, and eight are counted; the building of the matrix and the
last product count for nothing. The sparse walk counts from the edge map to the walked maps. Its
result is compared with 256 products of the maps with the dense matrix in float64.

CRF: `LabelCRF` of an image of 375x500 with two classes, both its calls on one lattice, and a single
call; the walk counts from the edge map to the maps at the image's size. The CRF has one thread.

Memory: what a process that has walked on a tiny image grows by at most. What else the machine did
is told by its load average at the beginning and at the end.
"""

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).parents[2]))

from rayseg.records.pairs import pixel_pairs
from rayseg.refine.affinities import edge_affinities
from rayseg.refine.crf import LabelCRF
from rayseg.refine.walk import EdgeWalk
from tests.benchmarks.bench_crf import draw_maps, load

ROOT = Path(__file__).parents[2]
GRID, SIZE, STRIDE, CLASSES = (94, 125), (375, 500), 4, 2
PRECISIONS = ("fp64", "fp32")
MEMORY = """
import pathlib, torch
from rayseg.refine.walk import EdgeWalk
def status(line):
    text = pathlib.Path("/proc/self/status").read_text()
    return int(text.partition(line + ":")[2].split()[0])
walk = EdgeWalk(precision={precision!r})
walk(torch.rand(1, 2, 9, 9), torch.rand(1, 9, 9))
pathlib.Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
before = status("VmRSS")
walk(torch.rand(1, {classes}, {height}, {width}), torch.rand(1, {height}, {width}))
print((status("VmHWM") - before) / 1024)
"""


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dense-rounds", type=int, default=2, help="a squaring takes a minute")
    parser.add_argument("--threads", type=int, default=0, help="0 leaves torch's own choice")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, default=ROOT / "tests/benchmarks/results")
    return parser.parse_args()


def draw(device):
    """Maps of blurred boxes, and edges: thin lines of noise, mostly low."""
    generator = torch.Generator().manual_seed(0)
    maps = draw_maps(GRID, CLASSES, np.random.default_rng(0))
    edges = torch.rand(1, *GRID, generator=generator) ** 6
    return torch.from_numpy(maps)[None].to(device), edges.to(device)


def dense_transition(edges, walk, dtype):
    """T with every pixel by every pixel."""
    number = edges.shape[1] * edges.shape[2]
    matrix = torch.eye(number, dtype=dtype, device=edges.device)
    cells = torch.arange(number, device=edges.device).view(edges.shape[1:])
    planes = edge_affinities(edges.to(dtype), walk.radius)
    for (down, right), plane in zip(pixel_pairs(walk.radius).offsets_yx, planes, strict=True):
        sources = plane[0] > 0
        at = cells[sources]
        to = at + int(down * edges.shape[2] + right)
        matrix[at, to] = matrix[to, at] = plane[0][sources] ** walk.beta
    return matrix / matrix.sum(0, keepdim=True)


def timed(call, device):
    start = time.perf_counter()
    result = call()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start, result


def alternate(forms, rounds, device):
    """Median seconds of each form, after a round that does not count."""
    times = {name: [] for name in forms}
    for number in range(rounds + 1):
        for name, form in forms.items():
            seconds, _ = timed(form, device)
            if number:
                times[name].append(seconds)
    return {name: round(statistics.median(taken), 5) for name, taken in times.items()}


def against_dense(options):
    maps, edges = draw(options.device)
    matrix = dense_transition(edges, EdgeWalk(), torch.float32)
    times = {"squaring": [], **{one: [] for one in PRECISIONS}}
    for _ in range(options.dense_rounds):
        times["squaring"].append(timed(lambda: matrix @ matrix, options.device)[0])
        for one in PRECISIONS * options.rounds:
            walked = timed(lambda one=one: EdgeWalk(precision=one)(maps, edges), options.device)
            times[one].append(walked[0])
    del matrix
    dense = 8 * statistics.median(times["squaring"])
    sparse = {one: round(statistics.median(times[one]), 5) for one in PRECISIONS}
    maps, edges = maps.double(), edges.double()
    exact = exact_walk(maps, edges)
    gaps = {
        one: float((EdgeWalk(precision=one)(maps, edges) - exact).abs().max() / exact.max())
        for one in PRECISIONS
    }
    return {
        "grid": GRID,
        "classes": CLASSES,
        "dense_squaring_s": [round(one, 3) for one in times["squaring"]],
        "dense_s": round(dense, 2),
        "sparse_s": sparse,
        "ratio": {name: round(dense / seconds, 1) for name, seconds in sparse.items()},
        "difference_from_256_dense_float64_steps_by_greatest_value": gaps,
    }


def exact_walk(maps, edges):
    matrix = dense_transition(edges, EdgeWalk(), torch.float64)
    rows = (maps * (1 - edges)[:, None]).flatten(2)[0]
    for _ in range(256):
        rows = rows @ matrix
    return rows.view_as(maps)


def against_crf(options):
    maps, edges = draw(options.device)
    image = next(one for one in load(20) if one.shape[:2] == SIZE)
    large = draw_maps(SIZE, CLASSES, np.random.default_rng(0))
    crf, sides = LabelCRF(), (large.argmax(0) + 1) * (large.max(0) > 0.3)

    def walked(precision):
        found = EdgeWalk(precision=precision)(maps, edges)
        return functional.interpolate(found, scale_factor=STRIDE, mode="bilinear")

    forms = {
        "crf_two_calls": lambda: crf(image, large, [3, 11]),
        "crf_one_call": lambda: crf.refine_labels(image, [sides], CLASSES + 1),
    }
    forms |= {f"walk_{one}": lambda one=one: walked(one) for one in PRECISIONS}
    found = alternate(forms, options.rounds, options.device)
    return {"size": SIZE, "classes": CLASSES, "seconds": found}


def memory():
    """Megabytes of the walk, by precision and grid."""
    grids = {"94x125": GRID, "750x1000 (4000x3000 pixels)": (750, 1000)}
    found = {}
    for name, (height, width) in grids.items():
        for precision in PRECISIONS:
            code = MEMORY.format(precision=precision, classes=CLASSES, height=height, width=width)
            start = time.perf_counter()
            done = subprocess.run(
                [sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True
            )
            found[f"{name}, {precision}"] = {
                "megabytes": round(float(done.stdout), 1),
                "process_seconds": round(time.perf_counter() - start, 1),
            }
    return found


def machine(device):
    if device == "cuda":
        return torch.cuda.get_device_name()
    return str(torch.cpu.get_capabilities().get("cpu_name") or platform.machine())


def main():
    options = parse()
    if options.threads:
        torch.set_num_threads(options.threads)
    name = machine(options.device)
    report = {
        "machine": name,
        "device": options.device,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "rounds": options.rounds,
        "load_at_start": os.getloadavg(),
        "against_crf": against_crf(options),
        "memory_mb": memory(),
        "against_dense": against_dense(options),
        "load_at_end": os.getloadavg(),
    }
    text = json.dumps(report, indent=2) + "\n"
    sys.stdout.write(text)
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / f"walk-{slug}.json").write_text(text)


if __name__ == "__main__":
    main()
