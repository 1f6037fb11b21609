"""What the doctor says: what is there, what lacks, how long a run will take."""

import json
from dataclasses import replace

import pytest

from rayseg.attribution import CAM
from rayseg.config import Compute, DoctorConfig
from rayseg.datasets.synthetic import Synthetic
from rayseg.learn import ClassifierTraining, Crops
from rayseg.plain import PlainEngine
from rayseg.steps.doctor import _estimate, doctor
from rayseg.steps.estimate import Measured, shortened

ENGINE = PlainEngine()
TINY = ClassifierTraining(
    trunk="mobilenet_v2", weights="none", epochs=2, batch_size=16,
    crops=Crops(crop=64, long_side=(64, 64)),
)  # fmt: skip


def config(tmp_path, **changed):
    given = {
        "run": str(tmp_path / "run"), "methods": ("cam",), "cam": CAM(scales=(1.0,)),
        "synthetic": Synthetic(count=30, val_count=0, ood_count=0, size=64),
        "classifier": TINY, "until": "masks",
        "compute": Compute(actors=1, threads=1, num_gpus=0, block_rows=4),
    }  # fmt: skip
    return DoctorConfig(**given | changed)


def test_machine_and_cluster_are_said(tmp_path):
    said = "\n".join(doctor(config(tmp_path), ENGINE).lines)
    for part in ("python 3.", "ray 2.", "this machine: ", "GB free", "cluster: this process"):
        assert part in said
    assert "pools: 1 actors of 1 CPUs and 0 GPUs" in said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"compute": Compute(actors=9, threads=1, num_gpus=0)},
            "one process, got compute.actors 9; take --engine ray",
        ),
        ({"weights": "runs/none.safetensors"}, "weights must be a file that is there, got runs/no"),
        (
            {"classifier": replace(TINY, weights="weights/resnet18.pth")},
            "classifier.weights must be a file that is there",
        ),
    ],
)
def test_what_would_hang_or_fail_is_refused(tmp_path, changed, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        doctor(config(tmp_path, **changed), ENGINE)


@pytest.mark.slow
def test_every_stage_of_a_run_is_measured_and_nothing_left_behind(tmp_path):
    lines = doctor(config(tmp_path, estimate=True, images=3000, calibrate_images=8), ENGINE).lines
    (head,) = (place for place, line in enumerate(lines) if "processes" in line)
    table = [line.split() for line in lines[head + 1 : -1]]
    assert [row[0] for row in table] == ["classifier", "seeds/cam", "masks/cam+label_crf", "scores"]
    assert all("3000" in row for row in table[1:])
    assert "steps" in table[0]
    assert lines[-1].startswith("in all: ")
    assert not (tmp_path / "run/calibration").exists()
    assert (tmp_path / "run/manifest/manifest.parquet").exists()


def test_time_and_cost_add_up():
    stages = [
        Measured("a", 5, 20, 200, 30.0, "image", 2, 2.5e9),
        Measured("b", 5, 10, 100, 3570.0, "step", 1),
    ]
    lines = list(_estimate(DoctorConfig(price=12.0), stages))
    assert lines[-1] == "in all: 2.5 GB, 60 min on this cluster, 12.00 at 12 an hour"


def test_trainings_are_short_and_the_rest_as_given(tmp_path):
    given = config(tmp_path)
    few = shortened(given, "elsewhere")
    assert few.segmenter.iterations == given.calibrate_steps
    assert few.classifier.steps(20) <= given.calibrate_steps
    fewer = shortened(replace(given, calibrate_images=8), "x").classifier
    assert fewer.fitted(8).batch_size == 8
    assert json.dumps(few.cam.scales) == json.dumps(given.cam.scales)
