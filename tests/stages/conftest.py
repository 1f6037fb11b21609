import numpy as np
import pytest
from PIL import Image

from rayseg.records import Sample
from rayseg.records.palette import encode_labels
from rayseg.store import Folder, pack_maps, write_manifest
from tests.bad_images import picture

CLASSES = ("cat", "dog", "emu")


@pytest.fixture
def run(tmp_path):
    """A manifest of three images with true masks, and seed rows of them."""
    rng = np.random.default_rng(1)
    samples, rows = [], []
    no_boxes, no_classes = np.zeros((0, 4), np.float32), np.zeros(0, np.int64)
    for n, classes in enumerate([(0,), (0, 2), (1,)]):
        image, mask = tmp_path / f"i{n}.png", tmp_path / f"m{n}.png"
        Image.fromarray(picture((18, 22))).save(image)
        truth = rng.choice([0, 1, 2, 3, 255], (18, 22)).astype(np.uint8)
        mask.write_bytes(encode_labels(truth))
        samples.append(
            Sample(f"i{n}", str(image), 18, 22, classes, no_boxes, no_classes, mask_path=str(mask))
        )
        maps = rng.random((len(classes), 5, 6), dtype=np.float32)
        rows.append(
            {
                "id": f"i{n}", "status": "ok", "error": "", "note": "", "height": 18, "width": 22,
                "classes": list(classes), "maps": pack_maps(maps),
            }
        )  # fmt: skip
    write_manifest(Folder(str(tmp_path / "manifest")), samples, CLASSES)
    return Folder(str(tmp_path / "manifest")), rows
