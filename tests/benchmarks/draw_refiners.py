"""The course of refiners on a drawn scene: docs/crf.png and docs/walk.png.

Run from the repository root; it takes seconds and needs no data and no network:

    python tests/benchmarks/draw_refiners.py

No network has seen these scenes. The map of each class is its true mask, blurred as maps
of networks are; the edges of the walk are the borders of the true masks, as a perfect IRNet would
find them. The pictures show what the refiners do, and not how good they are.
"""

from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from scipy.ndimage import gaussian_filter

from rayseg.datasets.synthetic import make_scene
from rayseg.records.painting import differs, painted
from rayseg.refine import LabelCRF
from rayseg.refine.crf import label_values
from rayseg.refine.walk import EdgeWalk

DOCS = Path(__file__).parents[2] / "docs"
SEED, SCENE, SIZE = 0, 3, 128
STEPS = 0, 2, 4, 6, 8
BACKGROUND = 0.25


def soft_maps(labels, classes):
    """A map for each class, strongest in its middle, as a network's would be."""
    maps = [
        gaussian_filter((labels == index + 1).astype(np.float32), SIZE / 14) for index in classes
    ]
    return np.stack([one / one.max() for one in maps]) ** 1.5


def cut(maps, classes, threshold):
    """The labels of maps that are cut at a threshold."""
    planes = np.concatenate([np.full((1, *maps.shape[1:]), threshold, np.float32), maps])
    return label_values(classes)[planes.argmax(0)].astype(np.uint8)


def save(name, panels):
    """Writes titled pictures side by side."""
    figure = Figure(figsize=(1.75 * len(panels), 2.0), layout="constrained")
    for axes, (title, pixels) in zip(figure.subplots(1, len(panels)), panels, strict=True):
        axes.imshow(pixels, cmap="magma", vmin=0, vmax=1 if pixels.ndim == 2 else None)
        axes.set_title(title, fontsize=8)
        axes.axis("off")
    figure.savefig(DOCS / name, dpi=120)


def main():
    scene = make_scene(SEED, SCENE, SIZE)
    image, labels = scene.image, scene.labels
    classes = [int(value) - 1 for value in np.unique(labels) if 0 < value < 255]
    maps = soft_maps(labels, classes)
    refiner = LabelCRF()
    high, low = refiner.fg_threshold, refiner.bg_threshold
    panels = [("image", image), ("map (blurred truth)", maps.max(0))]
    for threshold in (high, low):
        panels.append((f"cut at {threshold}", painted(image, cut(maps, classes, threshold))))
    panels.append(("both CRFs; hatched: undecided", painted(image, refiner(image, maps, classes))))
    save("crf.png", [*panels, ("truth", painted(image, labels))])

    edges = differs(labels.astype(np.int64)).astype(np.float32)
    course = EdgeWalk().course(torch.tensor(maps)[None], torch.tensor(edges)[None], STEPS)
    panels = [("image", image), ("edges (of the truth)", edges)]
    for steps, walked in zip(STEPS, course[:, 0].numpy(), strict=True):
        panels.append((f"{2**steps} steps" if steps else "1 step", walked.max(0) / walked.max()))
    masks = cut(course[-1, 0].numpy() / float(course[-1].max()), classes, BACKGROUND)
    save("walk.png", [*panels, ("mask", painted(image, masks))])


if __name__ == "__main__":
    main()
