"""BBAM against the straightforward procedure, in one run, at equal masks.

Run from the repository root: ``python tests/benchmarks/bench_bbam.py [--help]``. It needs a trained
two-stage detector, by default that of `rayseg train-detector --config jobs/presets/voc_boxes.toml`.
Rounds of the forms alternate, so that whatever else the machine does hits all of them alike. The
straightforward form does what the authors' code does (tests/reference/bbam_straightforward.py): one
object at a time; in each step it reads the image anew and runs the whole detector, proposals and
suppression with it, with gradients for all weights, and a Python loop over the positives. Ours runs
on the whole image in float32, on windows in float32, and on windows in bf16, from the same pixels
and the same positives. Objects that the detector misses take no time of either and are left out.

That ours on the whole image and the straightforward form are the same procedure is shown in float64
(`--double-steps`): in float32 an |t - t'| near 0 may slope up in one and down in the other, after
which the two go apart. What windows and precision change is said as the IoU of the masks that
`BoxCRF` makes of the maps, with those of ours on the whole image in float32.
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

sys.path.insert(0, str(Path(__file__).parents[2]))

from rayseg.attribution import BBAM, Objects, enlarge_grid
from rayseg.nets.detectors import load_detector
from rayseg.nets.detectors.feeding import resizing
from rayseg.refine import BoxCRF
from tests.reference import bbam_straightforward

ROOT = Path(__file__).parents[2]
VOC = ROOT.parent / "shared/data/voc_animals/VOCdevkit/VOC2012"
COCO = ROOT.parent / "shared/data/coco_mini"
DETECTOR = "runs/voc_boxes/detector/detector.safetensors"
CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train",
    "tvmonitor",
)  # fmt: skip
FORMS = {
    "full fp32": {"region": "full", "precision": "fp32"},
    "windows fp32": {"region": "windows", "precision": "fp32"},
    "windows bf16": {"region": "windows", "precision": "bf16"},
}


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--detector", default=DETECTOR, help="a .safetensors file that rayseg wrote"
    )
    parser.add_argument("--classes", nargs="+", default=CLASSES, help="that the detector counts")
    parser.add_argument("--data", default="voc", choices=["voc", "coco"])
    parser.add_argument("--images", type=int, default=2)
    parser.add_argument(
        "--side", type=int, default=0, help="shorter side of inputs; 0 leaves the detector's own"
    )
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--margin", type=float, default=BBAM().window_margin)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--double-steps", type=int, default=20, help="0 leaves float64 out")
    parser.add_argument("--forms", nargs="+", default=list(FORMS), choices=list(FORMS))
    parser.add_argument("--no-straightforward", action="store_true", help="ours against full fp32")
    parser.add_argument("--threads", type=int, default=0, help="0 leaves torch's own choice")
    parser.add_argument("--out", type=Path, default=ROOT / "tests/benchmarks/results")
    return parser.parse_args()


def show_larger(detector, side):
    """The detector's inputs with another shorter side, in COCO's 3 to 5."""
    detector.test_side, detector.max_side = side, side * 5 // 3
    detector.fit_test = resizing((side,), detector.max_side)


def voc_objects(classes):
    """Every image of VOC with its boxes."""
    for path in sorted((VOC / "JPEGImages").glob("*.jpg")):
        tree = ElementTree.parse(VOC / "Annotations" / f"{path.stem}.xml")
        boxes = [
            (
                one.findtext("name"),
                [
                    float(one.findtext(f"bndbox/{side}"))
                    for side in ("xmin", "ymin", "xmax", "ymax")
                ],
            )
            for one in tree.iter("object")
        ]
        yield path, known_objects(boxes, classes, torch.tensor([1.0, 1, 0, 0]))


def coco_objects(classes):
    """Every image of COCO with its boxes."""
    facts = json.loads((COCO / "annotations/instances_train2017.json").read_text())
    names = {one["id"]: one["name"] for one in facts["categories"]}
    boxes = {one["id"]: [] for one in facts["images"]}
    for one in facts["annotations"]:
        x, y, width, height = one["bbox"]
        if not one["iscrowd"]:
            corners = [x, y, x + width, y + height]
            boxes[one["image_id"]].append((names[one["category_id"]], corners))
    for image in facts["images"]:
        path = COCO / "train2017" / image["file_name"]
        yield path, known_objects(boxes[image["id"]], classes, torch.zeros(4))


def known_objects(boxes, classes, shift):
    """Those that the detector has classes for."""
    kept = [(classes.index(name), corners) for name, corners in boxes if name in classes]
    corners = torch.tensor([corners for _, corners in kept]).reshape(-1, 4) - shift
    return Objects(corners, torch.tensor([index for index, _ in kept], dtype=torch.int64))


DATA = {"voc": voc_objects, "coco": coco_objects}


def choose(method, prepared, data, classes, number):
    """(path, objects that the detector finds) of so many images, a fixed draw."""
    every = list(DATA[data](classes))
    work = []
    for i in np.random.default_rng(0).permutation(len(every)):
        path, own = every[i]
        found = found_only(method, prepared, path, own) if len(own.classes) else own
        if len(found.classes):
            work.append((path, found))
        if len(work) == number:
            break
    return work


def load(path):
    return torch.from_numpy(np.array(Image.open(path).convert("RGB")))


def found_only(method, prepared, path, own):
    """The objects that the detector finds, since a missed one takes no steps."""
    (maps,) = replace(method, steps=0).run(prepared, load(path)[None], [own], [path.stem])
    kept = [i for i, one in enumerate(maps) if one.status == "ok"]
    return Objects(own.boxes_xyxy[kept], own.classes[kept])


def seconds(call):
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result


def our_grids(method, prepared, work):
    grids = []
    for path, own in work:
        (maps,) = method.run(prepared, load(path)[None], [own], [path.stem])
        if any(one.status != "ok" for one in maps):
            raise RuntimeError(f"objects must be found, got {[one.status for one in maps]}")
        grids += [one.grid for one in maps]
    return grids


def plain_grids(method, detector, work):
    grids = []
    for path, own in work:
        found = bbam_straightforward.bbam(
            detector, path.read_bytes(), own.boxes_xyxy, own.classes, path.stem, method
        )
        grids += [grid.float() for grid in found]
    return grids


def compare(options, detector, method, work):
    calls = {}
    if not options.no_straightforward:
        whole = bbam_straightforward.prepare(detector)
        calls["straightforward"] = lambda: plain_grids(method, whole, work)
    for name in options.forms:
        own = replace(method, **FORMS[name])
        prepared = own.prepare(detector, torch.device("cpu"))
        calls[name] = lambda m=own, p=prepared: our_grids(m, p, work)
    times, grids = {name: [] for name in calls}, {}
    for _ in range(options.rounds):
        for name, call in calls.items():
            taken, grids[name] = seconds(call)
            times[name].append(taken)
    first, count = next(iter(calls)), sum(len(own.classes) for _, own in work)
    masks = {name: masks_of(found, work) for name, found in grids.items()}
    medians = {name: statistics.median(values) for name, values in times.items()}
    full = masks.get("full fp32", masks[first])
    forms = [
        {
            "form": name,
            "seconds_an_object": medians[name] / count,
            "objects_per_second": count / medians[name],
            "ratio": medians[first] / medians[name],
            "largest_difference": largest_difference(grids[first], grids[name]),
            "mean_difference": mean_difference(grids[first], grids[name]),
            "iou_with_full": mask_ious(full, masks[name]),
        }
        for name in calls
    ]
    rounds = {name: [round(value, 2) for value in values] for name, values in times.items()}
    return {"forms": forms, "seconds_of_rounds": rounds}


def largest_difference(expected, found):
    """Of any cell of any grid; all lie in [0, 1]."""
    return max(float((a - b).abs().max()) for a, b in zip(expected, found, strict=True))


def mean_difference(expected, found):
    """Of an object's cells, the mean over objects."""
    pairs = zip(expected, found, strict=True)
    return statistics.mean(float((a - b).abs().mean()) for a, b in pairs)


