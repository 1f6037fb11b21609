import io
import os
import struct
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image, ImageFile

from rayseg.records.images import ImageError, decode_image, read_size, read_turn
from tests.bad_images import REFUSED, encode, picture, write_bad_images

RGB = Image.fromarray(picture())


def test_plain_rgb_comes_back_exactly_and_without_a_note():
    decoded = decode_image(encode(RGB))
    np.testing.assert_array_equal(decoded.pixels, picture())
    assert decoded.pixels.flags.c_contiguous
    assert decoded.note == ""


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("truncated", "cannot be decoded: .*truncated"),
        ("zero_byte", "zero bytes"),
        ("text", "not an image: expected JPEG.*<html>"),
        ("sixteen_bit", "convert to 8 bits first"),
        ("sixteen_bit_rgb", "convert to 8 bits first"),
        ("tiny", "too small: 1x1.* 16"),
        ("huge", "too many pixels: 12000x12000.* 50000000"),
    ],
)
def test_unusable_image_is_refused_with_a_reason_in_one_line(tmp_path, kind, reason):
    data = write_bad_images(tmp_path)[kind].read_bytes()
    with pytest.raises(ImageError, match=reason) as caught:
        decode_image(data)
    assert "\n" not in str(caught.value)


def test_missing_file_is_refused():
    with pytest.raises(ImageError, match="missing"):
        decode_image(None)


@pytest.mark.parametrize("kind", ["EPS", "TGA", "PCX", "SGI", "ICO", "DDS"])
def test_formats_outside_the_list_are_refused_though_pillow_reads_them(tmp_path, kind):
    """Some of its readers start programs: EPS runs Ghostscript."""
    data = encode(RGB, kind)
    with Image.open(io.BytesIO(data)) as image:
        assert image.format == kind
    with pytest.raises(ImageError, match="not an image: expected JPEG"):
        decode_image(data)
    (tmp_path / "a.jpg").write_bytes(data)
    with pytest.raises(ImageError, match="not an image: expected JPEG"):
        read_size(tmp_path / "a.jpg")


@pytest.mark.parametrize("mode", ["I", "F"])
def test_modes_of_unknown_range_are_refused(mode):
    with pytest.raises(ImageError, match="convert to 8 bits first"):
        decode_image(encode(RGB.convert("L").convert(mode), "TIFF"))


def test_the_list_of_refused_kinds_is_exact(tmp_path):
    refused = set()
    for kind, path in write_bad_images(tmp_path).items():
        try:
            decode_image(path.read_bytes() if path.exists() else None)
        except ImageError:
            refused.add(kind)
    assert refused == REFUSED


@pytest.mark.parametrize(
    ("image", "note"),
    [
        (RGB.convert("L"), "grey converted to RGB"),
        (RGB.convert("LA"), "grey converted to RGB, alpha dropped"),
        (RGB.quantize(16), "palette converted to RGB"),
        (RGB.convert("RGBA"), "alpha dropped"),
        (RGB.convert("1"), "1-bit converted to RGB"),
    ],
)
def test_other_modes_are_converted_with_a_note(image, note):
    decoded = decode_image(encode(image))
    assert decoded.note == note
    np.testing.assert_array_equal(decoded.pixels, np.array(image.convert("RGB")))


def test_cmyk_keeps_its_colours(tmp_path):
    decoded = decode_image(write_bad_images(tmp_path)["cmyk"].read_bytes())
    assert decoded.note == "CMYK converted to RGB"
    assert np.abs(decoded.pixels.astype(int) - picture()).mean() < 12


def test_palette_with_transparency_does_not_warn():
    image = RGB.quantize(16)
    decoded = decode_image(encode(image, transparency=bytes(range(16))))
    assert "transparency dropped" in decoded.note
    np.testing.assert_array_equal(decoded.pixels, np.array(image.convert("RGB")))


