"""mIoU of the masks that the preset laptop makes of few photos, on subsets of VOC animals.

Run from the repository root, for settings to choose between on the subsets 0 to 2, for those that
were chosen on 3 to 5, which are reported:

    python tests/benchmarks/measure_few_photos.py --root VOC2012 --subsets 0 1 2 --name A -- FLAGS

A subset is some classes and photos of VOC's train list that show one of them or more, drawn by its
number. The tags are those of its classes alone; what else a photo shows is background, as it is to
a user who does not ask for it. `--negatives N` adds N photos of the train list that show none of
the classes. Flags behind `--` are given to `rayseg run`. Masks are scored at the size they have in
the run, undecided pixels count as background, intervals are of 500 bootstrap draws of images.
"""

import argparse
import csv
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from measure_refiners import figures, masks_of
from PIL import Image

from rayseg.labels import Truths
from rayseg.store import Folder

RESULTS = Path(__file__).parent / "results"
ANIMALS = ("cat", "cow", "dog", "horse", "person", "sheep")
SUBSETS = ((50, 2), (80, 3), (120, 5), (50, 3), (80, 2), (120, 4))
"""Photos and classes of each; the first three are to choose on."""


def read_list(root, name):
    """Ids of the train list that show a class."""
    lines = (root / "ImageSets/Main" / f"{name}_train.txt").read_text().splitlines()
    masked = {path.stem for path in (root / "SegmentationClass").iterdir()}
    return {line.split()[0] for line in lines if line.split()[1] != "-1"} & masked


def palette(root):
    """Index of each animal in VOC's masks."""
    names = sorted(path.stem[:-6] for path in (root / "ImageSets/Main").glob("*_train.txt"))
    names = [name for name in names if name != "train"]
    return {name: names.index(name) + 1 for name in ANIMALS}


def lay_out(root, number, folder, num_negatives):
    """Writes the photos, tags, true masks and negatives of a subset; its classes."""
    count, num_classes = SUBSETS[number]
    random = np.random.default_rng(number)
    classes = sorted(random.choice(ANIMALS, num_classes, replace=False).tolist())
    shown = {name: read_list(root, name) for name in classes}
    ids = sorted(random.permutation(sorted(set().union(*shown.values())))[:count].tolist())
    values = palette(root)
    for part in ("photos", "masks", "negatives"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    with (folder / "tags.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["image", "tags"])
        for id_ in ids:
            rows.writerow([f"{id_}.jpg", " ".join(n for n in classes if id_ in shown[n])])
            truth = np.array(Image.open(root / "SegmentationClass" / f"{id_}.png"))
            own = np.where(truth == 255, np.uint8(255), np.uint8(0))
            for place, name in enumerate(classes):
                own[truth == values[name]] = place + 1
            Image.fromarray(own).save(folder / "masks" / f"{id_}.png")
            link(root, id_, folder / "photos")
    every = {path.stem for path in (root / "SegmentationClass").iterdir()}
    train = set().union(*(read_list(root, name) for name in ANIMALS)) & every
    others = sorted(train - set().union(*shown.values()))
    for id_ in random.permutation(others)[:num_negatives].tolist():
        link(root, id_, folder / "negatives")
    return classes


def link(root, id_, folder):
    """Shows a photo in a folder."""
    target = folder / f"{id_}.jpg"
    if not target.exists():
        target.symlink_to((root / "JPEGImages" / f"{id_}.jpg").absolute())


def run(folder, with_negatives, flags):
    """Makes the masks of a subset; the seconds that took."""
    command = [
        sys.executable, "-c", "import sys; from rayseg.cli import main; sys.exit(main())", "run",
        "--run", str(folder / "run"), "--data", "folder", "--folder.images", str(folder / "photos"),
        "--folder.tags", str(folder / "tags.csv"), "--folder.masks", str(folder / "masks"),
        "--preset", "laptop", "--until", "masks", *flags,
    ]  # fmt: skip
    if with_negatives:
        command += ["--folder.negatives", str(folder / "negatives")]
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return round(time.perf_counter() - start)


def measure(folder, classes):
    """Figures of each folder of masks, and the classes that are warned of and that are poor."""
    made, found = Folder(str(folder / "run")), {}
    truths = Truths(made / "manifest", "train")
    labels = range(len(classes) + 1)
    for name in (made / "masks").folders():
        whole, decided, undecided = masks_of(made / "masks" / name, truths, truths.ids)
        ids = sorted(whole)
        row = figures(whole, ids, labels, whole) | {"undecided": round(100 * undecided, 1)}
        total = sum((whole[id_] for id_ in ids[1:]), whole[ids[0]])
        each = percent(total.overlap.iou)
        row["classes"] = dict(zip(("background", *classes), each, strict=True))
        row["decided"] = figures(decided, ids, labels, whole)["iou"]
        row["covered"] = percent([total.counts[:, 1:].sum() / total.counts.sum()])[0]
        row["truly"] = percent([total.counts[1:].sum() / total.counts.sum()])[0]
        found[name] = row
    return found


def percent(values):
    """Rounded."""
    return [round(100 * float(value), 1) for value in values]


def options():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, required=True, help="folder VOC2012")
    parser.add_argument("--subsets", type=int, nargs="+", default=[3, 4, 5])
    parser.add_argument("--negatives", type=int, default=0, help="photos without the classes")
    parser.add_argument("--work", type=Path, default=Path("runs/few"), help="folder for the runs")
    parser.add_argument("--name", required=True, help="of the settings, in results/few-photos.json")
    parser.add_argument("flags", nargs="*", help="of rayseg run")
    return parser.parse_args()


def main():
    """Makes, scores and prints the subsets."""
    given = options()
    stored = RESULTS / "few-photos.json"
    rows = json.loads(stored.read_text()) if stored.exists() else {}
    for number in given.subsets:
        folder = given.work / given.name / str(number)
        classes = lay_out(given.root, number, folder, given.negatives)
        seconds = run(folder, given.negatives > 0, given.flags)
        found = measure(folder, classes)
        rows.setdefault(given.name, {})[str(number)] = found | {"seconds": seconds}
        for name, row in found.items():
            print(
                f"{given.name} {number} {name}: {row['iou']} {row['interval']}, decided "
                f"{row['decided']}, undecided {row['undecided']}, covers {row['covered']} of "
                f"{row['truly']}; {row['classes']}; {seconds} s",
                flush=True,
            )
    stored.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