def masks_of(grids, work):
    """The masks that `BoxCRF` makes of the maps, one an object."""
    masks, left = [], iter(grids)
    for path, own in work:
        image = load(path).numpy()
        maps = [enlarge_grid(next(left), image.shape[:2]).numpy() for _ in own.classes]
        boxes = own.boxes_xyxy.numpy()
        masks += [one.foreground for one in BoxCRF()(image, np.stack(maps), boxes)]
    return masks


def mask_ious(expected, found):
    """IoU of each object's two masks; 1 where both are empty."""
    ious = []
    for one, other in zip(expected, found, strict=True):
        union = int((one | other).sum())
        ious.append(round(int((one & other).sum()) / union, 4) if union else 1.0)
    return ious


def difference_in_double(detector, method, work, steps):
    """Largest difference of any cell between ours and the straightforward form in float64."""
    exact = replace(method, steps=steps, region="full", precision="fp32")
    detector = copy.deepcopy(detector).double()
    whole = bbam_straightforward.prepare(detector)
    prepared = exact.prepare(detector, torch.device("cpu"))
    return largest_difference(plain_grids(exact, whole, work), our_grids(exact, prepared, work))


def table(result):
    head = f"  {'form':16} {'s/object':>9} {'ratio':>6} {'max diff':>9} {'mean diff':>9} {'IoU':>6}"
    lines = [
        f"  {one['form']:16} {one['seconds_an_object']:9.2f} {one['ratio']:6.2f} "
        f"{one['largest_difference']:9.1e} {one['mean_difference']:9.1e} "
        f"{statistics.mean(one['iou_with_full']):6.3f}"
        for one in result["forms"]
    ]
    return "\n".join([head, *lines]) + "\n"


