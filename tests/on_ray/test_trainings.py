"""Ray Train gives the losses of one process: by two workers, after a death, without what is bad."""

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from rayseg.config import Compute
from rayseg.labels import TrueInstances
from rayseg.learn import STATE, Work, load_state, train
from rayseg.nets.detectors import load_detector
from rayseg.nets.detectors.mask_rcnn import load_mask_rcnn
from rayseg.on_ray.engine import RayEngine
from rayseg.plain import PlainEngine
from rayseg.store import Folder, read_run
from tests.learn.tiny import CLASSES, Killed, Recording, folder_of, scenes, store, tiny, trained
from tests.on_ray.fakes import (
    BrokenCrops,
    DeadlyJitteredCrops,
    DeadlyLabels,
    DeadlyPairCrops,
    DeadlySegmentationCrops,
    DeadlyWarpedImages,
)

ENGINE, PLAIN = RayEngine(), PlainEngine()
pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.usefixtures("cluster"),
    pytest.mark.filterwarnings("ignore"),  # Ray Train's own, about its future versions
    pytest.mark.timeout(500),
]
COMPUTE = Compute(threads=1, num_gpus=0, max_failures=1)
DEADLY = {
    "segmenter": DeadlySegmentationCrops,
    "irnet": DeadlyPairCrops,
    "affinity": DeadlyPairCrops,
    "seam": DeadlyJitteredCrops,
    "dsrg": DeadlyWarpedImages,
}
REFINING = [kind for kind in DEADLY if kind != "segmenter"]
LONG = {"iterations": 8}  # there are draws enough after the first checkpoint, at 3


@pytest.fixture
def run(tmp_path):
    store(tmp_path, scenes(tmp_path / "images"))
    return tmp_path


def losses(facts):
    return [entry["loss"] for entry in facts["curve"]]


def facts(run, kind):
    return read_run(folder_of(run, kind))


def alone(run, kind, training):
    """What the same training leaves in this process, in a run of its own."""
    own = run / "alone"
    store(own, scenes(own / "images"))
    trained(own, kind, PLAIN, training)
    return facts(own, kind)


def test_two_workers_see_together_what_one_process_sees(run):
    training = tiny("classifier")
    outcome = trained(run, "classifier", ENGINE, training, compute=replace(COMPUTE, workers=2))
    told, expected = facts(run, "classifier"), alone(run, "classifier", training)
    assert losses(told) == pytest.approx(losses(expected), rel=0.02)
    numbers = [[one["images"] for one in found["judged"]] for found in (told, expected)]
    assert numbers[0] == numbers[1]
    assert outcome.lines[0].endswith(" on val after 2 epochs")
    assert folder_of(run, "classifier").names() == [
        ".run-copy.json",
        "classifier.safetensors",
        "run.json",
    ]


def test_two_workers_grow_together_the_seeds_that_one_process_grows(run):
    training = tiny("dsrg")
    trained(run, "dsrg", ENGINE, training, compute=replace(COMPUTE, workers=2))
    expected = alone(run, "dsrg", training)
    assert losses(facts(run, "dsrg")) == pytest.approx(losses(expected), rel=0.02)


def deadly(kind, folder, armed):
    """A training whose crops kill its process, once, after the first checkpoint."""
    whole = tiny(kind, **LONG)
    given = {one.name: getattr(whole.crops, one.name) for one in fields(whole.crops)}
    armed.touch()
    crops = DEADLY[kind](**given, state=folder.path(STATE), armed=str(armed), after=9)
    return replace(whole, crops=crops)


def test_a_killed_worker_is_survived_with_the_same_losses(run):
    armed = run / "armed"
    training = deadly("segmenter", folder_of(run, "segmenter"), armed)
    trained(run, "segmenter", ENGINE, training, compute=COMPUTE)
    assert not armed.exists()
    expected = alone(run, "segmenter", tiny("segmenter", **LONG))
    assert losses(facts(run, "segmenter")) == pytest.approx(losses(expected), rel=1e-3)


def train_in_turn(works, worker):
    for work in works:
        train(work, worker)


