import json

import numpy as np
import pytest

from rayseg.records.rle import (
    as_rle,
    cut_mask,
    decode_mask,
    encode_mask,
    mask_area,
    mask_ious,
    paint,
    run_lengths,
)


def runs(mask):
    """Lengths of the runs, column by column, the first of them zeros."""
    lengths, value = [0], False
    for pixel in mask.T.ravel():
        if pixel == value:
            lengths[-1] += 1
        else:
            lengths.append(1)
            value = pixel
    return lengths


def pack(lengths):
    """COCO's bytes of run lengths: differences to the length before last, five bits at a time."""
    packed = []
    for i, length in enumerate(lengths):
        left = length - lengths[i - 2] if i > 2 else length
        more = True
        while more:
            group = left & 31
            left >>= 5
            more = left != (-1 if group & 16 else 0)
            packed.append((group | (32 if more else 0)) + 48)
    return bytes(packed)


def draw(seed, size_hw=(9, 13)):
    rng = np.random.default_rng(seed)
    return rng.random(size_hw) < rng.random()


@pytest.mark.parametrize("seed", range(8))
def test_counts_equal_a_literal_packing(seed):
    size_hw = (9, 13) if seed < 6 else (70, 40)
    mask = draw(seed, size_hw)
    assert encode_mask(mask) == pack(runs(mask))
    np.testing.assert_array_equal(decode_mask(pack(runs(mask)), size_hw), mask)


@pytest.mark.parametrize("value", [False, True])
def test_masks_of_one_value_come_back(value):
    mask = np.full((6, 4), value)
    np.testing.assert_array_equal(decode_mask(encode_mask(mask), (6, 4)), mask)
    assert mask_area(encode_mask(mask), (6, 4)) == 24 * value


def test_views_of_any_layout_are_encoded_alike():
    mask = draw(3, (12, 18))
    for view in (mask[::2, ::-1], mask.T, np.asfortranarray(mask)):
        assert encode_mask(view) == encode_mask(np.ascontiguousarray(view))


def test_empty_counts_are_a_mask_without_pixels():
    assert not decode_mask(b"", (3, 4)).any()
    assert decode_mask(b"", (3, 4)).shape == (3, 4)
    assert mask_area(b"", (3, 4)) == 0


def test_counts_are_ascii_as_json_wants_them():
    rle = as_rle(encode_mask(draw(1)), (9, 13))
    text = json.dumps(rle | {"counts": rle["counts"].decode("ascii")})
    assert json.loads(text)["counts"].encode("ascii") == rle["counts"]


def test_areas_and_overlaps_equal_counts_of_pixels():
    masks = [draw(seed) for seed in range(6)] + [np.zeros((9, 13), bool)]
    counts = [encode_mask(mask) for mask in masks]
    assert [mask_area(one, (9, 13)) for one in counts] == [mask.sum() for mask in masks]
    ious = mask_ious([*counts, b""], counts, (9, 13))
    for i, first in enumerate([*masks, masks[-1]]):
        for j, second in enumerate(masks):
            union = (first | second).sum()
            expected = (first & second).sum() / union if union else 0
            assert ious[i, j] == pytest.approx(expected)


def test_a_mask_is_cut_to_the_pixels_that_are_kept():
    mask, kept = draw(1), draw(2)
    cut = cut_mask(encode_mask(mask), encode_mask(kept), (9, 13))
    np.testing.assert_array_equal(decode_mask(cut, (9, 13)), mask & kept)
    assert cut_mask(b"", encode_mask(kept), (9, 13)) == b""


def test_no_masks_have_no_overlaps():
    assert mask_ious([], [b""], (3, 4)).shape == (0, 1)
    assert mask_ious([b""], [], (3, 4)).shape == (1, 0)


@pytest.mark.parametrize("seed", range(8))
def test_run_lengths_are_read_back_from_compressed_counts(seed):
    mask = draw(seed, (37, 61))
    assert run_lengths(encode_mask(mask)).tolist() == runs(mask)


def test_run_lengths_of_large_images_are_exact():
    lengths = [123_456_789, 1, 40_000_000, 2, 5, 99_999_999]
    assert run_lengths(pack(lengths)).tolist() == lengths


@pytest.mark.parametrize(
    "counts", [b"", b"o", b"00o", b"\x00", b"~", b"O", b"oooooooooo0", "ö".encode()]
)
def test_bytes_that_are_no_counts_are_refused(counts):
    with pytest.raises(ValueError, match="compressed counts"):
        run_lengths(counts)


@pytest.mark.parametrize("seed", range(4))
def test_painting_a_mask_sets_its_pixels_and_no_others(seed):
    mask = draw(seed)
    labels = np.full(mask.shape, 7, np.uint8, order="F")
    paint(labels, encode_mask(mask), 3)
    np.testing.assert_array_equal(labels, np.where(mask, 3, 7))
