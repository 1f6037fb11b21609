import json

import pytest

from rayseg import store
from tests.report import pages


def _store_stage(run, stage, samples):
    schema = store.SEEDS_SCHEMA if stage.startswith("seeds") else store.MASKS_SCHEMA
    for part in (samples[:4], samples[4:]):
        rows = [pages.make_row(sample, stage) for sample in part]
        store.write_shard(run / stage, store.rows_to_table(rows, schema))
    store.write_run(run / stage, {"config": {"name": stage, "odd": "</pre>"}, "seconds": 14.0})


def _make_run(folder):
    (folder / "data").mkdir()
    samples = list(pages.make_samples(folder / "data"))
    run = store.Folder(str(folder / "my run"))
    store.write_manifest(run / "manifest", samples, pages.CLASSES)
    for stage in pages.STAGES:
        _store_stage(run, stage, [sample for sample in samples if sample.split == "train"])
    epochs = [{"epoch": n, "loss": 1 / n, "map": 0.5, "f1": None, "seconds": 30.0} for n in (1, 2)]
    store.write_run(run / "classifier", {"config": {"trunk": "tiny"}, "epochs": epochs})
    run.write("scores.json", json.dumps(pages.make_scores()).encode())
    return run


def _add_segmenters(run):
    samples = list(store.read_manifest(run / "manifest").select("val").samples())
    for name, left_out in (("truth", 0), ("advcam+label_crf", 2)):
        reasons = [{"id": "img5", "reason": "all of it is <ignored>"}]
        facts = {
            "config": {"labels": name, "odd": "</pre>"},
            "curve": [{"iteration": n, "loss": 3 / n, "lr": 0.1, "seconds": n} for n in (1, 2, 4)],
            "judged": [{"iteration": n, "miou": n / 10, "images": 3} for n in (2, 4)],
            "left_out": {"count": left_out, "examples": reasons if left_out else []},
            "images": 6 - left_out,
            "seconds": 75.0,
            "done": name == "truth",
        }
        store.write_run(run / "segmenters" / name, facts)
    for name in ("truth", "advcam+label_crf", "advcam+label_crf+crf"):
        _store_stage(run, f"predictions/{name}", samples)
    scores = pages.make_scores() | pages.make_predicted_scores()
    run.write("scores.json", json.dumps(scores).encode())
    return run


@pytest.fixture
def run(tmp_path):
    """A run with scored masks and no segmenter."""
    return _make_run(tmp_path)


@pytest.fixture
def trained(tmp_path):
    """The same run with a segmenter trained on truth and one on masks, and their predictions."""
    return _add_segmenters(_make_run(tmp_path))


@pytest.fixture(scope="session")
def trained_page(tmp_path_factory):
    """The page of that run, for tests that change nothing."""
    return pages.read_page(_add_segmenters(_make_run(tmp_path_factory.mktemp("trained"))))
