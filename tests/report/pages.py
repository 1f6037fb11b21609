"""A run to make pages of, and what a browser would read on them."""

import base64
import io
from html.parser import HTMLParser

import numpy as np
from PIL import Image

from rayseg import store
from rayseg.records import Sample
from rayseg.records.palette import encode_labels
from rayseg.report.page import write_report

CLASSES = ["cat", "<b>dog</b>", "$cow$"]
DASH = "\N{EN DASH}"
SCRIPT = "<script>alert(1)</script>"
SIZE_HW = (48, 64)
STAGES = ("seeds/cam", "seeds/advcam", "masks/advcam+crf")


class Page(HTMLParser):
    """Elements, attributes and the cells of each table, read as a browser would.

    `highest` has for each table the cells that stand out in their column.
    """

    def __init__(self, text):
        super().__init__()
        self.html = text
        self.elements, self.tables, self.words, self.highest = [], [], [], []
        self._cell = None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag == "table":
            self.tables.append([])
            self.highest.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self._cell = []
            self._stands_out = dict(attrs).get("class") == "highest"

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            text = " ".join("".join(self._cell).split())
            self.tables[-1][-1].append(text)
            self.highest[-1] += [text] if self._stands_out else []
            self._cell = None

    def handle_data(self, data):
        self.words.append(data)
        if self._cell is not None:
            self._cell.append(data)

    def images(self, alt):
        found = [a["src"] for tag, a in self.elements if tag == "img" and alt in a.get("alt", "")]
        return [np.asarray(Image.open(io.BytesIO(_decode(uri)))) for uri in found]

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


def _decode(uri):
    return base64.b64decode(uri.partition("base64,")[2])


def square(label, border=0):
    """The label in the left upper quarter, pixels to ignore in the right lower one."""
    labels = np.zeros(SIZE_HW, np.uint8)
    labels[border : 24 - border, border : 32 - border] = label
    labels[24:, 32:] = 255
    return labels


def score(miou, **more):
    base = {"split": "train", "images": 6, "miou": miou, "threshold": None}
    base |= {"precision": miou + 0.1, "recall": miou + 0.05, "f1": miou + 0.075}
    labels = ["background", *CLASSES]
    iou = {label: {"iou": miou, "precision": 1, "recall": 1, "f1": 1} for label in labels}
    return base | {"per_class": iou} | more


def make_scores():
    sweep = {"thresholds": [0.2, 0.4, 0.6], "miou": [0.3, 0.42, None]}
    sizes = {"bounds_px": [1, 2], "small": {"miou": 0.2}, "large": {"iou": 0.6}, "medium": None}
    return {
        "masks/advcam+crf": score(
            0.617,
            sizes=sizes,
            best=[{"id": "img1", "miou": 0.7}, {"id": "img0", "miou": 0.9}],
            worst=[{"id": "img3", "miou": 0.2}, {"id": "img2", "miou": 0.1}],
        ),
        "seeds/advcam": score(0.523, threshold=0.41, sweep=sweep, sizes=sizes),
        "seeds/cam": score(0.4, threshold=0.27, sweep=sweep, f1=None, recall=float("nan")),
    }


def make_predicted_scores():
    """Higher than those of `make_scores`, as the page must not take them for the final masks."""
    base = {"split": "val", "images": 3}
    ratio = {"miou": 0.85, "over": None, "present": 0.9}
    return {
        "predictions/advcam+label_crf": score(
            0.68,
            **base,
            of_full_supervision=ratio,
            best=[{"id": "val0", "miou": 0.75}],
            worst=[{"id": "val2", "miou": 0.25}, {"id": "val1", "miou": 0.15}],
        ),
        "predictions/advcam+label_crf+crf": score(
            0.66, **base, of_full_supervision=ratio | {"miou": 0.8}
        ),
        "predictions/truth": score(0.8, **base, of_full_supervision=None),
    }


def make_samples(folder):
    """Six images of train and one that nobody can read, three of val."""
    rng = np.random.default_rng(0)
    ids = [*(f"img{place}" for place in range(6)), SCRIPT, "val0", "val1", "val2"]
    for place, name in enumerate(ids):
        label = place % 3 + 1
        image, mask = folder / f"{place}.png", folder / f"{place}-mask.png"
        Image.fromarray(rng.integers(0, 255, (*SIZE_HW, 3), np.uint8)).save(image)
        mask.write_bytes(encode_labels(square(label)))
        none = np.zeros((0, 4), np.float32), np.zeros(0, np.int64)
        yield Sample(name, str(image), *SIZE_HW, (label - 1,), *none, _split(name), str(mask))


def _split(name):
    return "val" if name.startswith("val") else "train"


def make_row(sample, stage):
    row = {"id": sample.id, "status": "ok", "height": 48, "width": 64, "seconds": 0.5}
    if sample.id == SCRIPT:
        return row | {"status": "error", "error": "cut <short> & empty"}
    if stage == "predictions/truth" and sample.id == "val1":
        return row | {"status": "error", "error": "unreadable <here>"}
    if not stage.startswith("seeds"):
        note = "grey converted to RGB" if sample.id == "val0" else ""
        border = {"predictions/truth": 0, "predictions/advcam+label_crf+crf": 6}.get(stage, 4)
        return row | {"note": note, "labels": encode_labels(square(sample.tags[0] + 1, border))}
    maps = np.zeros((1, 12, 16), np.float32)
    maps[0, :6, :8] = 1
    note = "grey converted to RGB" if sample.id == "img0" else ""
    return row | {"classes": list(sample.tags), "maps": store.pack_maps(maps), "note": note}


def read_page(run, **options):
    address = write_report(run, **options)
    assert address == run.path("report.html")
    return Page(run.read("report.html").decode())


def examples(page, which):
    """Ids shown in the list of that name, in order."""
    found, inside = [], ""
    for tag, attrs in page.elements:
        if tag == "section":
            inside = attrs.get("id", "")
        inside = attrs.get("data-list", inside)
        if tag == "img" and inside == which and attrs.get("alt", "").startswith("the image "):
            found.append(attrs["alt"].removeprefix("the image "))
    return found
