"""How busy prediction keeps the cores, and what it adds to the driver's memory.

Run from the repository root: ``python tests/benchmarks/bench_prediction.py``. A MobileNetV2
DeepLab-v2 at stride 16 predicts photographs at their own size, through the whole path: manifest,
decoding in tasks, actors on all cores, shards. The share of the cores' time that all processes of
the machine spend working is taken from /proc/stat once the first images are written, since starting
Ray and loading torch is no work; nothing else should run. Two numbers of images, each in a fresh
process, show what the driver's memory grows by. The aims: above 85 % busy, memory flat.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
RESULT = Path(__file__).parent / "results" / "prediction.json"
DATA = Path(os.environ.get("RAYSEG_DATA", ROOT / ".." / "shared" / "data"))
IMAGES = DATA / "voc_animals/VOCdevkit/VOC2012/JPEGImages"
NUMBERS = (60, 360)


def busy_and_all():
    """Ticks that the machine's cores worked, and all their ticks."""
    ticks = [int(number) for number in Path("/proc/stat").read_text().split("\n")[0].split()[1:9]]
    return sum(ticks) - ticks[3] - ticks[4], sum(ticks)


class Watch(threading.Thread):
    """Counts ticks between the first and the last shard."""

    def __init__(self, folder):
        super().__init__(daemon=True)
        self.folder, self.first, self.last, self.shards = Path(folder), None, None, 0

    def run(self):
        while True:
            shards = len(list(self.folder.glob("part-*.parquet")))
            if shards > self.shards:
                self.shards = shards
                self.last = busy_and_all()
                self.first = self.first or self.last
            time.sleep(0.1)

    def share(self):
        return (self.last[0] - self.first[0]) / (self.last[1] - self.first[1])


def write_run(folder, number):
    """A manifest of so many rows and a segmenter of random weights."""
    import torch

    from rayseg.nets.deeplab import Segmenter, segmenter_facts
    from rayseg.nets.weights import to_safetensors
    from rayseg.records import Sample
    from rayseg.store import Folder, write_manifest
    from rayseg.store import write_run as store_run

    paths = sorted(IMAGES.glob("*.jpg"))
    none = np.zeros((0, 4), np.float32), np.zeros(0, np.int64)
    samples = []
    for place in range(number):
        path = paths[place % len(paths)]
        width, height = Image.open(path).size
        samples.append(Sample(f"{place:05d}", str(path), height, width, (), *none, "val"))
    classes = [f"class{place}" for place in range(20)]
    write_manifest(Folder(f"{folder}/manifest"), samples, classes)
    torch.manual_seed(0)
    network = Segmenter("deeplab_v2", "mobilenet_v2", 21, stride=16)
    data = to_safetensors(network, segmenter_facts(network, classes))
    Folder(f"{folder}/segmenters/random").write("segmenter.safetensors", data)
    store_run(Folder(f"{folder}/segmenters/random"), {"done": True})


def measure(number):
    """What one job of so many images takes."""
    from rayseg.config import PredictConfig
    from rayseg.on_ray.engine import RayEngine
    from rayseg.steps.predictions import predict

    with tempfile.TemporaryDirectory() as folder:
        write_run(folder, number)
        watch = Watch(f"{folder}/predictions/random")
        watch.start()
        start = time.perf_counter()
        outcome = predict(PredictConfig(run=folder), RayEngine())
        seconds = time.perf_counter() - start
        if outcome.lines != [f"predictions random: {number} ok"]:
            raise AssertionError(outcome.lines)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        return {"images": number, "seconds": seconds, "peak_mb": peak, "busy": watch.share()}


def main():
    found = []
    for number in NUMBERS:
        command = [sys.executable, __file__, str(number)]
        ended = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True)
        found.append(json.loads(ended.stdout.splitlines()[-1]))
        told = "{images} images: {seconds:.0f} s, cores {busy:.1%} busy, driver {peak_mb:.0f} MB"
        print(told.format(**found[-1]))
    result = {"runs": found, "cores": os.cpu_count()}
    RESULT.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(measure(int(sys.argv[1]))))
    else:
        main()
