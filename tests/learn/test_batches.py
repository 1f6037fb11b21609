import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from rayseg.labels import Truths
from rayseg.learn import (
    DEVIATION_RGB,
    MEAN_RGB,
    Crops,
    DrawOrder,
    EpochOrder,
    LabelledCrops,
    SegmentationCrops,
    TaggedCrops,
    evaluation_batches,
    labelled_batches,
    object_batches,
    training_batches,
)
from rayseg.records import Sample
from rayseg.records.images import ImageError
from rayseg.records.palette import encode_labels
from rayseg.store import Folder, write_manifest
from tests.bad_images import picture

SAME_SIZE = Crops(crop=32, long_side=(48, 48), flip=False)
SMALL = SegmentationCrops(crop=32)


def sample(path, tags=(0,)):
    boxes = np.zeros((0, 4), np.float32), np.zeros(0, np.int64)
    return Sample(path.stem, str(path), 40, 60, tags, *boxes)


@pytest.fixture
def samples(tmp_path):
    made = []
    for number in range(6):
        path = tmp_path / f"{number}.png"
        Image.fromarray(np.roll(picture(), number * 7, axis=0)).save(path)
        made.append(sample(path, tags=(number % 3,) if number < 5 else ()))
    return made


def test_crop_is_a_function_of_seed_epoch_and_index(samples):
    crops = Crops(crop=32, long_side=(30, 60))
    same = [TaggedCrops(samples, 3, crops, 7)[(2, 1)][0] for _ in range(2)]
    assert torch.equal(*same)
    for seed, key in ((8, (2, 1)), (7, (3, 1)), (7, (2, 2))):
        assert not torch.equal(TaggedCrops(samples, 3, crops, seed)[key][0], same[0])


def test_targets_are_the_tags(samples):
    crops = TaggedCrops(samples, 3, SAME_SIZE, 0)
    targets = [crops[(0, index)][1].tolist() for index in range(6)]
    expected = np.eye(3)[[0, 1, 2, 0, 1]].tolist()
    assert targets == [*expected, [0, 0, 0]]


def test_whole_image_is_resized_to_the_crop_and_not_drawn(samples):
    crops = TaggedCrops(samples, 3, Crops(crop=60, long_side=(20, 20)), 0)
    image, _, _ = crops[(-1, 0)]
    assert torch.equal(image, torch.from_numpy(crops.crops.whole(picture())))
    levels = (image.permute(1, 2, 0).numpy() * DEVIATION_RGB + MEAN_RGB) * 255
    assert np.abs(levels[:40] - picture()).max() < 1e-3
    assert not image[:, 40:].any()


@pytest.mark.parametrize("kind", ["missing", "text"])
def test_unreadable_image_is_replaced_by_the_next_with_its_tags(samples, tmp_path, kind):
    bad = tmp_path / "bad.png"
    if kind == "text":
        bad.write_text("<html>")
    mixed = [samples[0], sample(bad), samples[2]]
    image, target, id_ = TaggedCrops(mixed, 3, SAME_SIZE, 0)[(0, 1)]
    good = TaggedCrops([samples[0], samples[2], samples[2]], 3, SAME_SIZE, 0)[(0, 1)]
    assert torch.equal(image, good[0])
    assert target.tolist() == [0, 0, 1]
    assert id_ == samples[2].id


def test_images_that_are_all_unreadable_are_an_error_that_names_one(tmp_path):
    bad = [sample(tmp_path / f"{number}.png") for number in range(3)]
    with pytest.raises(ImageError, match=r"3 images in a row cannot be read, such as .*1.png"):
        TaggedCrops(bad, 3, SAME_SIZE, 0)[(0, 1)]


def test_loader_gives_the_orders_batches(samples):
    crops = TaggedCrops(samples, 3, SAME_SIZE, 0)
    order = EpochOrder(6, 2, 0, 0)
    batches = list(training_batches(crops, order))
    assert [tuple(images.shape) for images, _, _ in batches] == [(2, 3, 32, 32)] * 3
    for (images, targets, ids), keys in zip(batches, order, strict=True):
        assert ids == [samples[index].id for _, index in keys]
        for image, target, key in zip(images, targets, keys, strict=True):
            assert torch.equal(image, crops[key][0])
            assert torch.equal(target, crops[key][1])


def test_evaluation_sees_every_image_once_in_order(samples):
    crops = TaggedCrops(samples, 3, SAME_SIZE, 0)
    images = torch.cat([images for images, _, _ in evaluation_batches(crops, 4)])
    assert torch.equal(images, torch.stack([crops[(-1, index)][0] for index in range(6)]))
    shares = [list(evaluation_batches(crops, 4, rank=rank, world=2)) for rank in range(2)]
    assert [torch.equal(one[0][0], images[rank::2]) for rank, one in enumerate(shares)] == [
        True
    ] * 2


# With labels


