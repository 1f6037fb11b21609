"""The loop against literal steps."""

import pytest

from rayseg.learn import TRAININGS
from rayseg.store import Folder, read_manifest, read_run
from tests.learn.tiny import folder_of, scenes, store, tiny, trained
from tests.reference.training_literal import literal_losses


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    run = tmp_path_factory.mktemp("run")
    store(run, scenes(run / "images"))
    return run


@pytest.mark.parametrize("kind", TRAININGS)
def test_the_loop_takes_the_steps_that_are_written_out(run, kind):
    settings = {"judge_images": 0}
    if TRAININGS[kind].learns_from in ("tags", "masks", "cues") and kind not in ("irnet", "seam"):
        # features of frozen statistics fade without weights; the heads of objects and SEAM's other
        # trunk have no such need, and multiply rounding under statistics learnt from few cells; the
        # trunk of IRNet is frozen
        settings["batch_norm"] = "trained"
    if kind == "mask_rcnn":  # as on true masks
        settings |= {"grow": False, "mask_loss": "plain"}
    training = tiny(kind, **settings)
    manifest = Folder(str(run)) / "manifest"
    samples = list(read_manifest(manifest).select("train").samples())
    trained(run, kind, training=training)
    losses = [entry["loss"] for entry in read_run(folder_of(run, kind))["curve"]]
    assert losses == pytest.approx(literal_losses(training, manifest, samples), rel=1e-3)
