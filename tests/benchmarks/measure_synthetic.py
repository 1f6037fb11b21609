"""Whether maps on synthetic scenes show the known fault of CAM, from the seeds of a finished run.

Run from the repository root: ``python tests/benchmarks/measure_synthetic.py [run folder]``; the
default is runs/demo. The fault has two halves: a map is high on the part that tells the class and
low on the rest of its body, and it bleeds into the background that gives the class away (sky behind
birds, water under boats). So for each method, at its best threshold: mean map value and share of
pixels predicted as the class, on parts against bodies, and on the background of scenes with the
telling background against that of scenes of the same class with another one.
"""

import json
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from rayseg.datasets.synthetic import _FIRST_INDEX, CLASSES, CORRELATED, make_scene
from rayseg.scores import ThresholdSweep
from rayseg.stages import enlarge
from rayseg.store import Folder, read_rows, read_run, unpack_seeds

RESULT = Path(__file__).parent / "results" / "synthetic-fault.json"
THRESHOLDS = [n / 100 for n in range(1, 100)]
OBJECT = ("part", "body")
BACKGROUND = ("telling background", "other background")


@dataclass(frozen=True)
class Tally:
    """Pixels of one kind: sum of their map values, how many are predicted as the class, how many.

    It adds; `mean` and `share` are the ratios, nan where there is no pixel.
    """

    value: float = 0.0
    predicted: int = 0
    pixels: int = 0

    def __add__(self, other):
        return Tally(
            self.value + other.value, self.predicted + other.predicted, self.pixels + other.pixels
        )

    @property
    def mean(self):
        return self.value / self.pixels if self.pixels else float("nan")

    @property
    def share(self):
        return self.predicted / self.pixels if self.pixels else float("nan")


def tally(scene, maps, classes, threshold):
    """Tallies of one scene by (class name, kind of pixel).

    Args:
        scene: with its true masks and parts.
        maps: float32 (k, h, w) in [0, 1].
        classes: class index of each map.
        threshold: a pixel is its top class where that map is above, else background.
    """
    ground = np.full((1, *maps.shape[1:]), threshold, np.float32)
    winners = np.concatenate([ground, maps]).argmax(0)  # 0 or position in classes + 1
    found = {}
    for position, (class_index, plane) in enumerate(zip(classes, maps, strict=True)):
        name = CLASSES[class_index]
        mine = scene.instances.classes == class_index
        part = scene.parts[mine].any(0)
        kinds = {"part": part, "body": (scene.labels == class_index + 1) & ~part}
        if name in CORRELATED:
            kinds[BACKGROUND[scene.background != CORRELATED[name]]] = scene.labels == 0
        for kind, pixels in kinds.items():
            found[name, kind] = Tally(
                float(plane[pixels].sum(dtype=np.float64)),
                int((winners[pixels] == position + 1).sum()),
                int(pixels.sum()),
            )
    return found


def summed(tallies, kind):
    """The tally of one kind of pixel over all classes."""
    return sum((one for (_, its_kind), one in tallies.items() if its_kind == kind), Tally())


def scenes(seeds, synthetic):
    """Each stored row's scene, drawn again, and its maps at the image's size."""
    for row in read_rows(seeds):
        if row["status"] != "ok":
            continue
        split, _, number = row["id"].rpartition("_")
        index = _FIRST_INDEX[split] + int(number)
        scene = make_scene(synthetic["seed"], index, synthetic["size"], ood=split == "ood")
        if set(row["classes"]) != set(scene.tags):
            raise ValueError(f"{row['id']} is not the scene that {synthetic} draws")
        yield scene, enlarge(unpack_seeds(row)), row["classes"]


def measure(seeds, synthetic):
    """The figures of one method: by kind of pixel, over all classes and of each."""
    sweep = ThresholdSweep.zeros(len(CLASSES), THRESHOLDS)
    images = 0
    for scene, maps, classes in scenes(seeds, synthetic):
        sweep = sweep + ThresholdSweep.of(scene.labels, maps, classes, len(CLASSES), THRESHOLDS)
        images += 1
    if not images:
        raise SystemExit(f"{seeds} holds no seeds of an image with objects")
    mean_ious = sweep.mean_iou()
    best = int(np.nanargmax(mean_ious))
    threshold = THRESHOLDS[best]
    total = defaultdict(Tally)
    for scene, maps, classes in scenes(seeds, synthetic):
        for key, one in tally(scene, maps, classes, threshold).items():
            total[key] += one
    kinds = {kind: summed(total, kind) for kind in (*OBJECT, *BACKGROUND)}
    telling, other = (kinds[kind] for kind in BACKGROUND)
    return {
        "images": images,
        "threshold": threshold,
        "miou": float(mean_ious[best]),
        "all": {kind: plain(one) for kind, one in kinds.items()},
        "by_class": {f"{name}, {kind}": plain(one) for (name, kind), one in sorted(total.items())},
        "telling_of_false": telling.predicted / max((telling + other).predicted, 1),
        "telling_of_all": telling.pixels / max((telling + other).pixels, 1),
    }


def plain(one):
    ratios = {"mean_map": one.mean, "predicted": one.share} if one.pixels else {}
    return ratios | {"pixels": one.pixels}


def main():
    run = Folder(sys.argv[1] if len(sys.argv) > 1 else "runs/demo")
    config = read_run(run / "manifest").get("config", {})
    if config.get("data") != "synthetic":
        raise SystemExit(f"{run} must be a run on synthetic scenes, got {config.get('data')}")
    synthetic = config["synthetic"]
    methods = (run / "seeds").folders()
    if not methods:
        raise SystemExit(f"{run} holds no seeds; make them with `rayseg run`")
    result = {name: measure(run / "seeds" / name, synthetic) for name in methods}
    for name, figures in result.items():
        print(
            f"{name}: {figures['images']} images, mIoU {100 * figures['miou']:.1f} at threshold "
            f"{figures['threshold']:.2f}; of the background predicted as bird or boat "
            f"{figures['telling_of_false']:.0%} lies in scenes of sky or water, of all their "
            f"background {figures['telling_of_all']:.0%}"
        )
        print(f"  {'pixels of':20}{'mean map':>10}{'predicted':>11}")
        for kind, one in figures["all"].items():
            if one["pixels"]:
                print(f"  {kind:20}{one['mean_map']:10.3f}{one['predicted']:11.3f}")
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps({"synthetic": synthetic, "methods": result}, indent=1) + "\n")


if __name__ == "__main__":
    main()