def test_the_first_frame_of_an_animation_is_kept(tmp_path):
    decoded = decode_image(write_bad_images(tmp_path)["animated"].read_bytes())
    assert "first of several frames" in decoded.note
    first_is_dark_on_the_left = decoded.pixels[:, :5, 1].mean() < decoded.pixels[:, -5:, 1].mean()
    assert first_is_dark_on_the_left


def test_exif_rotation_is_noted_and_not_applied(tmp_path):
    data = write_bad_images(tmp_path)["exif_rotated"].read_bytes()
    decoded = decode_image(data)
    assert decoded.pixels.shape == (40, 60, 3)
    assert decoded.note == "EXIF orientation 6 not applied, pixels kept in stored order"


def test_five_six_five_bit_bmp_is_not_taken_for_sixteen_bits_a_channel():
    with Image.open(_bmp565()) as image:
        assert image.tile[0][3][0] == "BGR;16"
    assert decode_image(_bmp565().getvalue()).pixels.shape == (16, 16, 3)


def _bmp565():
    body = bytes(16 * 16 * 2)
    masks = struct.pack("<III", 0xF800, 0x7E0, 0x1F)
    info = struct.pack("<IiiHHIIiiII", 40, 16, 16, 1, 16, 3, len(body), 0, 0, 0, 0)
    start = struct.pack("<2sIHHI", b"BM", 66 + len(body), 0, 0, 66)
    return io.BytesIO(start + info + masks + body)


def test_size_limits_are_inclusive():
    data = encode(Image.new("RGB", (20, 16)))
    assert decode_image(data, max_pixels=320, min_side=16).pixels.shape == (16, 20, 3)
    with pytest.raises(ImageError, match="too many"):
        decode_image(data, max_pixels=319)
    with pytest.raises(ImageError, match="too small"):
        decode_image(data, min_side=17)


def test_every_cut_of_a_jpeg_is_refused():
    data = encode(RGB, "JPEG")
    for end in range(1, len(data) - 2, 37):
        with pytest.raises(ImageError):
            decode_image(data[:end])


def test_size_is_read_in_stored_order(tmp_path):
    paths = write_bad_images(tmp_path)
    assert read_size(paths["exif_rotated"]) == (40, 60)
    assert read_size(str(paths["huge"])) == (12_000, 12_000)


@pytest.mark.parametrize("kind", ["missing", "zero_byte", "text"])
def test_size_of_no_image_is_an_image_error(tmp_path, kind):
    with pytest.raises(ImageError):
        read_size(write_bad_images(tmp_path)[kind])


def test_state_of_pil_and_warnings_is_left_as_found_from_many_threads(tmp_path):
    files = [path for path in write_bad_images(tmp_path).values() if path.exists()]
    before = (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, list(warnings.filters))
    barrier = threading.Barrier(8)

    def work(_):
        barrier.wait()
        notes = []
        for path in files:
            try:
                notes.append(decode_image(path.read_bytes()).note)
            except ImageError as error:
                notes.append(str(error))
        return notes

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(work, range(8)))
    assert all(answer == answers[0] for answer in answers)
    assert before == (
        Image.MAX_IMAGE_PIXELS,
        ImageFile.LOAD_TRUNCATED_IMAGES,
        list(warnings.filters),
    )


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink("/dev/zero", path)])
def test_what_is_no_file_has_no_size_and_does_not_hang(tmp_path, make):
    make(tmp_path / "a.png")
    with pytest.raises(ImageError, match="no file: it is a folder, a pipe or a device"):
        read_size(tmp_path / "a.png")


@pytest.mark.parametrize("name", ["missing.png", "a\0b.png", "n" * 300])
def test_a_path_that_names_no_file_has_no_size(tmp_path, name):
    with pytest.raises(ImageError, match="file missing or unreadable"):
        read_size(tmp_path / name)


def test_what_exif_says_of_turning_is_read(tmp_path):
    paths = write_bad_images(tmp_path)
    assert read_turn(paths["exif_rotated"]) == "EXIF orientation 6"
    assert read_turn(paths["grey"]) == read_turn(paths["text"]) == ""
