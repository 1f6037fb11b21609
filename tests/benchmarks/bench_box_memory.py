"""Memory of the processes that make maps and masks of 100 objects in one image of 1333x800.

Run from the repository root: ``python tests/benchmarks/bench_box_memory.py``. Each case is a
process of its own, whose largest resident memory the system tells. The Faster R-CNN has random
weights and a box head that says the objects' class of every proposal, and positives may overlap
little, so that every object has as many of them as BBAM takes. It is shown the image at its
official size, in float32. A few steps are enough: what a step needs does not grow with their
number. Results stand in ``results/box-memory.json``.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[2]))

from rayseg.attribution import BBAM, Objects, enlarge_grid
from rayseg.nets.detectors import DetectorDesign, build_detector
from rayseg.refine import BoxCRF

ROOT = Path(__file__).parents[2]
SIZE_HW = (800, 1333)
CASES = {
    "maps, MobileNetV2": "mobilenet_v2",
    "maps, ResNet-50": "resnet50",
    "maps, ResNet-101": "resnet101",
    "masks": "",
}


def objects(number):
    """The image and boxes of 20 to 400 pixels."""
    rng = np.random.default_rng(0)
    height, width = SIZE_HW
    sides = rng.uniform(20, 400, (number, 2))
    corners = rng.uniform(0, 1, (number, 2)) * ([width, height] - sides)
    boxes = np.concatenate([corners, corners + sides], 1).astype(np.float32)
    coarse = Image.fromarray(rng.integers(0, 256, (50, 83, 3), np.uint8))
    return np.array(coarse.resize((width, height), Image.Resampling.BICUBIC)), boxes


def make_maps(trunk, number, steps):
    """Grids of all objects; every one must have been found."""
    pixels, boxes = objects(number)
    torch.manual_seed(0)
    names = tuple(f"class{i}" for i in range(20))
    detector = build_detector(DetectorDesign(trunk=trunk, classes=names)).eval()
    torch.nn.init.constant_(detector.boxes.box_predictor.cls_score.bias[1], 10.0)
    method = replace(BBAM(), iou_levels=(0.1,), steps=steps, precision="fp32")
    asked = Objects(torch.from_numpy(boxes), torch.zeros(number, dtype=torch.int64))
    prepared = method.prepare(detector, torch.device("cpu"))
    (made,) = method.run(prepared, torch.from_numpy(pixels)[None], [asked], ["a"])
    found = {(one.status, one.positives) for one in made}
    if found != {("ok", method.max_positives)}:
        raise SystemExit(f"every object must be found by {method.max_positives}, got {found}")


def make_masks(number):
    """Masks of maps that are high around the middle of each box."""
    pixels, boxes = objects(number)
    refine = BoxCRF().on(pixels)
    for x1, y1, x2, y2 in boxes:
        grid = torch.zeros(48, 80)
        rows = slice(int(y1 / 800 * 48), int(y2 / 800 * 48) + 1)
        grid[rows, int(x1 / 1333 * 80) : int(x2 / 1333 * 80) + 1] = 0.9
        refine(enlarge_grid(grid, SIZE_HW).numpy(), np.array([x1, y1, x2, y2], np.float32))


def alone(case, number, steps):
    """One case in this process."""
    start = time.perf_counter()
    if trunk := CASES[case]:
        make_maps(trunk, number, steps)
    else:
        make_masks(number)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    facts = {"case": case, "peak_gib": round(peak, 2)}
    sys.stdout.write(json.dumps(facts | {"seconds": round(time.perf_counter() - start, 1)}))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES))
    parser.add_argument("--alone", choices=list(CASES), help=argparse.SUPPRESS)
    parser.add_argument("--objects", type=int, default=100)
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--out", type=Path, default=ROOT / "tests/benchmarks/results")
    options = parser.parse_args()
    if options.alone:
        return alone(options.alone, options.objects, options.steps)
    shared = ["--objects", str(options.objects), "--steps", str(options.steps)]
    found = []
    for case in options.cases:
        command = [sys.executable, __file__, "--alone", case, *shared]
        said = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
        found.append(json.loads(said.stdout))
        sys.stdout.write(f"{case:26} {found[-1]['peak_gib']:5.2f} GiB\n")
        sys.stdout.flush()
    facts = {"objects": options.objects, "size_hw": SIZE_HW, "steps": options.steps}
    facts |= {"threads": torch.get_num_threads(), "torch": torch.__version__, "cases": found}
    (options.out / "box-memory.json").write_text(json.dumps(facts, indent=2) + "\n")
    return None


if __name__ == "__main__":
    main()
