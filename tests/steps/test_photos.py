"""Photographs of 12 to 50 megapixels from tags to masks, by the plain engine in a process."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SIZES = {  # height and width as they are stored, orientation
    "twelve.jpg": (3000, 4000, 1),
    "turned.jpg": (3000, 4000, 6),
    "upside.webp": (3000, 4000, 3),
    "twenty.png": (4000, 5000, 1),
    "thirty.jpg": (5000, 6000, 8),
    "fifty.jpg": (6144, 8192, 1),
    "fifty_turned.jpg": (6144, 8192, 6),
    "wide.jpg": (2000, 12000, 1),
}
FLAGS = [
    "--data=folder", "--folder.images=photos", "--folder.tags=tags.csv", "--engine=plain",
    "--until=masks", "--methods=cam", "--refiners=label_crf", "--classifier.trunk=mobilenet_v2",
    "--classifier.weights=none", "--classifier.epochs=1", "--classifier.batch-size=2",
    "--classifier.crops.crop=64",
]  # fmt: skip
MEASURED = """
import resource, sys
from rayseg.cli import run_job
status = run_job(sys.argv[1], sys.argv[2:])
print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
sys.exit(status)
"""


def large(folder):
    """Photos of a slope of colours, which are written and read fast."""
    folder.mkdir()
    lines = ["image,tags"]
    for number, (name, (height, width, orientation)) in enumerate(SIZES.items()):
        slope = np.linspace(0, 255, width, dtype=np.uint8)
        grey = np.broadcast_to(slope, (height, width))
        picture = Image.merge("RGB", [Image.fromarray(grey)] * 3)
        exif = Image.Exif()
        exif[0x0112] = orientation
        fast = {"PNG": {"compress_level": 1}, "WEBP": {"method": 0, "quality": 50}}
        picture.save(folder / name, exif=exif, **fast.get(Image.registered_extensions()[
            Path(name).suffix
        ], {}))  # fmt: skip
        lines.append(f"{name},{'cow' if number % 2 else 'horse'}")
    return "\n".join(lines) + "\n"


def job(name, folder, *flags):
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, name, "--run=run", *flags], cwd=folder, text=True,
        capture_output=True, check=False, env=os.environ | {"OMP_NUM_THREADS": "2"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout, int(re.search(r"peak (\d+)", done.stdout)[1])


@pytest.mark.slow
def test_photos_of_any_camera_become_masks_of_their_size_in_four_gigabytes(tmp_path):
    (tmp_path / "tags.csv").write_text(large(tmp_path / "photos"))
    _, peak_mb = job("run", tmp_path, *FLAGS)
    assert peak_mb < 4000
    told, peak_mb = job("export", tmp_path, "--masks=cam+label_crf", "--out=masks")
    assert peak_mb < 4000
    assert "export: 8 masks in masks" in told
    for name, (height, width, orientation) in SIZES.items():
        with Image.open(
            tmp_path / "masks" / "SegmentationClass" / f"{Path(name).stem}.png"
        ) as mask:
            assert mask.size == ((height, width) if orientation > 4 else (width, height)), name
