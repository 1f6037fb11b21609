"""The bank of companions: the same whoever cuts it, and shared without a copy."""

import hashlib
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from rayseg.learn import Crops
from rayseg.records import Sample
from rayseg.stages import CompanionArrays, CompanionBank, fill_bank

BANK = CompanionBank(images=6, crops=Crops(crop=24, long_side=(18, 40)), seed=3)
NUM_CLASSES = 4


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    """Twelve images of several sizes; every fourth has no tag."""
    folder = tmp_path_factory.mktemp("bank")
    rng = np.random.default_rng(0)
    none = np.zeros((0, 4), np.float32), np.zeros(0, np.int64)
    made = []
    for n in range(12):
        size_hw = (20 + n, 31)
        path = folder / f"i{n:02d}.png"
        Image.fromarray(rng.integers(0, 256, (*size_hw, 3)).astype(np.uint8)).save(path)
        tags = () if n % 4 == 0 else tuple(range(n % 4 - 1, 3))
        made.append(Sample(f"i{n:02d}", str(path), *size_hw, tags, *none))
    return made


def literal_order(samples, seed):
    """Tagged samples in the order in which they are drawn."""
    tagged = [sample for sample in samples if sample.tags]
    order = np.random.default_rng(seed).permutation(len(tagged))
    return [tagged[i] for i in order]


def same(one, other):
    return one.ids == other.ids and all(
        torch.equal(getattr(one, part), getattr(other, part))
        for part in ("pixels", "boxes_yxyx", "tags")
    )


def test_a_bank_is_drawn_from_the_tagged_images_without_replacement(samples):
    bank = fill_bank(samples, NUM_CLASSES, BANK)
    expected = literal_order(samples, 3)[:6]
    assert bank.ids == tuple(sample.id for sample in expected)
    tags = [[c in sample.tags for c in range(NUM_CLASSES)] for sample in expected]
    assert bank.tags.tolist() == tags


def test_each_crop_follows_from_the_seed_and_its_image_alone(samples):
    bank = fill_bank(samples, NUM_CLASSES, BANK)
    by_id = {sample.id: sample for sample in samples}
    for n, id_ in enumerate(bank.ids):
        number = hashlib.blake2b(f"3/{id_}".encode(), digest_size=8).hexdigest()
        pixels = np.asarray(Image.open(by_id[id_].path))
        levels, box = BANK.crops.cut_levels(pixels, np.random.default_rng(int(number, 16)))
        np.testing.assert_array_equal(bank.pixels[n].numpy(), levels)
        assert tuple(bank.boxes_yxyx[n].tolist()) == box


def test_order_of_the_samples_does_not_matter(samples):
    assert same(fill_bank(samples, NUM_CLASSES, BANK), fill_bank(samples[::-1], NUM_CLASSES, BANK))


def test_another_seed_is_another_bank(samples):
    first = fill_bank(samples, NUM_CLASSES, BANK)
    assert not same(first, fill_bank(samples, NUM_CLASSES, replace(BANK, seed=4)))


def test_a_bank_larger_than_the_data_has_every_tagged_image_once(samples):
    bank = fill_bank(samples, NUM_CLASSES, replace(BANK, images=100))
    assert sorted(bank.ids) == [sample.id for sample in samples if sample.tags]


@pytest.mark.parametrize("images", [6, 100])
def test_a_bad_image_is_passed_over_and_the_next_one_taken(samples, images, tmp_path):
    order = literal_order(samples, 3)
    bad = {order[1].id: b"no image", order[6].id: None}
    damaged = []
    for sample in samples:
        path = tmp_path / f"{sample.id}.png"
        if bad.get(sample.id):
            path.write_bytes(bad[sample.id])
        is_bad = sample.id in bad
        damaged.append(replace(sample, path=str(path)) if is_bad else sample)
    wanted = replace(BANK, images=images)
    bank = fill_bank(damaged, NUM_CLASSES, wanted)
    good = [sample.id for sample in order if sample.id not in bad]
    assert bank.ids == tuple(good[:images])
    whole = fill_bank(samples, NUM_CLASSES, replace(BANK, images=100))
    places = [whole.ids.index(id_) for id_ in bank.ids]
    assert torch.equal(bank.pixels, whole.pixels[places])
    assert torch.equal(bank.boxes_yxyx, whole.boxes_yxyx[places])


def test_companions_see_what_a_training_crop_shows(samples):
    bank = fill_bank(samples, NUM_CLASSES, BANK)
    seen = bank.images(torch.arange(len(bank)), torch.device("cpu")).numpy()
    for n, id_ in enumerate(bank.ids):
        number = hashlib.blake2b(f"3/{id_}".encode(), digest_size=8).hexdigest()
        pixels = np.asarray(Image.open(next(s.path for s in samples if s.id == id_)))
        cut = BANK.crops.cut(pixels, np.random.default_rng(int(number, 16)))
        np.testing.assert_allclose(seen[n], cut, atol=1e-6)


def test_without_a_tag_there_is_no_bank(samples):
    untagged = [sample for sample in samples if not sample.tags]
    with pytest.raises(ValueError, match="from tagged images, got no image with a tag"):
        fill_bank(untagged, NUM_CLASSES, BANK)


def test_without_a_readable_image_there_is_no_bank(samples):
    missing = [replace(sample, path="/nowhere") for sample in samples]
    with pytest.raises(ValueError, match="images that can be read, got none in 9"):
        fill_bank(missing, NUM_CLASSES, BANK)


def test_a_bank_of_no_images_is_refused():
    with pytest.raises(ValueError, match="images must be 1 or more, got 0"):
        CompanionBank(images=0)


# As arrays


def test_arrays_and_tensors_of_a_bank_are_the_same_memory(samples):
    bank = fill_bank(samples, NUM_CLASSES, BANK)
    back = CompanionArrays.of(bank).companions()
    assert same(bank, back)
    for part in ("pixels", "boxes_yxyx", "tags"):
        assert getattr(back, part).data_ptr() == getattr(bank, part).data_ptr()


def test_read_only_arrays_are_taken_without_a_copy_and_without_a_warning(samples):
    arrays = CompanionArrays.of(fill_bank(samples, NUM_CLASSES, BANK))
    for part in (arrays.pixels, arrays.boxes_yxyx, arrays.tags):
        part.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bank = arrays.companions()
    assert bank.pixels.data_ptr() == arrays.pixels.ctypes.data
    draw = next(bank.draws([0], 2, torch.Generator().manual_seed(0)))
    assert bank.images(draw.indices, torch.device("cpu")).shape == (2, 3, 24, 24)