def test_trainings_of_refinement_survive_a_killed_worker_each_with_the_same_losses(run):
    """In one job of Ray Train, since workers take far longer to start than these to train."""
    works = []
    for kind in REFINING:
        engine = Recording()
        with pytest.raises(Killed):
            trained(run, kind, engine, deadly(kind, folder_of(run, kind), run / f"armed-{kind}"))
        works.append(engine.work)
    ENGINE.fit(train_in_turn, works, Folder(str(run)), replace(COMPUTE, max_failures=len(works)))
    assert not list(run.glob("armed-*"))
    for kind in REFINING:
        told = load_state(folder_of(run, kind)).facts
        expected = alone(run, kind, tiny(kind, **LONG))
        assert losses(told) == pytest.approx(losses(expected), rel=1e-3), kind


def test_what_must_fail_again_is_not_tried_again(run):
    one = tiny("segmenter")
    crops = BrokenCrops(one.crops.crop, one.crops.scales, asked=str(run / "asked"))
    with pytest.raises(ChildProcessError, match=r"^training failed: ValueError: .*no crop of this"):
        trained(run, "segmenter", ENGINE, replace(one, crops=crops), compute=COMPUTE)
    assert (run / "asked").read_text() == "."


def with_bad(sample, only=False):
    """With a second box that is upside down, or only that."""
    bad = sample.boxes_xyxy[:, [2, 3, 0, 1]]
    boxes = bad if only else np.concatenate([sample.boxes_xyxy, bad])
    classes = np.repeat(sample.box_classes, len(boxes))
    return replace(sample, boxes_xyxy=boxes, box_classes=classes, true_masks=())


def test_two_workers_train_a_detector_without_what_is_bad(tmp_path):
    samples = scenes(tmp_path / "images")
    samples[1] = with_bad(samples[1])
    samples[2] = with_bad(samples[2], only=True)
    Path(samples[3].path).write_text("<html>")
    store(tmp_path, samples)
    training = tiny("detector", **LONG)
    outcome = trained(tmp_path, "detector", ENGINE, training, compute=replace(COMPUTE, workers=2))
    told = facts(tmp_path, "detector")
    assert outcome.left_out == 2
    assert outcome.lines[1].startswith("left out: 2 boxes, such as one of i01: box must have x1 <")
    assert (told["images"], told["images_left_out"], told["left_out"]["count"]) == (9, 1, 2)
    examples = told["left_out"]["examples"]
    assert [one["id"] for one in examples] == ["i01", "i02"]
    assert examples[0]["reason"].startswith("box must have x1 < x2 and y1 < y2, got ")
    for entry in told["curve"]:
        parts = [value for name, value in entry.items() if name.startswith("loss_")]
        assert sum(parts) == pytest.approx(entry["loss"], rel=1e-5)
    assert losses(told)[-1] < losses(told)[0]
    assert [entry["iteration"] for entry in told["judged"]] == [3, 6, 8]
    assert [entry["images"] for entry in told["judged"]] == [2, 2, 3]  # at last all of val
    assert {"ap", "ap50", "ap75"} <= told["judged"][0].keys()
    weights = folder_of(tmp_path, "detector").path("detector.safetensors")
    assert load_detector(weights, CLASSES).num_classes == 2


def test_labels_of_objects_travel_and_a_killed_worker_reads_them_again(run):
    truths = TrueInstances(Folder(str(run)) / "manifest", "train")
    calm, deadly = Folder(str(run / "calm")), Folder(str(run / "deadly"))
    armed = run / "armed"
    armed.touch()
    # true masks are trained on in this way, which the labels are not known to be
    network = tiny("mask_rcnn", grow=False, mask_loss="plain", **LONG)
    labels = DeadlyLabels(deadly.path(STATE), str(armed), 6, truths)
    curves = []
    for engine, folder, source in ((PLAIN, calm, truths), (ENGINE, deadly, labels)):
        work = Work(str(run), folder.location, network, source, sorted(truths.ids), CLASSES)
        engine.fit(train, work, folder, COMPUTE)
        told = load_state(folder).facts
        curves.append(losses(told))
        assert "loss_mask" in told["curve"][0]
        assert {"ap", "ap50", "box_ap50"} <= told["judged"][-1].keys()
    assert not armed.exists()
    assert curves[1] == pytest.approx(curves[0], rel=1e-3)
    assert load_mask_rcnn(deadly.path("mask_rcnn.safetensors"), CLASSES).num_classes == 2
