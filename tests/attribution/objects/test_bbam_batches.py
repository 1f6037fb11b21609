"""Objects lie in batches, which changes no map."""

from dataclasses import replace

import pytest
import torch

from rayseg.attribution.objects.bbam import GPU_BYTES_A_PIXEL, _default_pixels
from rayseg.nets.detection import Reading
from tests.attribution.tiny_detector import TinyDetector
from tests.attribution.tiny_objects import (
    BOXES,
    CLASSES,
    METHOD,
    PRESETS,
    assert_all_same,
    assert_same,
    objects,
    run_one,
)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_batch_finds_what_each_object_finds_alone(detector, images, preset):
    method = PRESETS[preset]
    together = run_one(method, detector, images[0])
    alone = [
        run_one(method, detector, images[0], objects([box], [c]))[0]
        for box, c in zip(BOXES, CLASSES, strict=True)
    ]
    assert_all_same(together, alone)


def test_the_order_of_objects_does_not_matter(detector, images):
    order = [2, 0, 3, 1]
    plain = run_one(METHOD, detector, images[0])
    turned = objects([BOXES[i] for i in order], [CLASSES[i] for i in order])
    assert_all_same(run_one(METHOD, detector, images[0], turned), [plain[i] for i in order])


def test_equal_objects_get_equal_maps(detector, images):
    one, other = run_one(METHOD, detector, images[0], objects([BOXES[0]] * 2, [1, 1]))
    assert_same(one, other)


class RoundsByPlace(TinyDetector):
    """Answers of each row in another rounding, as a matrix product of some CPU may give them."""

    def read(self, inputs, owner, candidates):
        reading = super().read(inputs, owner, candidates)
        rounding = 1 + (torch.arange(len(owner)) % 3 - 1) * 2.0**-52
        probabilities = reading.probabilities * rounding[:, None]
        deltas = reading.deltas * rounding[:, None, None]
        return Reading(probabilities, reading.background, deltas, reading.boxes_xyxy)


@pytest.mark.parametrize("start", ["boxes", "ones"])
def test_rounding_moves_no_mask_where_nothing_is_hidden(images, start):
    method = replace(METHOD, start=start, record=True)
    equal = objects([BOXES[0]] * 3, [1] * 3)  # of whose last positive the first mask hides nothing
    first, *others = run_one(method, RoundsByPlace(), images[0], equal)
    (alone,) = run_one(method, RoundsByPlace(), images[0], objects(BOXES[:1], [1]))
    assert (first.curve[0] == 0).all() == (start == "ones")
    for other in (*others, alone):
        assert_same(first, other)
        torch.testing.assert_close(first.curve, other.curve, rtol=0, atol=1e-10)


def test_other_images_do_not_matter(detector, images):
    both = METHOD.run(detector, images, [objects(), objects(BOXES[1:], CLASSES[1:])], ["a", "b"])
    assert_all_same(both[0], run_one(METHOD, detector, images[0]))
    own = objects(BOXES[1:], CLASSES[1:])
    assert_all_same(both[1], run_one(METHOD, detector, images[1], own, "b"))


@pytest.mark.parametrize("max_pixels", [1, 15_000, 10**9])
def test_the_size_of_batches_does_not_matter(detector, images, max_pixels):
    plain = run_one(METHOD, detector, images[0])
    assert_all_same(run_one(replace(METHOD, max_pixels=max_pixels), detector, images[0]), plain)


def test_100_objects_are_never_in_one_batch_on_a_cpu(detector, images, monkeypatch):
    batches = []
    plain = TinyDetector.read

    def spy(self, inputs, owner, candidates):
        batches.append(len(inputs))
        return plain(self, inputs, owner, candidates)

    monkeypatch.setattr(TinyDetector, "read", spy)
    many = objects([BOXES[i % 4] for i in range(100)], [CLASSES[i % 4] for i in range(100)])
    found = run_one(replace(METHOD, steps=1), detector, images[0], many)
    assert len(found) == 100
    assert 10 < max(batches) < 2**18 / (64 * 88)


@pytest.mark.parametrize("cached", [0, 6 * 2**30])
def test_what_torch_keeps_on_a_gpu_is_free_and_half_of_it_is_left_to_neighbours(
    monkeypatch, cached
):
    total, alive = 10 * 2**30, 2 * 2**30
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (total - alive - cached, total))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: alive + cached)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: alive)
    pixels = _default_pixels(torch.device("cuda"))
    assert pixels == 4 * 2**30 // GPU_BYTES_A_PIXEL
    assert _default_pixels(torch.device("cpu")) < pixels
