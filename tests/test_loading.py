import numpy as np
import pytest
import torch
from PIL import Image

from rayseg.images import ImageError
from rayseg.loading import (
    DEVIATION_RGB,
    MEAN_RGB,
    Crops,
    EpochOrder,
    TaggedCrops,
    evaluation_batches,
    training_batches,
)
from rayseg.records import Sample
from tests.bad_images import picture

SAME_SIZE = Crops(crop=32, long_side=(48, 48), flip=False)


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


def normalised(pixels):
    return ((pixels.astype(np.float32) / 255 - MEAN_RGB) / DEVIATION_RGB).transpose(2, 0, 1)


def keys_of(world, **changes):
    facts = {"num_samples": 23, "size": 4, "epoch": 1, "seed": 5, **changes}
    return [list(EpochOrder(**facts, rank=rank, world=world)) for rank in range(world)]


@pytest.mark.parametrize("world", [2, 4])
def test_workers_together_see_what_one_worker_sees(world):
    (alone,) = keys_of(1)
    for number, batch in enumerate(alone):
        together = [key for rank in keys_of(world) for key in rank[number]]
        assert sorted(together) == sorted(batch)


def test_epoch_takes_every_image_at_most_once_and_drops_the_rest():
    (batches,) = keys_of(1)
    indices = [index for batch in batches for _, index in batch]
    assert len(EpochOrder(23, 4, 1, 5)) == len(batches) == 5
    assert len(set(indices)) == len(indices) == 20
    assert {epoch for batch in batches for epoch, _ in batch} == {1}


def test_order_is_the_same_again_and_another_in_other_epochs_and_seeds():
    def indices(**changes):
        return [index for batch in keys_of(1, **changes)[0] for _, index in batch]

    assert indices() == indices()
    assert indices() != indices(epoch=2)
    assert indices() != indices(seed=6)


def test_batch_that_does_not_divide_or_fill_is_refused_with_both_sides():
    with pytest.raises(ValueError, match="divide by 3 workers, got 4"):
        EpochOrder(23, 4, 0, 0, world=3)
    with pytest.raises(ValueError, match="at most the 3 images, got 4"):
        EpochOrder(3, 4, 0, 0)


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


def test_crop_is_a_window_of_the_resized_image():
    pixels = np.random.default_rng(0).integers(0, 256, (36, 48, 3)).astype(np.uint8)
    whole, places = normalised(pixels), set()
    for seed in range(20):
        crop = SAME_SIZE.cut(pixels, np.random.default_rng(seed))
        matches = [
            (y, x)
            for y in range(36 - 32 + 1)
            for x in range(48 - 32 + 1)
            if np.array_equal(whole[:, y : y + 32, x : x + 32], crop)
        ]
        assert len(matches) == 1
        places.add(matches[0])
    assert len(places) > 10


def test_small_image_lies_whole_on_a_canvas_of_mean_colour():
    pixels = np.random.default_rng(0).integers(0, 256, (20, 24, 3)).astype(np.uint8)
    crops = Crops(crop=32, long_side=(24, 24), flip=False)
    places = set()
    for seed in range(10):
        canvas = crops.cut(pixels, np.random.default_rng(seed))
        rows, columns = (np.flatnonzero(canvas.any((0, axis))) for axis in (2, 1))
        y, x = rows[0], columns[0]
        np.testing.assert_array_equal(canvas[:, y : y + 20, x : x + 24], normalised(pixels))
        canvas[:, y : y + 20, x : x + 24] = 0
        assert not canvas.any()
        places.add((y, x))
    assert len(places) > 5


def test_half_of_the_crops_are_mirrored():
    pixels = picture((32, 32))
    crops = Crops(crop=32, long_side=(32, 32))
    plain, mirrored = normalised(pixels), normalised(pixels[:, ::-1])
    found = [crops.cut(pixels, np.random.default_rng(seed)) for seed in range(100)]
    count = sum(np.array_equal(crop, mirrored) for crop in found)
    assert 30 < count < 70
    assert count + sum(np.array_equal(crop, plain) for crop in found) == 100


def test_long_side_is_drawn_from_the_whole_range():
    crops = Crops(crop=64, long_side=(20, 24), flip=False)
    pixels = np.full((20, 40, 3), 255, np.uint8)
    widths = {
        int(crops.cut(pixels, np.random.default_rng(seed)).any((0, 1)).sum()) for seed in range(60)
    }
    assert widths == {20, 21, 22, 23, 24}


def test_whole_image_is_resized_to_the_crop_and_not_drawn(samples):
    crops = TaggedCrops(samples, 3, Crops(crop=60, long_side=(20, 20)), 0)
    image, _ = crops[(-1, 0)]
    np.testing.assert_array_equal(image[:, :40].numpy(), normalised(picture()))
    assert not image[:, 40:].any()


@pytest.mark.parametrize("kind", ["missing", "text"])
def test_unreadable_image_is_replaced_by_the_next_with_its_tags(samples, tmp_path, kind):
    bad = tmp_path / "bad.png"
    if kind == "text":
        bad.write_text("<html>")
    mixed = [samples[0], sample(bad), samples[2]]
    image, target = TaggedCrops(mixed, 3, SAME_SIZE, 0)[(0, 1)]
    good = TaggedCrops([samples[0], samples[2], samples[2]], 3, SAME_SIZE, 0)[(0, 1)]
    assert torch.equal(image, good[0])
    assert target.tolist() == [0, 0, 1]


def test_images_that_are_all_unreadable_are_an_error_that_names_one(tmp_path):
    bad = [sample(tmp_path / f"{number}.png") for number in range(3)]
    with pytest.raises(ImageError, match=r"3 images in a row cannot be read, such as .*1.png"):
        TaggedCrops(bad, 3, SAME_SIZE, 0)[(0, 1)]


def test_loader_gives_the_orders_batches(samples):
    crops = TaggedCrops(samples, 3, SAME_SIZE, 0)
    order = EpochOrder(6, 2, 0, 0)
    batches = list(training_batches(crops, order))
    assert [tuple(images.shape) for images, _ in batches] == [(2, 3, 32, 32)] * 3
    for (images, targets), keys in zip(batches, order, strict=True):
        for image, target, key in zip(images, targets, keys, strict=True):
            assert torch.equal(image, crops[key][0])
            assert torch.equal(target, crops[key][1])


def test_evaluation_sees_every_image_once_in_order(samples):
    crops = TaggedCrops(samples, 3, SAME_SIZE, 0)
    images = torch.cat([images for images, _ in evaluation_batches(crops, 4)])
    assert torch.equal(images, torch.stack([crops[(-1, index)][0] for index in range(6)]))


@pytest.mark.parametrize("fields", [{"crop": 0}, {"long_side": (0, 5)}, {"long_side": (6, 5)}])
def test_senseless_crops_are_refused(fields):
    with pytest.raises(ValueError, match="long_side must ascend and crop be positive"):
        Crops(**fields)
