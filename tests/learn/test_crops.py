from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from rayseg.learn import DEVIATION_RGB, MEAN_RGB, Crops, SegmentationCrops
from tests.bad_images import picture

SAME_SIZE = Crops(crop=32, long_side=(48, 48), flip=False)


def normalised(pixels):
    return ((pixels.astype(np.float32) / 255 - MEAN_RGB) / DEVIATION_RGB).transpose(2, 0, 1)


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


def literal_crop(crops, pixels, generator):
    """The same draws; levels and where they are image, pixel by pixel."""
    long_side = int(generator.integers(crops.long_side[0], crops.long_side[1] + 1))
    height, width, _ = pixels.shape
    size = [max(round(side * (long_side / max(height, width))), 1) for side in (width, height)]
    image = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))
    if crops.flip and generator.random() < 0.5:
        image = image[:, ::-1]
    moved = [int(generator.integers(0, abs(side - crops.crop) + 1)) for side in image.shape[:2]]
    # of a small image the place in the crop, of a large one the place of the crop
    y, x = (-o if n < crops.crop else o for o, n in zip(moved, image.shape, strict=False))
    levels = np.zeros((crops.crop, crops.crop, 3), np.uint8)
    inside = np.zeros((crops.crop, crops.crop), bool)
    for row, column in np.ndindex(inside.shape):
        if 0 <= row + y < image.shape[0] and 0 <= column + x < image.shape[1]:
            levels[row, column] = image[row + y, column + x]
            inside[row, column] = True
    return levels, inside


@pytest.mark.parametrize("size_hw", [(23, 37), (40, 12), (12, 50), (24, 24)])
def test_levels_and_box_are_those_of_a_loop_over_pixels(size_hw):
    pixels = np.random.default_rng(0).integers(0, 256, (*size_hw, 3)).astype(np.uint8)
    crops = Crops(crop=24, long_side=(18, 40))
    for seed in range(20):
        levels, (top, left, bottom, right) = crops.cut_levels(pixels, np.random.default_rng(seed))
        expected, inside = literal_crop(crops, pixels, np.random.default_rng(seed))
        np.testing.assert_array_equal(levels, expected)
        box = np.zeros_like(inside)
        box[top:bottom, left:right] = True
        np.testing.assert_array_equal(box, inside)


def test_a_crop_is_its_levels_normalised_to_the_bit():
    pixels = np.random.default_rng(0).integers(0, 256, (23, 37, 3)).astype(np.uint8)
    crops = Crops(crop=24, long_side=(18, 40))
    for seed in range(20):
        levels, inside = literal_crop(crops, pixels, np.random.default_rng(seed))
        expected = np.where(inside, normalised(levels), np.float32(0))
        found = crops.cut(pixels, np.random.default_rng(seed))
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("fields", [{"crop": 0}, {"long_side": (0, 5)}, {"long_side": (6, 5)}])
def test_senseless_crops_are_refused(fields):
    with pytest.raises(ValueError, match="long_side must ascend and crop be positive"):
        Crops(**fields)


# With labels


