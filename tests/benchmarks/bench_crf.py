"""The label CRF with one lattice for both unaries against IRN's two fields of their own.

Run from the repository root: ``python tests/benchmarks/bench_crf.py [number of images]``. The forms
see the same images in turn within one run, and must give the same labels. Maps are blurred boxes:
they only decide how many labels there are (here 2 and 3).
"""

import json
import os
import statistics
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

sys.path.insert(0, str(Path(__file__).parents[2]))

from rayseg.refine.crf import LabelCRF
from tests.reference.crf_literal import cam_to_ir_label

DATA = Path(os.environ.get("RAYSEG_DATA", Path(__file__).parents[3] / "shared" / "data"))
IMAGES = DATA / "voc_animals/VOCdevkit/VOC2012/JPEGImages"


def load(count):
    if not IMAGES.exists():
        rng = np.random.default_rng(0)
        noise = rng.normal(128, 400, (count, 375, 500, 3))
        return list(gaussian_filter(noise, (0, 4, 4, 0)).clip(0, 255).astype(np.uint8))
    paths = sorted(IMAGES.iterdir())
    return [np.asarray(Image.open(path).convert("RGB")) for path in paths[:: len(paths) // count]]


def draw_maps(size, count, rng):
    maps = np.zeros((count, *size), np.float32)
    for plane in maps:
        row, column = (int(rng.integers(side // 2)) for side in size)
        plane[row : row + size[0] // 2, column : column + size[1] // 2] = 1
    return gaussian_filter(maps, (0, 25, 25)).clip(0, 1)


def seconds(call, *arguments):
    start = time.perf_counter()
    result = call(*arguments)
    return time.perf_counter() - start, result


def main(count):
    rng, crf = np.random.default_rng(0), LabelCRF()
    shared, separate = [], []
    for number, image in enumerate(load(count)[:count]):
        classes = [3, 11][: 1 + number % 2]
        maps = draw_maps(image.shape[:2], len(classes), rng)
        first, labels = seconds(crf, image, maps, classes)
        second, expected = seconds(cam_to_ir_label, image, maps, classes, 0.30, 0.05)
        if not np.array_equal(labels, expected):
            raise AssertionError(f"image {number}: the two forms differ")
        shared.append(first)
        separate.append(second)
    ours, theirs = statistics.median(shared), statistics.median(separate)
    return {
        "images": len(shared),
        "real_images": IMAGES.exists(),
        "one_lattice_s": round(ours, 4),
        "two_fields_s": round(theirs, 4),
        "ratio_of_medians": round(theirs / ours, 3),
        "labels": "equal",
    }


if __name__ == "__main__":
    report = main(int(sys.argv[1]) if len(sys.argv) > 1 else 12)
    sys.stdout.write(json.dumps(report, indent=2) + "\n")
