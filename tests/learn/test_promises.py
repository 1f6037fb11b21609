"""The promises of DESIGN.md's table, each held against every training."""

import shutil
import socket
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.multiprocessing

from rayseg.learn import STATE, TRAININGS, Work, Worker, load_state
from rayseg.learn import train as loop
from rayseg.networks import NETWORKS
from rayseg.records.progress import read_progress
from rayseg.store import Folder, read_run
from tests.learn.tiny import (
    CLASSES,
    Here,
    Killed,
    Recording,
    folder_of,
    killed_after,
    moved,
    scenes,
    store,
    tiny,
    trained,
    weights_of,
    without_seconds,
)

KINDS = list(TRAININGS)
each = pytest.mark.parametrize("kind", KINDS)
pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    return scenes(tmp_path_factory.mktemp("images"))


@pytest.fixture
def run(tmp_path, samples):
    store(tmp_path, samples)
    return tmp_path


@pytest.fixture(scope="module")
def finished(tmp_path_factory, samples):
    """A run and, for each kind, what the job of a training without incident said."""
    run = tmp_path_factory.mktemp("finished")
    store(run, samples)
    return run, {kind: trained(run, kind) for kind in KINDS}


def facts(run, kind):
    return read_run(folder_of(run, kind))


@each
def test_it_goes_on_amid_an_epoch_after_its_last_checkpoint_to_the_same_curve(finished, run, kind):
    with pytest.raises(Killed):
        trained(run, kind, Here(killed_after(3)))
    assert load_state(folder_of(run, kind)).facts["iteration"] == 3
    trained(run, kind)
    whole, again = facts(finished[0], kind), facts(run, kind)
    assert whole["steps_per_epoch"] == 2
    for one, other in zip(whole["curve"], again["curve"], strict=True):
        # kernels may add up otherwise in memory that lies otherwise
        assert without_seconds(other) == pytest.approx(without_seconds(one), rel=1e-3, abs=1e-6)
    assert [one["iteration"] for one in again["judged"]] == [
        one["iteration"] for one in whole["judged"]
    ]


@each
def test_what_must_fail_again_is_not_tried_again(run, kind, monkeypatch):
    asked = []

    def broken(self, model, batch, dtype):
        asked.append(batch)
        raise ValueError("no loss of this")

    monkeypatch.setattr(TRAININGS[kind], "losses", broken)
    with pytest.raises(ChildProcessError, match=r"^training failed: ValueError: no loss of this$"):
        trained(run, kind, Here(starts=3))
    assert len(asked) == 1


@each
def test_what_may_be_mended_is_tried_again(run, kind, monkeypatch):
    asked, losses = [], TRAININGS[kind].losses

    def late(self, model, batch, dtype):
        asked.append(batch)
        if len(asked) == 1:
            raise OSError("the disk is not there yet")
        return losses(self, model, batch, dtype)

    monkeypatch.setattr(TRAININGS[kind], "losses", late)
    trained(run, kind, Here(starts=2))
    assert facts(run, kind)["done"]


@each
def test_a_loss_that_is_no_number_names_iteration_images_and_checkpoint(run, kind, monkeypatch):
    seen, losses = [], TRAININGS[kind].losses

    def blinded(self, model, batch, dtype):
        seen.append(batch[2])
        found = losses(self, model, batch, dtype)
        if len(seen) < 4 * self.parts:
            return found
        return {name: torch.tensor(float("nan")) for name in found}

    monkeypatch.setattr(TRAININGS[kind], "losses", blinded)
    with pytest.raises(FloatingPointError) as caught:
        trained(run, kind)
    said = str(caught.value)
    state = folder_of(run, kind).path(STATE)
    assert said.startswith(f"loss must be finite, got nan at iteration 4 on images {seen[-1][0]}")
    assert f"the last good checkpoint is iteration 3 in {state}; " in said
    assert f"try a lower {TRAININGS[kind].field}.schedule.lr" in said
    assert "\n" not in said


@each
@pytest.mark.parametrize("begun", [True, False], ids=["begun", "finished"])
def test_a_folder_of_other_images_or_labels_is_refused(finished, tmp_path, samples, kind, begun):
    run = tmp_path / "run"
    if begun:
        store(run, samples)
        with pytest.raises(Killed):
            trained(run, kind, Here(killed_after(3)))
    else:
        shutil.copytree(finished[0], run)
    kept = weights_of(run, kind) if not begun else b""
    others = {"drawn": samples[1:], "others": [moved(samples[0]), *samples[1:]]}
    for data, changed in others.items():
        store(run, changed, data)
        with pytest.raises(ValueError, match=r" another --run( keeps it)?$"):
            trained(run, kind)
    assert begun or weights_of(run, kind) == kept


