"""Configurations of detectors and Mask R-CNNs: published values, sense, TOML and back."""

import pytest
import tomli_w

from rayseg.config import TRAIN_CONFIGS, as_plain
from rayseg.learn import DetectorTraining, MaskRCNNTraining
from rayseg.toml import read, update


def test_the_default_is_bbams_detector():
    config = DetectorTraining()
    assert (config.kind, config.trunk, config.freeze) == ("faster_rcnn", "resnet101", "stage1")
    assert config.min_sides == tuple(range(480, 801, 32))
    assert (config.test_side, config.max_side) == (800, 1333)
    assert (config.iterations, config.batch_size, config.schedule.lr) == (18_000, 16, 0.01)
    assert [round(config.iterations * drop) for drop in config.schedule.drops] == [12_000, 16_000]


def test_the_default_is_bbams_mask_rcnn():
    config = MaskRCNNTraining()
    assert config.anchors == (21, 42, 84, 168, 332)
    assert config.min_sides == tuple(range(416, 513, 24))
    assert (config.test_side, config.max_side) == (512, 800)
    assert (config.iterations, config.batch_size, config.schedule.lr) == (20_005, 8, 0.008)
    assert [round(config.iterations * drop) for drop in config.schedule.drops] == [16_000]
    assert (config.grow, config.sure_foreground, config.sure_background) == (True, 0.9, 0.1)


def test_batch_normalisation_is_frozen_where_there_are_weights():
    assert DetectorTraining().frozen_statistics
    assert not DetectorTraining(weights="none").frozen_statistics
    assert DetectorTraining(weights="none", batch_norm="frozen").frozen_statistics


@pytest.mark.parametrize(
    ("kind", "changed", "said"),
    [
        (DetectorTraining, {"kind": "yolo"}, "kind must be .*got 'yolo'"),
        (DetectorTraining, {"iterations": 0}, "iterations must be 1 or more, got 0"),
        (DetectorTraining, {"min_sides": ()}, r"min_sides must be one or more numbers .*got \(\)"),
        (DetectorTraining, {"anchors": (0, 3)}, r"anchors must be .* got \(0, 3\)"),
        (DetectorTraining, {"judge_images": -1}, "judge_images must be 0 or more, got -1"),
        (MaskRCNNTraining, {"sure_background": 0.95}, "must ascend in .*got 0.95, 0.9"),
        (TRAIN_CONFIGS["mask_rcnn"], {"labels": ("a/b",)}, "labels must be a plain name .*'a/b'"),
    ],
)
def test_what_has_no_sense_is_refused_in_one_line(kind, changed, said):
    with pytest.raises(ValueError, match=said):
        kind(**changed)


@pytest.mark.parametrize(
    "config",
    [
        TRAIN_CONFIGS["detector"](detector=DetectorTraining(kind="fcos", min_sides=(64,))),
        TRAIN_CONFIGS["mask_rcnn"](
            labels=("truth",), mask_rcnn=MaskRCNNTraining(mask_loss="plain")
        ),
    ],
)
def test_a_job_survives_toml(tmp_path, config):
    (tmp_path / "job.toml").write_text(tomli_w.dumps(as_plain(config)))
    given = read(str(tmp_path / "job.toml"))
    assert update(type(config)(), given, "job.toml") == config
