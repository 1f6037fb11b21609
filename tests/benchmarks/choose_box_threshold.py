"""The foreground threshold of `BoxCRF`, chosen on train objects that `measure_boxes.py` leaves out.

Run from the repository root, on maps of objects that were made already (`--list FILE` writes the
ids of the images to make them for):

    python tests/benchmarks/choose_box_threshold.py --maps runs/voc_boxes/box_maps/bbam

The objects come from the same fixed draw, after the forty that are measured, and none from an image
of theirs. The table has the mean IoU of all, and of those that the detector finds.
"""

import argparse
import json
from functools import partial
from multiprocessing import Pool
from pathlib import Path

import numpy as np
import torch
from measure_boxes import RESULTS, draw_objects, fill, grab_cut, iou

from rayseg.attribution import enlarge_grid
from rayseg.records.images import decode_image
from rayseg.refine import BoxCRF
from rayseg.stages import places_of
from rayseg.store import Folder, read_rows, unpack_grid

MEASURED = 40
BACKGROUND = 0.1  # below all that are tried; it makes no difference to the foreground


def draw_others(run, split, number):
    """As `draw_objects`, of images that have none of the objects that are measured."""
    objects = draw_objects(run, split, 3 * (MEASURED + number))
    measured = {sample.id for sample, *_ in draw_objects(run, split, MEASURED)}
    return [one for one in objects if one[0].id not in measured][:number]


def map_of(row, sample, place):
    """(status, grid) of an object in a row of maps."""
    places = places_of(row, vars(sample))
    if place not in places:
        raise ValueError(f"maps must hold object {place} of {sample.id}, found none")
    i = places.index(place)
    return row["object_status"][i], torch.from_numpy(unpack_grid(row["maps"][i]))


def ious_of(work, foregrounds):
    """What the detector said of an object, and its IoU by each way."""
    row, (sample, place, truth, counted) = work
    status, grid = map_of(row, sample, place)
    image = decode_image(Path(sample.path).read_bytes()).pixels
    maps = enlarge_grid(grid, image.shape[:2]).numpy().astype(np.float32)[None]
    box = sample.boxes_xyxy[place][None]
    masks = {"filled box": fill(sample, place), "GrabCut": grab_cut(sample, place)}
    for foreground in foregrounds:
        refine = BoxCRF(foreground=foreground, background=BACKGROUND)
        masks[str(foreground)] = refine(image, maps, box)[0].foreground
    return status, {name: iou(mask, truth, counted) for name, mask in masks.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--maps", type=Path, required=True, help="RUN/box_maps/METHOD")
    parser.add_argument("--split", default="train")
    parser.add_argument("--objects", type=int, default=20)
    parser.add_argument(
        "--foregrounds", type=float, nargs="+", default=[0.85, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3]
    )
    parser.add_argument("--list", type=Path, help="only writes the ids of the objects' images")
    parser.add_argument("--name", help="of the file in results/; none is written without it")
    given = parser.parse_args()
    objects = draw_others(str(given.maps.parents[1]), given.split, given.objects)
    if given.list:
        given.list.write_text("\n".join(dict.fromkeys(s.id for s, *_ in objects)) + "\n")
        return
    rows = {row["id"]: row for row in read_rows(Folder(str(given.maps)))}
    work = [(rows[one[0].id], one) for one in objects]
    with Pool() as pool:
        found = pool.map(partial(ious_of, foregrounds=given.foregrounds), work)
    facts = {
        "maps": given.maps.name,
        "objects": [{"id": sample.id, "place": place} for sample, place, *_ in objects],
        "statuses": [status for status, _ in found],
        "mean_iou": _means([ious for _, ious in found]),
        "mean_iou_of_found": _means([ious for status, ious in found if status == "ok"]),
    }
    for name in ("mean_iou", "mean_iou_of_found"):
        print(name, facts[name])
    if given.name:
        (RESULTS / f"{given.name}.json").write_text(json.dumps(facts, indent=1) + "\n")


def _means(ious):
    return {name: round(100 * float(np.mean([one[name] for one in ious])), 2) for name in ious[0]}


if __name__ == "__main__":
    main()