@each
def test_it_is_judged_on_the_split_and_the_images_that_are_asked_for(finished, run, kind):
    trained(run, kind, val_split="other")
    judged, usual = facts(run, kind)["judged"], facts(finished[0], kind)["judged"]
    assert judged[-1]["iteration"] == 5
    assert judged[0]["images"] == 2
    # the last checkpoint of a detector is judged on all three, since nothing predicts by it later
    assert judged[-1]["images"] == (3 if kind == "detector" else 2)
    if "judged_on" in judged[0]:
        assert {one["judged_on"] for one in judged} == {"other"}
        assert {one["judged_on"] for one in usual} == {"val"}


@each
def test_its_curve_has_losses_by_iteration_that_fall(finished, kind):
    curve = read_progress(facts(finished[0], kind)).curve
    assert [one["iteration"] for one in curve] == [1, 2, 3, 4, 5]
    assert all(np.isfinite(one["loss"]) and one["lr"] > 0 for one in curve)
    assert min(one["loss"] for one in curve[1:]) < curve[0]["loss"]


@each
def test_the_job_says_loss_and_length_and_a_finished_training_is_not_repeated(finished, kind):
    run, outcomes = finished
    (line,) = outcomes[kind].lines
    last = facts(run, kind)["curve"][-1]
    assert f": loss {last['loss']:.3f}" in line
    assert " after " in line
    assert trained(run, kind) == outcomes[kind]


@each
def test_it_leaves_weights_that_load_and_cleans_up(finished, kind):
    folder = folder_of(finished[0], kind)
    assert set(folder.names()) == {NETWORKS[kind].file, "run.json", ".run-copy.json"}
    assert folder.folders() == []
    NETWORKS[kind].load(folder.path(NETWORKS[kind].file), CLASSES)
    with pytest.raises(ValueError, match="classes"):
        NETWORKS[kind].load(folder.path(NETWORKS[kind].file), CLASSES[:1])


@each
def test_another_training_into_the_same_folder_is_refused(finished, kind):
    other = tiny(kind, batch_size=6)
    with pytest.raises(ValueError, match=r"\.batch_size is 4 there, 6 here"):
        trained(finished[0], kind, training=other)


@each
def test_an_estimate_shortens_it(kind):
    full, few = TRAININGS[kind](), TRAININGS[kind]().shortened(3, 20)
    assert few.steps(20) <= 3 < full.steps(1000)
    assert few.judge_images <= 2


@each
def test_bf16_gives_about_the_same_curve(tmp_path, samples, kind):
    curves = []
    for precision in ("fp32", "bf16"):
        store(tmp_path / precision, samples)
        # with statistics that are learnt, since features of frozen ones fade without weights
        settings = {"iterations": 2, "judge_images": 0}
        if kind != "irnet":  # whose trunk is frozen, and whose branches normalise by themselves
            settings["batch_norm"] = "trained"
        one = tiny(kind, precision=precision, **settings)
        trained(tmp_path / precision, kind, training=one)
        curves.append([entry["loss"] for entry in facts(tmp_path / precision, kind)["curve"]])
    assert curves[1] != curves[0]
    assert curves[1][0] == pytest.approx(curves[0][0], rel=0.05)
    # which proposals a step is given may hang on the last digits of the one before
    assert curves[1] == pytest.approx(curves[0], rel=0.3)


def _train_as(rank, port, run, works):
    torch.set_num_threads(1)
    address = f"tcp://127.0.0.1:{port}"
    torch.distributed.init_process_group("gloo", address, rank=rank, world_size=2)
    for work in works:
        loop(work, Worker(rank, 2, wrap=torch.nn.parallel.DistributedDataParallel))
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def together(finished, samples, tmp_path_factory):
    """A folder with the states of all trainings after two workers took part in them."""
    run = tmp_path_factory.mktemp("together")
    store(run, samples)
    works = []
    for kind in KINDS:
        engine = Recording()
        with pytest.raises(Killed):
            trained(run, kind, engine)
        works.append(engine.work)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(_train_as, (port, str(run), works), nprocs=2)
    return run


@each
def test_two_workers_see_together_what_one_sees(finished, together, kind):
    both = load_state(folder_of(together, kind)).facts
    one = facts(finished[0], kind)
    losses = [[entry["loss"] for entry in curve] for curve in (both["curve"], one["curve"])]
    # anchors and proposals that a detector looks at are drawn, each worker drawing its own
    loose = TRAININGS[kind].learns_from in ("boxes", "objects")
    assert losses[0] == pytest.approx(losses[1], rel=0.25 if loose else 0.02)
    assert [o["images"] for o in both["judged"]] == [o["images"] for o in one["judged"]]
    assert Folder(str(together)).exists()


def test_a_work_travels_with_all_that_workers_need(finished):
    """Nothing but the work and the folder are needed to train."""
    run, _ = finished
    work = Work(str(run), str(run / "again"), tiny("segmenter"), None, [], CLASSES)
    assert work.manifest.exists("manifest.parquet")
    assert replace(work, ids=["i03", "i01"]).samples()[0].id == "i03"