@pytest.fixture
def labels(samples, tmp_path):
    """True masks of the samples; that of sample n holds classes 0 to 3, its first pixel is n."""
    with_masks = []
    for number, one in enumerate(samples):
        drawn = np.random.default_rng(number).integers(0, 4, (40, 60), np.uint8)
        drawn[0, 0] = number
        path = tmp_path / f"mask{number}.png"
        path.write_bytes(encode_labels(drawn))
        with_masks.append(replace(one, mask_path=str(path)))
    write_manifest(Folder(str(tmp_path / "manifest")), with_masks, [*"abcdef"])
    return Truths(Folder(str(tmp_path / "manifest")))


def test_an_item_is_the_crop_that_the_seed_and_the_draw_give(samples, labels):
    image, target, id_ = LabelledCrops(samples, labels, SMALL, 7)[(9, 2)]
    pixels = np.roll(picture(), 14, axis=0)
    expected = SMALL.cut(pixels, labels.read("2", (40, 60)), np.random.default_rng([7, 9]))
    assert torch.equal(image, torch.from_numpy(expected[0]))
    assert torch.equal(target, torch.from_numpy(expected[1]))
    assert id_ == "2"


def test_crop_with_labels_is_another_with_another_seed_draw_or_index(samples, labels):
    image, target, _ = LabelledCrops(samples, labels, SMALL, 7)[(2, 1)]
    for seed, key in ((8, (2, 1)), (7, (3, 1)), (7, (2, 2))):
        other = LabelledCrops(samples, labels, SMALL, seed)[key]
        assert not torch.equal(other[0], image)
        assert not torch.equal(other[1], target)


def test_unreadable_image_is_replaced_by_the_next_with_its_labels(
    samples, labels, tmp_path, caplog
):
    (tmp_path / "1.png").write_text("<html>")
    crops = LabelledCrops(samples, labels, SMALL, 7)
    got = crops[(5, 1)]
    expected = crops[(5, 2)]
    assert torch.equal(got[0], expected[0])
    assert torch.equal(got[1], expected[1])
    assert got[2] == "2"
    assert "1.png: not an image" in caplog.text


def test_twenty_unreadable_images_in_a_row_end_the_training(samples, labels, tmp_path):
    many = [replace(samples[0], path=str(tmp_path / f"none{n}.png")) for n in range(30)]
    with pytest.raises(ImageError, match=r"20 images in a row cannot be read, such as .*none3.png"):
        LabelledCrops(many, labels, SMALL, 0)[(0, 3)]


def test_labels_of_another_size_are_an_error_that_names_image_and_mask(samples, labels, tmp_path):
    Image.fromarray(picture((60, 40))).save(tmp_path / "1.png")
    reason = r"/1.png: true mask .*/mask1.png must be \(60, 40\) as its image, got \(40, 60\)"
    with pytest.raises(ValueError, match=reason):
        LabelledCrops(samples, labels, SMALL, 0)[(0, 1)]


def test_labels_that_are_all_ignored_are_an_error(samples, labels, tmp_path):
    (tmp_path / "mask1.png").write_bytes(encode_labels(np.full((40, 60), 255, np.uint8)))
    with pytest.raises(ValueError, match=r"/1.png: true mask .* not ignored \(255\)"):
        LabelledCrops(samples, labels, SMALL, 0)[(0, 1)]


def test_images_without_labels_are_refused_with_both_sides(samples, labels):
    strange = [*samples, replace(samples[0], id="strange")]
    reason = "all 7 images must have labels, 1 have none, such as true mask of 'strange'"
    with pytest.raises(ValueError, match=reason):
        LabelledCrops(strange, labels, SMALL, 0)


@pytest.mark.parametrize("loader_workers", [0, 2])
def test_labelled_batches_are_those_of_the_order(samples, labels, loader_workers):
    crops, order = LabelledCrops(samples, labels, SMALL, 0), DrawOrder(6, 4, 1, 4, 0)
    batches = list(labelled_batches(crops, order, loader_workers))
    assert len(batches) == 3
    for (images, targets, ids), keys in zip(batches, order, strict=True):
        expected = [crops[key] for key in keys]
        assert (images.dtype, targets.dtype) == (torch.float32, torch.uint8)
        assert torch.equal(images, torch.stack([image for image, _, _ in expected]))
        assert torch.equal(targets, torch.stack([target for _, target, _ in expected]))
        assert ids == [id_ for _, _, id_ in expected]
        assert isinstance(ids, list)


@pytest.mark.parametrize("cores", [1, 3])
def test_no_more_processes_decode_than_there_are_cores(monkeypatch, cores):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(cores)), raising=False)
    data, order = list(range(4)), [[0, 1], [2, 3]]  # torch warns of more, and warnings are errors
    for batches in (training_batches, evaluation_batches, labelled_batches, object_batches):
        given = 2 if batches is evaluation_batches else order
        assert batches(data, given, 2).num_workers == min(cores, 2)
