"""BBAM as a whole: its maps, what it leaves as it was, what its seed and settings change."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch

from rayseg.attribution import BBAM, BOX_METHODS, enlarge_grid
from tests.attribution.tiny_detector import TinyDetector
from tests.attribution.tiny_objects import BOXES, CLASSES, METHOD, assert_all_same, objects, run_one


def test_bbam_is_the_method_of_its_name():
    assert BOX_METHODS["bbam"] is BBAM


def test_all_tiny_objects_are_found_and_their_masks_move(detector, images):
    still = run_one(replace(METHOD, steps=0), detector, images[0])
    for one, start in zip(run_one(METHOD, detector, images[0]), still, strict=True):
        assert one.status == "ok"
        assert one.positives > 0
        assert one.grid.dtype == torch.float32
        assert 0 <= one.grid.min() <= one.grid.max() <= 1
        assert (one.grid - start.grid).abs().max() > 0.1


def test_the_detector_is_left_as_it_was(detector, images):
    before = {key: value.clone() for key, value in detector.state_dict().items()}
    run_one(METHOD, detector, images[0])
    assert_untouched(detector, before)


def test_the_detector_is_left_as_it_was_after_an_exception(detector, images, monkeypatch):
    before = {key: value.clone() for key, value in detector.state_dict().items()}
    calls = []

    def breaks(self, inputs, owner, candidates):
        calls.append(1)
        if len(calls) > 6:
            raise RuntimeError("out of memory")
        return plain(self, inputs, owner, candidates)

    plain = TinyDetector.read
    monkeypatch.setattr(TinyDetector, "read", breaks)
    with pytest.raises(RuntimeError, match="out of memory"):
        run_one(METHOD, detector, images[0])
    assert_untouched(detector, before)


def assert_untouched(detector, before):
    for key, value in detector.state_dict().items():
        torch.testing.assert_close(value, before[key], rtol=0, atol=0)
    for parameter in detector.parameters():
        assert parameter.requires_grad
        assert parameter.grad is None


def test_what_is_given_is_not_changed(detector, images):
    own, copied = objects(), images.clone()
    METHOD.run(detector, images, [own, own], ["a", "b"])
    assert torch.equal(own.boxes_xyxy, objects().boxes_xyxy)
    assert torch.equal(images, copied)


def test_a_prepared_detector_gives_the_same(detector, images):
    lean = METHOD.prepare(detector, torch.device("cpu"))
    assert_all_same(run_one(METHOD, lean, images[0]), run_one(METHOD, detector, images[0]))


def test_the_same_seed_gives_the_same_maps_and_another_one_others(detector, images):
    first, again = (run_one(METHOD, detector, images[0]) for _ in range(2))
    assert_all_same(first, again, 0)
    other = run_one(replace(METHOD, seed=1), detector, images[0])
    assert any(a.box_loss != b.box_loss for a, b in zip(first, other, strict=True))


def test_another_image_id_draws_other_proposals(detector, images):
    first, other = (run_one(METHOD, detector, images[0], image_id=name) for name in "ab")
    assert any(a.box_loss != b.box_loss for a, b in zip(first, other, strict=True))


def test_methods_and_objects_survive_pickle():
    assert pickle.loads(pickle.dumps(METHOD)) == METHOD
    copied = pickle.loads(pickle.dumps(objects()))
    assert torch.equal(copied.boxes_xyxy, objects().boxes_xyxy)


def test_a_call_gives_maps_at_the_image_s_size(detector, images):
    maps = METHOD(detector, images[0].numpy()[::-1], np.array(BOXES), np.array(CLASSES), "a")
    assert maps.shape == (4, 40, 56)
    assert maps.dtype == torch.float32
    found = run_one(METHOD, detector, images[0].flip(0))
    torch.testing.assert_close(maps[0], enlarge_grid(found[0].grid, (40, 56)))
    assert METHOD(detector, images[0], torch.zeros(0, 4), []).shape == (0, 40, 56)


def test_each_setting_changes_the_maps(detector, images):
    plain = run_one(METHOD, detector, images[0])
    for other in (
        {"sparsity": 0.05}, {"tv": 0.01}, {"tv": 0.01, "tv_power": 2.0}, {"steps": 5},
        {"lr": 0.02}, {"stride_base": 9.0}, {"stride_range": 2.0}, {"grid": "ceil"},
        {"reduction": "sum"}, {"start": "ones"}, {"use_box": False}, {"use_class": False},
        {"jitter": 0.05}, {"max_positives": 2}, {"iou_levels": (0.6,)}, {"num_jitters": 30},
    ):  # fmt: skip
        found = run_one(replace(METHOD, **other), detector, images[0])
        changed = [
            a.grid.shape != b.grid.shape or bool((a.grid - b.grid).abs().max() > 1e-6)
            for a, b in zip(plain, found, strict=True)
        ]
        assert any(changed), other
