"""Masks made from boxes against true masks, beside the filled box and GrabCut: a table.

Run from the repository root, on run folders whose masks of objects were made already; each is given
a name that the table calls it by:

    python tests/benchmarks/measure_boxes.py --name boxes-voc40 \\
        --masks "BBAM, YOLOX=runs/voc_yolox/masks/bbam+box_crf" ...

The objects are those that a semantic mask tells apart (`AloneInBox`: alone of their class, and the
extent of its pixels agrees with the box), a fixed draw of them; the result says which they are.
GrabCut is OpenCV's, started from the box, five iterations. Ignored pixels of the truth (255, VOC's
borders) count for neither.
"""

import argparse
import json
from pathlib import Path

import cv2
import numpy as np

from rayseg.records import IGNORE
from rayseg.records.images import decode_image
from rayseg.records.rle import decode_mask
from rayseg.stages import TrueObjects, places_of
from rayseg.store import Folder, read_manifest, read_rows

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "tests/benchmarks/results"


def draw_objects(run, split, number, seed=0):
    """A fixed draw: (sample, place, true mask, pixels that count) of each object."""
    truths = TrueObjects(Folder(run) / "manifest", split)
    samples = {s.id: s for s in read_manifest(Folder(run) / "manifest").select(split).samples()}
    known = []
    for id_ in sorted(truths.rows):
        sample = samples[id_]
        size_hw = (sample.height, sample.width)
        counted = truths.truths.read(id_, size_hw) != IGNORE
        for place, mask in sorted(truths.masks(id_, size_hw).items()):
            known.append((sample, place, mask, counted))
    chosen = np.random.default_rng(seed).permutation(len(known))[:number]
    return [known[i] for i in sorted(chosen)]


def read_masks(folder, objects):
    """The mask of each object in a folder of masks; None where it has none."""
    wanted = {sample.id for sample, *_ in objects}
    rows = {row["id"]: row for row in read_rows(Folder(folder)) if row["id"] in wanted}
    found = []
    for sample, place, *_ in objects:
        row = rows.get(sample.id)
        places = places_of(row, vars(sample)) if row else []
        mask = None
        if place in places:
            counts = row["foreground"][places.index(place)]
            mask = decode_mask(counts, (row["height"], row["width"]))
        found.append(mask)
    return found


def fill(sample, place):
    """The box itself as a mask."""
    mask = np.zeros((sample.height, sample.width), bool)
    x1, y1, x2, y2 = np.round(sample.boxes_xyxy[place]).astype(int)
    mask[max(y1, 0) : y2, max(x1, 0) : x2] = True
    return mask


def grab_cut(sample, place):
    """OpenCV's GrabCut, started from the box."""
    cv2.setRNGSeed(0)
    image = decode_image(Path(sample.path).read_bytes()).pixels[..., ::-1].copy()
    state = np.full(image.shape[:2], cv2.GC_BGD, np.uint8)
    state[fill(sample, place)] = cv2.GC_PR_FGD
    if (state == cv2.GC_BGD).sum() < 10:  # a box that is the whole image leaves no background
        return fill(sample, place)
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.grabCut(image, state, None, *models, 5, cv2.GC_INIT_WITH_MASK)
    return (state == cv2.GC_FGD) | (state == cv2.GC_PR_FGD)


def iou(mask, truth, counted):
    union = ((mask | truth) & counted).sum()
    return float((mask & truth & counted).sum() / union)


def figures(ious):
    return {
        "mean_iou": round(100 * float(np.mean(ious)), 2),
        "median_iou": round(100 * float(np.median(ious)), 2),
        "over_50": round(100 * float(np.mean(np.array(ious) > 0.5)), 1),
        "objects": len(ious),
        "ious": [round(value, 4) for value in ious],
    }


def options():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--masks", nargs="+", required=True, help="NAME=RUN/masks/FOLDER")
    parser.add_argument("--split", default="train")
    parser.add_argument("--objects", type=int, default=40)
    parser.add_argument("--name", default="boxes", help="of the file in results/")
    parser.add_argument("--list", type=Path, help="only writes the ids of the objects' images")
    return parser.parse_args()


def main():
    given = options()
    named = dict(one.split("=", 1) for one in given.masks)
    run = str(Path(next(iter(named.values()))).parents[1])
    objects = draw_objects(run, given.split, given.objects)
    if given.list:
        given.list.write_text("\n".join(dict.fromkeys(s.id for s, *_ in objects)) + "\n")
        return
    columns = {
        "filled box": [fill(sample, place) for sample, place, *_ in objects],
        "GrabCut": [grab_cut(sample, place) for sample, place, *_ in objects],
    } | {name: read_masks(folder, objects) for name, folder in named.items()}
    results = {}
    for name, masks in columns.items():
        nothing = [np.zeros_like(truth) for _, _, truth, _ in objects]
        made = [
            one if one is not None else empty for one, empty in zip(masks, nothing, strict=True)
        ]
        columns[name] = made
        pairs = zip(made, objects, strict=True)
        results[name] = figures(
            [iou(mask, truth, counted) for mask, (_, _, truth, counted) in pairs]
        )
        results[name]["missing"] = sum(one is None for one in masks)
        facts = results[name]
        print(
            f"{name:28} {facts['mean_iou']:5.1f} median {facts['median_iou']:5.1f} "
            f"over .5 {facts['over_50']:5.1f} missing {facts['missing']}"
        )
    stated = [{"id": sample.id, "place": place} for sample, place, *_ in objects]
    facts = {"split": given.split, "objects": stated, "results": results}
    (RESULTS / f"{given.name}.json").write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