def main():
    options = parse()
    if options.threads:
        torch.set_num_threads(options.threads)
    if not Path(options.detector).is_file():
        raise SystemExit(f"detector must be a trained one, got no file {options.detector}")
    detector = load_detector(options.detector, tuple(options.classes))
    if options.side:
        show_larger(detector, options.side)
    method = replace(BBAM.official(), steps=options.steps, window_margin=options.margin)
    prepared = replace(method, precision="fp32").prepare(detector, torch.device("cpu"))
    work = choose(method, prepared, options.data, list(options.classes), options.images)
    name = str(torch.cpu.get_capabilities().get("cpu_name") or platform.machine())
    facts = {
        "machine": name,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "detector": options.detector,
        "data": options.data,
        "side": detector.test_side,
        "steps": options.steps,
        "margin": options.margin,
        "rounds": options.rounds,
        "images": [path.stem for path, _ in work],
        "objects": sum(len(own.classes) for _, own in work),
    }
    sys.stdout.write(json.dumps(facts) + "\n")
    if not facts["objects"]:
        raise SystemExit("objects must be found by the detector, got none")
    result = compare(options, detector, method, work)
    sys.stdout.write(table(result))
    if options.double_steps and not options.no_straightforward:
        apart = difference_in_double(detector, method, work[:1], options.double_steps)
        facts |= {"double_steps": options.double_steps, "largest_difference_in_double": apart}
        sys.stdout.write(f"  {options.double_steps} steps in float64: max diff {apart:.1e}\n")
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    options.out.mkdir(parents=True, exist_ok=True)
    what = f"{options.data}-{detector.test_side}-{options.steps}steps"
    path = options.out / f"bbam-{what}-{slug}.json"
    path.write_text(json.dumps({**facts, **result}, indent=2) + "\n")
    sys.stdout.write(f"written to {path}\n")


if __name__ == "__main__":
    main()
