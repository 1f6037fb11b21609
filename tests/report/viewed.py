"""Runs without any truth to be looked at, small or of many images."""

import numpy as np
from PIL import Image

from rayseg import store
from rayseg.records import Sample
from rayseg.records.palette import encode_labels

CLASSES = ["cat", "cow", "<b>dog</b>"]
SIZE_HW = (48, 64)
RESULT = "masks/cam+crf"
NO_BOXES = np.zeros((0, 4), np.float32), np.zeros(0, np.int64)


def labels_of(number):
    """The class of the image's number in the upper half, the lower rows undecided, more each."""
    labels = np.zeros(SIZE_HW, np.uint8)
    labels[:24] = number % 3 + 1
    labels[48 - 4 * (number % 5) :] = 255
    return labels


def id_of(number):
    return f"{'val' if number % 4 == 3 else 'train'}/Img {number}"


def tags_of(number):
    """Every sixth has one more tag than its mask has classes, every eighth none."""
    if number % 8 == 0:
        return ()
    more = {(number + 1) % 3} if number % 6 == 1 else set()
    return tuple(sorted({number % 3} | more))


def status_of(number):
    return "empty" if number % 8 == 0 else "error" if number == 2 else "ok"


def row_of(number):
    row = {"id": id_of(number), "status": status_of(number), "height": 48, "width": 64}
    if row["status"] == "error":
        row["error"] = "cut <short> & empty"
    if row["status"] != "ok":
        return row
    labels = labels_of(number)
    return row | {"labels": encode_labels(labels), "ignored": float((labels == 255).mean())}


def make_run(place, number=10, results=(RESULT,), photos=3, classes=CLASSES):
    """A run of that many images that share a few photos, with masks and seeds and no truth."""
    rng = np.random.default_rng(0)
    (place / "photos").mkdir(parents=True)
    paths = [place / "photos" / f"{n}.jpg" for n in range(photos)]
    for path in paths:
        Image.fromarray(rng.integers(0, 255, (*SIZE_HW, 3), np.uint8)).save(path)
    samples = (
        Sample(
            id_of(n), str(paths[n % photos]), *SIZE_HW, tags_of(n), *NO_BOXES,
            id_of(n).partition("/")[0],
        )
        for n in range(number)
    )  # fmt: skip
    run = store.Folder(str(place / "my run"))
    store.write_manifest(run / "manifest", samples, classes)
    for name in results:
        store.write_run(run / name, {"kind": "masks", "config": {}})
        for start in range(0, number, 2048):
            rows = [row_of(n) for n in range(start, min(number, start + 2048))]
            store.write_shard(run / name, store.rows_to_table(rows, store.MASKS_SCHEMA))
        store.read_index(run / name)
    _add_seeds(run)
    return run


def _add_seeds(run):
    maps = np.zeros((1, 12, 16), np.float32)
    maps[0, 2:6, 2:6] = 0.8
    row = {"id": id_of(1), "status": "ok", "height": 48, "width": 64, "seconds": 1.5, "steps": 7}
    row |= {"classes": [1], "maps": store.pack_maps(maps), "scores": [2.0], "gains": [float("nan")]}
    store.write_run(run / "seeds/cam", {"kind": "seeds", "config": {}})
    store.write_shard(run / "seeds/cam", store.rows_to_table([row], store.SEEDS_SCHEMA))
