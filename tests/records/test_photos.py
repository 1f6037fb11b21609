"""Photographs as cameras make them: large, turned by EXIF, in WebP and HEIC."""

import io
import sys

import numpy as np
import pytest
from PIL import Image

from rayseg.records.images import ImageError, decode_image, read_header, read_turn
from rayseg.records.scaling import enlarge_labels, enlarge_mask, fit, scale_boxes, shrink_labels

QUARTERS = ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255))
"""Colours of the quarters of a picture as it is looked at: upper left, right, lower left, right."""


def looked_at(height, width):
    colours = np.array(QUARTERS, np.uint8).reshape(2, 2, 3)
    return Image.fromarray(colours).resize((width, height), Image.Resampling.NEAREST)


BACK = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}
"""How a camera that writes an orientation stores what is looked at: PIL's number of the turn."""


def stored(picture, orientation, kind="JPEG"):
    """Bytes of a picture as a camera that was held otherwise writes them."""
    turned = picture.transpose(Image.Transpose(BACK[orientation])) if orientation > 1 else picture
    exif = Image.Exif()
    exif[0x0112] = orientation
    sink = io.BytesIO()
    turned.save(sink, kind, exif=exif)
    return sink.getvalue()


def quarters(pixels):
    height, width, _ = pixels.shape
    places = [(y, x) for y in (height // 4, 3 * height // 4) for x in (width // 4, 3 * width // 4)]
    return tuple(tuple(int(v > 128) * 255 for v in pixels[place]) for place in places)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_a_photo_is_seen_upright_whatever_its_orientation_and_format(tmp_path, kind, orientation):
    data = stored(looked_at(400, 600), orientation, kind)
    decoded = decode_image(data, 120)
    assert decoded.pixels.shape == (80, 120, 3)
    assert quarters(decoded.pixels) == QUARTERS
    (tmp_path / "photo").write_bytes(data)
    assert read_header(tmp_path / "photo").shown_hw == (400, 600)


def test_the_row_can_say_what_was_done():
    data = stored(looked_at(400, 600), 6)
    assert decode_image(data, 120).note == (
        "seen at 80x120 of 400x600 pixels; turned as EXIF orientation 6 says"
    )
    assert decode_image(data, 600).note == "turned as EXIF orientation 6 says"
    assert decode_image(data).note == "EXIF orientation 6 not applied, pixels kept in stored order"


def test_without_a_side_pixels_stay_as_they_are_stored():
    data = stored(looked_at(40, 60), 6, "PNG")
    assert decode_image(data).pixels.shape == (60, 40, 3)


def test_a_photo_that_fits_and_lies_upright_is_seen_as_it_is_stored():
    data = stored(looked_at(40, 60), 1, "PNG")
    assert np.array_equal(decode_image(data, 60).pixels, decode_image(data).pixels)


def test_a_photo_that_is_made_smaller_looks_like_the_mean_of_its_pixels():
    noise = np.random.default_rng(0).integers(0, 256, (512, 768, 3), np.uint8)
    sink = io.BytesIO()
    Image.fromarray(noise).save(sink, "PNG")
    seen = decode_image(sink.getvalue(), 96).pixels.astype(float)
    mean = noise.reshape(64, 8, 96, 8, 3).mean((1, 3))
    assert np.abs(seen - mean).mean() < 6


def test_what_is_more_than_a_photo_is_refused_by_its_header():
    large = b"P6 20000 9000 255\n" + bytes(8)
    with pytest.raises(ImageError, match="too many pixels"):
        decode_image(large, 640)


@pytest.mark.parametrize("orientation", [0, 9, 77])
def test_an_orientation_that_is_none_turns_nothing(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    sink = io.BytesIO()
    looked_at(40, 60).save(sink, "JPEG", exif=exif)
    assert decode_image(sink.getvalue(), 60).pixels.shape == (40, 60, 3)
    (tmp_path / "a.jpg").write_bytes(sink.getvalue())
    assert read_turn(tmp_path / "a.jpg") == ""


HEIC = b"\x00\x00\x00\x18ftypheic" + bytes(40)


def test_heic_says_how_it_is_read_where_that_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(ImageError, match=r"HEIC photo: `pip install 'rayseg\[heic\]'` reads it"):
        decode_image(HEIC, 640)


def test_heic_is_seen_upright(tmp_path):
    pillow_heif = pytest.importorskip("pillow_heif")
    sink = io.BytesIO()
    pillow_heif.from_pillow(looked_at(400, 600)).save(sink, quality=90)
    assert quarters(decode_image(sink.getvalue(), 120).pixels) == QUARTERS
    with pytest.raises(ImageError):
        decode_image(HEIC, 640)


def test_sizes_that_fit_are_kept_and_narrow_ones_stay_wide_enough():
    assert fit((300, 400), 640) == (300, 400)
    assert fit((3000, 4000), 640) == (480, 640)
    assert fit((100, 10_000), 640) == (16, 640)


def test_labels_of_a_larger_photo_have_smooth_edges_and_no_new_label():
    small = np.zeros((20, 30), np.uint8)
    small[:, 15:] = 3
    small[5:8, 4:9] = 255
    large = enlarge_labels(small, (200, 300))
    assert set(np.unique(large)) == {0, 3, 255}
    assert (large[:, 150:] == 3).all()
    assert not (large[:, :150] == 3).any()
    assert np.array_equal(shrink_labels(large, (20, 30)), small)
    blocks = small.repeat(10, 0).repeat(10, 1)
    assert (large != blocks).mean() < 0.02


def test_masks_and_boxes_at_another_size_lie_on_the_same_thing():
    mask = np.zeros((20, 30), bool)
    mask[5:10, 10:20] = True
    large = enlarge_mask(mask, (200, 300))
    rows, columns = large.any(1).nonzero()[0], large.any(0).nonzero()[0]
    assert (rows[0], rows[-1] + 1, columns[0], columns[-1] + 1) == (50, 100, 100, 200)
    boxes = scale_boxes(np.array([[10, 5, 20, 10]], np.float32), (20, 30), (200, 300))
    assert boxes.tolist() == [[100, 50, 200, 100]]
