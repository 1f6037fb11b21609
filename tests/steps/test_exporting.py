"""Which of a run's masks are written in a foreign format; no Ray."""

import numpy as np
import pytest

from rayseg.config import ExportConfig
from rayseg.plain import PlainEngine
from rayseg.records import Sample
from rayseg.records.palette import encode_labels
from rayseg.steps.exporting import export
from rayseg.store import MASKS_SCHEMA, Folder, rows_to_table, write_manifest, write_shard


@pytest.fixture
def run(tmp_path):
    """Masks of two train images and one of val; the manifest has a split without any."""
    none = np.zeros((0, 4), np.float32), np.zeros(0, np.int64)
    splits = {"a": "train", "b": "val", "c": "train", "d": "test"}
    samples = [Sample(id_, f"{id_}.png", 8, 8, (), *none, split) for id_, split in splits.items()]
    write_manifest(Folder(str(tmp_path)) / "manifest", samples, ["cow"])
    labels = encode_labels(np.zeros((8, 8), np.uint8))
    rows = [{"id": i, "status": "ok", "height": 8, "width": 8, "labels": labels} for i in "abc"]
    write_shard(Folder(str(tmp_path)) / "masks" / "cam", rows_to_table(rows, MASKS_SCHEMA))
    return tmp_path


def written(run, split):
    export(
        ExportConfig(run=str(run), masks="cam", out=str(run / "out"), split=split), PlainEngine()
    )
    return sorted(path.stem for path in (run / "out").rglob("*.png"))


@pytest.mark.parametrize(("split", "ids"), [("", "abc"), ("train", "ac"), ("val", "b")])
def test_only_images_of_the_split_are_written(run, split, ids):
    assert written(run, split) == list(ids)


@pytest.mark.parametrize(
    ("split", "said"),
    [("test", "masks/cam holds no image of split 'test'"), ("vall", "no image is left of split")],
)
def test_a_split_without_a_mask_is_refused(run, split, said):
    with pytest.raises(ValueError, match=said):
        written(run, split)
