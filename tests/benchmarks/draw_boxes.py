"""Masks that are made from boxes of COCO images which may be published: docs/boxes-coco.png.

Run from the repository root; it takes some minutes and prints the credits of the images:

    python tests/benchmarks/draw_boxes.py

It needs coco_mini and YOLOX-nano in ../shared/data (or in $RAYSEG_DATA). The images are the first
eight, by id, of COCO's train2017 there that are licensed CC BY 2.0 (`license` 4), show no person
that the annotations name, and have an object whose mask covers 10 to 60 % of the image. The largest
such object is drawn, whatever its masks look like. Licence 5 is left out, since its share-alike
clause would bind the picture.
"""

import os
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from measure_boxes import fill, grab_cut, iou
from PIL import Image
from pycocotools.coco import COCO

from rayseg.attribution import BBAM, Objects, enlarge_grid
from rayseg.nets.detectors import load_detector
from rayseg.records import Sample
from rayseg.records.images import decode_image
from rayseg.refine import BoxCRF

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("RAYSEG_DATA", ROOT.parent / "shared/data"))
PICTURE = ROOT / "docs/boxes-coco.png"
CC_BY = 4
SHARES = 0.1, 0.6
SHOWN = 8
WAYS = {
    "official values": (BBAM.official(), BoxCRF.official()),
    "lambda 0.002,\nthreshold 0.3": (
        replace(BBAM.official(), sparsity=0.002),
        replace(BoxCRF.official(), foreground=0.3),
    ),
}


def choose(coco):
    """(facts of the image, annotation) of the objects that are shown, by the rule above."""
    (person,) = coco.getCatIds(catNms=["person"])
    chosen = []
    for facts in sorted(coco.dataset["images"], key=lambda one: one["id"]):
        all_ = coco.loadAnns(coco.getAnnIds(facts["id"]))
        low, high = (share * facts["height"] * facts["width"] for share in SHARES)
        fitting = [one for one in all_ if not one["iscrowd"] and low <= one["area"] <= high]
        people = any(one["category_id"] == person for one in all_)
        if facts["license"] == CC_BY and fitting and not people:
            chosen.append((facts, max(fitting, key=lambda one: one["area"])))
    return chosen[:SHOWN]


def as_sample(facts, annotation, coco):
    """The image with that one box; classes are counted as YOLOX counts COCO's."""
    x, y, width, height = annotation["bbox"]
    index = sorted(coco.getCatIds()).index(annotation["category_id"])
    return Sample(
        str(facts["id"]),
        str(DATA / "coco_mini/train2017" / facts["file_name"]),
        facts["height"],
        facts["width"],
        (index,),
        np.array([[x, y, x + width, y + height]], np.float32),
        np.array([index]),
    )


def explain(method, detector, image, sample):
    """The status of the object, and its map at the image's size."""
    objects = Objects(torch.from_numpy(sample.boxes_xyxy), torch.from_numpy(sample.box_classes))
    ((found,),) = method.run(detector, torch.from_numpy(image)[None], [objects], [sample.id])
    return found.status, enlarge_grid(found.grid, image.shape[:2]).numpy()


def darken(image, mask):
    """The image, with a quarter of its brightness outside the mask."""
    return (image * np.where(mask, 1.0, 0.25)[..., None]).astype(np.uint8)


def panels(detector, sample, truth):
    """(column, what is written over the panel, its pixels) of a row, from left to right."""
    image = decode_image(Path(sample.path).read_bytes()).pixels.copy()

    def masked(column, mask):
        percent = 100 * iou(mask, truth, np.ones_like(truth))
        return column, f"{percent:.0f}", darken(image, mask)

    row = [("image", "", image), ("truth", "", darken(image, truth))]
    row += [masked("filled box", fill(sample, 0)), masked("GrabCut", grab_cut(sample, 0))]
    for name, (method, refiner) in WAYS.items():
        status, map_ = explain(replace(method, precision="fp32"), detector, image, sample)
        (made,) = refiner(image, map_[None], sample.boxes_xyxy)
        row.append((f"BBAM map,\n{name}", "" if status == "ok" else status, map_))
        row.append(masked(f"BBAM mask,\n{name}", made.foreground))
    return row


def draw(rows, samples, labels):
    """Photographs in colour, maps from black (0) to white (1)."""
    shape = len(rows), len(rows[0])
    figure = Figure(figsize=(1.45 * shape[1], 1.35 * shape[0]), layout="constrained")
    axes = figure.subplots(*shape, squeeze=False)
    for i, (row, sample, label) in enumerate(zip(rows, samples, labels, strict=True)):
        x1, y1, x2, y2 = sample.boxes_xyxy[0]
        for axis, (column, told, pixels) in zip(axes[i], row, strict=True):
            axis.imshow(pixels, cmap="gray", vmin=0, vmax=1)
            axis.plot([x1, x2, x2, x1, x1], [y1, y1, y2, y2, y1], color="yellow", linewidth=0.8)
            axis.set_axis_off()
            written = label if column == "image" else told
            axis.set_title(f"{column}\n\n{written}" if i == 0 else written, fontsize=7, pad=2)
    buffer = BytesIO()
    figure.savefig(buffer, dpi=110)
    picture = Image.open(buffer).convert("RGB")
    # 256 colours take a third of the bytes; only with a palette given does Pillow dither
    picture.quantize(palette=picture.quantize(256)).save(PICTURE, optimize=True)


def main():
    coco = COCO(DATA / "coco_mini/annotations/instances_train2017.json")
    licence = next(one for one in coco.dataset["licenses"] if one["id"] == CC_BY)
    detector = load_detector(str(DATA / "weights/yolox_nano.onnx"))
    rows, samples, labels = [], [], []
    for facts, annotation in choose(coco):
        samples.append(as_sample(facts, annotation, coco))
        rows.append(panels(detector, samples[-1], coco.annToMask(annotation).astype(bool)))
        (category,) = coco.loadCats(annotation["category_id"])
        labels.append(f"{facts['id']}, {category['name']}")
        print(f"[{facts['id']}]({facts['flickr_url']})", [told for _, told, _ in rows[-1]])
    print(f"{licence['name']}: {licence['url']}")
    draw(rows, samples, labels)


if __name__ == "__main__":
    main()
