"""What one image with many objects costs in memory: a few planes of pixels, however many."""

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

READ = """
import sys
from pathlib import Path
from rayseg.datasets import COCO
from rayseg.datasets.tally import Tally

def peak():  # of this program alone; getrusage's is also that of who started it
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) // 1024

folder, before = Path(sys.argv[1]), peak()
(sample,) = COCO(folder, folder / "a.json").samples(folder / "work", Tally())
print(len(sample.true_masks), before, peak())
"""


def peak_of(folder, objects, size_hw):
    """Masks that were read, and MB at the peak before and after."""
    rng = np.random.default_rng(0)
    height, width = size_hw
    Image.new("RGB", (width, height)).save(folder / "a.png")
    annotations = []
    for number in range(objects):
        radius = rng.uniform(10, height / 8)
        x, y = rng.uniform(radius, width - radius), rng.uniform(radius, height - radius)
        turn = np.linspace(0, 2 * np.pi, 60, endpoint=False)
        points = np.stack([x + radius * np.cos(turn), y + radius * np.sin(turn)], 1).ravel()
        annotations.append(
            {"id": number, "image_id": 1, "category_id": 1, "segmentation": [points.tolist()]}
        )
    image = {"id": 1, "file_name": "a.png", "height": height, "width": width}
    content = {"images": [image], "annotations": annotations}
    content["categories"] = [{"id": 1, "name": "leaf"}]
    (folder / "a.json").write_text(json.dumps(content))
    done = subprocess.run(
        [sys.executable, "-c", READ, folder], capture_output=True, text=True, check=True
    )
    return tuple(map(int, done.stdout.split()))


def test_memory_does_not_grow_with_the_objects_of_an_image(tmp_path):
    """400 planes of pixels alone would be 800 MB."""
    masks, before, after = peak_of(tmp_path, 400, (1000, 2000))
    assert masks == 400
    assert after - before < 100


@pytest.mark.slow
def test_two_thousand_objects_of_a_large_image_take_less_than_500_mb(tmp_path):
    masks, _, after = peak_of(tmp_path, 2000, (2000, 4000))
    assert masks == 2000
    assert after < 500