def labelled(size_hw, seed=0, cell=1):
    """A random picture and random labels, in squares of so many pixels."""
    rng = np.random.default_rng(seed)
    cells = [-(-side // cell) for side in size_hw]
    labels = rng.choice(np.array([0, 1, 2, 3, 255], np.uint8), cells)
    labels = labels.repeat(cell, 0).repeat(cell, 1)[: size_hw[0], : size_hw[1]]
    return rng.integers(0, 256, (*size_hw, 3), np.uint8), labels


def literal_cut(crops, pixels, labels, generator):
    """The same draws; each pixel of the crop by itself, from the centre of its place."""
    scale = crops.scales[generator.integers(len(crops.scales))]
    (old_h, old_w), size = labels.shape, crops.crop
    new_h, new_w = int(old_h * scale), int(old_w * scale)
    top = generator.integers(0, max(new_h, size) - size + 1)
    left = generator.integers(0, max(new_w, size) - size + 1)
    mirrored = crops.flip and generator.random() < 0.5
    whole = normalised(
        np.asarray(Image.fromarray(pixels).resize((new_w, new_h), Image.Resampling.BILINEAR))
    )
    image, target = np.zeros((3, size, size), np.float32), np.full((size, size), 255, np.uint8)
    for y, x in np.ndindex(size, size):
        from_y, from_x = int(top) + y, int(left) + x
        if from_y < new_h and from_x < new_w:
            to_x = size - 1 - x if mirrored else x
            image[:, y, to_x] = whole[:, from_y, from_x]
            old_y = int((from_y + Fraction(1, 2)) * old_h / new_h)
            old_x = int((from_x + Fraction(1, 2)) * old_w / new_w)
            target[y, to_x] = labels[old_y, old_x]
    return image, target


@pytest.mark.parametrize("size_hw", [(23, 37), (40, 19), (8, 9), (16, 16)])
def test_crops_with_labels_are_those_of_a_loop_over_pixels(size_hw):
    crops, (pixels, labels) = SegmentationCrops(crop=16), labelled(size_hw)
    for seed in range(25):
        image, target = crops.cut(pixels, labels, np.random.default_rng(seed))
        expected = literal_cut(crops, pixels, labels, np.random.default_rng(seed))
        np.testing.assert_array_equal(image, expected[0])
        np.testing.assert_array_equal(target, expected[1])


def test_a_crop_of_an_images_own_size_and_scale_is_the_image():
    pixels, labels = labelled((24, 24))
    crops = SegmentationCrops(crop=24, scales=(1.0,), flip=False)
    image, target = crops.cut(pixels, labels, np.random.default_rng(0))
    np.testing.assert_array_equal(image, normalised(pixels))
    np.testing.assert_array_equal(target, labels)


def test_labels_stay_on_their_pixels():
    """Each label has its colour, and must have it still wherever its neighbours share it."""
    colours = np.random.default_rng(1).integers(0, 256, (256, 3)).astype(np.uint8)
    colours[255] = MEAN_RGB * 255  # what lies beyond the image
    _, labels = labelled((58, 83), cell=15)
    inside = 0
    for seed in range(40):
        image, target = SegmentationCrops(crop=48).cut(
            colours[labels], labels, np.random.default_rng(seed)
        )
        windows = np.lib.stride_tricks.sliding_window_view(target, (5, 5))
        alike = (windows == target[2:-2, 2:-2, None, None]).all((2, 3))
        levels = (image.transpose(1, 2, 0) * DEVIATION_RGB + MEAN_RGB) * 255
        off = np.abs(levels - colours[target].astype(np.float32)).max(2)[2:-2, 2:-2]
        assert off[alike].max() < 1
        inside += alike.sum()
    assert inside > 10_000


def test_what_lies_beyond_the_image_is_mean_colour_and_ignored():
    pixels, labels = np.full((20, 30, 3), 255, np.uint8), np.full((20, 30), 3, np.uint8)
    crops = SegmentationCrops(crop=64, scales=(1.0,), flip=False)
    image, target = crops.cut(pixels, labels, np.random.default_rng(0))
    assert (image[:, :20, :30] > 2).all()
    assert (target[:20, :30] == 3).all()
    image[:, :20, :30], target[:20, :30] = 0, 255
    assert not image.any()
    assert (target == 255).all()


def test_half_of_the_crops_are_mirrored_with_their_labels():
    pixels, labels = labelled((20, 30))
    count = 0
    for seed in range(100):
        image, target = SegmentationCrops(crop=24).cut(pixels, labels, np.random.default_rng(seed))
        plain = SegmentationCrops(crop=24, flip=False).cut(
            pixels, labels, np.random.default_rng(seed)
        )
        mirrored = not np.array_equal(image, plain[0])
        step = -1 if mirrored else 1
        np.testing.assert_array_equal(image, plain[0][..., ::step])
        np.testing.assert_array_equal(target, plain[1][..., ::step])
        count += mirrored
    assert 30 < count < 70


def test_scales_are_drawn_alike_often():
    pixels, labels = np.zeros((16, 16, 3), np.uint8), np.zeros((16, 16), np.uint8)
    crops, generator = SegmentationCrops(crop=24), np.random.default_rng(0)
    drawn = [int((crops.cut(pixels, labels, generator)[1][0] == 0).sum()) for _ in range(500)]
    widths, counts = np.unique(drawn, return_counts=True)
    assert widths.tolist() == [8, 12, 16, 20, 24]
    assert counts.min() > 70
    assert counts.max() < 130


def test_cutting_leaves_its_arguments_as_they_were():
    pixels, labels = labelled((20, 30))
    pixels.flags.writeable = labels.flags.writeable = False
    image, target = SegmentationCrops(crop=24).cut(pixels, labels, np.random.default_rng(0))
    assert image.flags.writeable
    assert target.flags.writeable


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"crop": 0}, "crop must be at least 1 pixel, got 0"),
        ({"scales": ()}, r"positive numbers, at least one, got \(\)"),
        ({"scales": (1.0, 0.0)}, r"positive numbers, at least one, got \(1.0, 0.0\)"),
        ({"scales": (float("nan"),)}, r"positive numbers, at least one, got \(nan,\)"),
    ],
)
def test_senseless_crops_with_labels_are_refused(fields, reason):
    with pytest.raises(ValueError, match=reason):
        SegmentationCrops(**fields)
