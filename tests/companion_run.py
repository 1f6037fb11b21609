"""A run in small for methods that look at companions, for either engine."""

import numpy as np
import torch
from PIL import Image

from rayseg.attribution import RIB, AdvCAM
from rayseg.config import MakeSeedsConfig
from rayseg.learn import Crops
from rayseg.nets.classifier import CamClassifier
from rayseg.nets.weights import to_safetensors
from rayseg.records import Sample
from rayseg.stages import CompanionBank
from rayseg.store import Folder, read_rows, write_manifest

CLASSES = ("cat", "dog", "emu")
TINY_RIB = RIB(
    scales=(1.0,), unpooled_scales=(), num_steps=3, num_companions=2, precision="fp32",
    learning_rate=1e-3, explosion_share=1.0, margin=float("inf"),
)  # fmt: skip
TINY_ADVCAM = AdvCAM(scales=(1.0,), num_steps=1, precision="fp32")
CROPS = Crops(crop=32, long_side=(24, 40))
BANK = CompanionBank(images=6, crops=CROPS)


def write_run(folder):
    """Nine train images of two sizes, one of them bad; two of val; a classifier."""
    rng = np.random.default_rng(0)
    none = np.zeros((0, 4), np.float32), np.zeros(0, np.int64)
    samples = []
    for n in range(11):
        size_hw = (32, 32) if n % 2 else (32, 48)
        path = folder / f"i{n:02d}.png"
        Image.fromarray(rng.integers(0, 256, (*size_hw, 3), np.uint8)).save(path)
        if n == 4:
            path.write_bytes(b"no image")
        split = "train" if n < 9 else "val"
        tags = (0, 1, 2) if n == 8 else (n % 3,)
        samples.append(Sample(f"i{n:02d}", str(path), *size_hw, tags, *none, split=split))
    write_manifest(Folder(str(folder / "manifest")), samples, CLASSES)
    torch.manual_seed(0)
    facts = {"trunk": "resnet18", "stride": 16, "classes": list(CLASSES)}
    data = to_safetensors(CamClassifier("resnet18", 3), facts)
    Folder(str(folder / "classifier")).write("classifier.safetensors", data)


def config(run, compute, **changed):
    given = {
        "run": str(run), "methods": ("rib", "advcam+rib"), "rib": TINY_RIB, "advcam": TINY_ADVCAM,
        "compute": compute, "companions": BANK,
    }  # fmt: skip
    return MakeSeedsConfig(**given | changed)


def stored(folder):
    return {row["id"]: row for row in read_rows(Folder(str(folder)))}
