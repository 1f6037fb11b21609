"""How soon `rayseg view` shows the first screen of a run of 10,000 images, and in how many bytes.

Run from the repository root: ``python tests/benchmarks/bench_view.py [folder [number of images]]``.
Chromium must be installed. Each start is a server of its own and a browser with an empty cache, and
the run's files are first put out of the page cache, where the system lets us. The clock of a view
is the browser's: it begins with the navigation and ends when all pictures of the first screen are
decoded and painted. The median of the starts is printed. The run is made once in the folder and
taken again by the next call.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

sys.path.insert(0, str(Path(__file__).parents[2]))

from rayseg import store
from rayseg.records import IGNORE, Sample
from rayseg.records.images import read_size
from rayseg.records.palette import decode_labels, encode_labels
from tests.report import chromium

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("RAYSEG_DATA", ROOT.parent / "shared" / "data"))
VOC = DATA / "voc_animals/VOCdevkit/VOC2012"
CLASSES = [f"class {n}" for n in range(20)]
STARTS = 5
SHARD_ROWS = 2048
NO_BOXES = np.zeros((0, 4), np.float32), np.zeros(0, np.int64)
SHELL = "import sys; from rayseg.cli import main; sys.exit(main())"
# Asks on each frame, so that the end is a frame that was painted.
WATCH = """
(() => {
  const seen = () => {
    const images = [...document.images].filter((one) => one.getBoundingClientRect().top < innerHeight);
    if (images.length && images.every((one) => one.complete && one.naturalWidth)) {
      Promise.all(images.map((one) => one.decode())).then(() => requestAnimationFrame(() =>
        setTimeout(() => { window.firstView = performance.now(); })));
    } else requestAnimationFrame(seen);
  };
  requestAnimationFrame(seen);
})();
"""  # noqa: E501
TIMES = """(() => {
  const page = performance.getEntriesByType("navigation")[0];
  const list = performance.getEntriesByType("resource").find((one) => one.name.includes("api/list"));
  return [page.responseStart, list ? list.responseEnd : 0, window.firstView];
})()"""  # noqa: E501


def photos(folder, number):
    """So many files, no two alike: those of VOC with a comment of their own, or blurred noise."""
    folder.mkdir(parents=True, exist_ok=True)
    sources = sorted((VOC / "JPEGImages").glob("*.jpg"))
    rng = np.random.default_rng(0)
    for n in range(number):
        path = folder / f"{n:05}.jpg"
        if sources:
            data = sources[n % len(sources)].read_bytes()
            path.write_bytes(data[:2] + b"\xff\xfe\x00\x07%05d" % n + data[2:])
        else:
            noise = rng.normal(128, 400, (375, 500, 3))
            grey = gaussian_filter(noise, (4, 4, 0)).clip(0, 255).astype(np.uint8)
            Image.fromarray(grey).save(path, quality=90)
        yield path, sources[n % len(sources)].stem if sources else ""


def mask_of(stem, size_hw, number):
    """The true mask of a photograph of VOC, else a disc of a class and a band undecided."""
    path = VOC / "SegmentationClass" / f"{stem}.png"
    if stem and path.exists():
        return decode_labels(path.read_bytes())
    rows, columns = np.indices(size_hw)
    disc = (rows - size_hw[0] / 2) ** 2 + (columns - size_hw[1] / 2) ** 2
    labels = np.where(disc < (size_hw[0] / 3) ** 2, number % len(CLASSES) + 1, 0)
    labels[: number % 40] = IGNORE
    return labels.astype(np.uint8)


def make_run(place, number):
    """A run of photographs and their masks, with no network in between."""
    samples, rows = [], []
    for n, (path, stem) in enumerate(photos(place / "photos", number)):
        size_hw = read_size(path)
        labels = mask_of(stem, size_hw, n)
        tags = tuple(int(one) - 1 for one in np.unique(labels) if 0 < one < IGNORE)
        samples.append(Sample(f"image{n:05}", str(path), *size_hw, tags, *NO_BOXES, "train"))
        row = {"id": f"image{n:05}", "status": "ok", "height": size_hw[0], "width": size_hw[1]}
        share = float((labels == IGNORE).mean())
        rows.append(row | {"labels": encode_labels(labels), "ignored": share, "seconds": 0.1})
    run = store.Folder(str(place / "run"))
    store.write_manifest(run / "manifest", samples, CLASSES)
    store.write_run(run / "masks/cam+crf", {"kind": "masks", "config": {}})
    rows.sort(key=lambda row: (row["height"], row["width"], row["id"]))  # as `compact` has them
    for start in range(0, number, SHARD_ROWS):
        table = store.rows_to_table(rows[start : start + SHARD_ROWS], store.MASKS_SCHEMA)
        store.write_shard(run / "masks/cam+crf", table)
    store.read_index(run / "masks/cam+crf")


def forget_files(place):
    """Puts the files of a folder out of the page cache."""
    os.sync()
    for path in (one for one in place.rglob("*") if one.is_file()):
        handle = os.open(path, os.O_RDONLY)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)


def one_start(place, tab):
    """What a server just started and an empty cache give: seconds, bytes and answers."""
    forget_files(place)
    tab.call("Network.clearBrowserCache")
    begun = time.perf_counter()
    server = subprocess.Popen(
        [sys.executable, "-c", SHELL, "view", str(place / "run")],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=os.environ,
        cwd=ROOT,
    )  # fmt: skip
    try:
        line = next(line for line in server.stdout if line.startswith("view: "))
        ready = time.perf_counter() - begun
        tab.events.clear()
        tab.call("Page.navigate", url=line.partition(" ")[2].strip())
        tab.wait_for("window.firstView")
        first_byte, listed, shown = (one / 1000 for one in tab.value(TIMES))
        amount, answers = tab.received()
        pictures = tab.value("document.images.length")
        tab.call("Page.navigate", url="about:blank")
    finally:
        server.terminate()
        server.wait()
    return {
        "server_ready_s": ready,
        "first_byte_s": first_byte,
        "list_s": listed,
        "first_view_s": shown,
        "first_view_bytes": amount,
        "answers": answers,
        "pictures": pictures,
    }


def main(place, number):
    """The median of each figure."""
    if not (place / "run/masks").exists():
        make_run(place, number)
    with tempfile.TemporaryDirectory() as profile, chromium.browser(profile) as tab:
        tab.show(1280, 800)
        tab.call("Page.addScriptToEvaluateOnNewDocument", source=WATCH)
        found = [one_start(place, tab) for _ in range(STARTS)]
    names = found[0].keys()
    medians = {name: round(statistics.median(one[name] for one in found), 3) for name in names}
    worst = round(max(one["first_view_s"] for one in found), 3)
    return {"images": number, "starts": STARTS, **medians, "longest_first_view_s": worst}


if __name__ == "__main__":
    images = int(sys.argv[2]) if len(sys.argv) > 2 else 10_000
    with tempfile.TemporaryDirectory() as spare:
        report = main(Path(sys.argv[1] if len(sys.argv) > 1 else spare), images)
    sys.stdout.write(json.dumps(report, indent=2) + "\n")
