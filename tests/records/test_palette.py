import struct
import zlib
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from rayseg.records.palette import VOC_PALETTE, decode_labels, encode_labels


def test_palette_is_vocs_to_the_bit():
    """VOClabelcolormap.m again, bit by bit."""
    for label in range(256):
        colour, rest = [0, 0, 0], label
        for shift in range(7, -1, -1):
            for channel in range(3):
                colour[channel] |= ((rest >> channel) & 1) << shift
            rest >>= 3
        assert VOC_PALETTE[label].tolist() == colour
    assert VOC_PALETTE[15].tolist() == [192, 128, 128]
    assert VOC_PALETTE[255].tolist() == [224, 224, 192]


def test_palette_cannot_be_changed():
    with pytest.raises(ValueError, match="read-only"):
        VOC_PALETTE[0] = 1


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (256, 1), (37, 50)])
def test_labels_come_back(shape):
    labels = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    np.testing.assert_array_equal(decode_labels(encode_labels(labels)), labels)


def test_labels_of_any_memory_layout_come_back():
    labels = np.arange(40, dtype=np.uint8).reshape(5, 8)
    labels.flags.writeable = False
    for view in (labels.T, labels[::2, ::-3], np.asfortranarray(labels)):
        np.testing.assert_array_equal(decode_labels(encode_labels(view)), view)


def test_index_survives_where_few_labels_occur():
    # a palette cut to the colours in use would renumber 255
    labels = np.array([[0, 255], [7, 255]], np.uint8)
    with Image.open(BytesIO(encode_labels(labels))) as picture:
        assert picture.mode == "P"
        assert picture.getpalette() == VOC_PALETTE.ravel().tolist()
        assert np.asarray(picture).tolist() == labels.tolist()
        assert np.asarray(picture.convert("RGB"))[0, 1].tolist() == [224, 224, 192]


@pytest.mark.parametrize(
    "labels", [np.zeros((2, 2)), np.zeros((2, 2, 3), np.uint8), np.zeros((0, 3), np.uint8)]
)
def test_what_is_no_mask_is_not_encoded(labels):
    with pytest.raises(ValueError, match=r"uint8 \(h, w\)"):
        encode_labels(labels)


def test_values_of_a_grey_mask_are_labels():
    labels = np.array([[0, 255], [7, 1]], np.uint8)
    stream = BytesIO()
    Image.fromarray(labels).save(stream, format="PNG")
    np.testing.assert_array_equal(decode_labels(stream.getvalue()), labels)


def test_grey_of_four_bits_is_refused():
    # PIL opens it as mode L, 15 as 255: label 1 would become 17
    header = struct.pack(">IIBBBBB", 2, 1, 4, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(b"\0\x1f")), (b"IEND", b""))
    png = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )
    with Image.open(BytesIO(png)) as picture:
        assert np.asarray(picture).tolist() == [[17, 255]]
    with pytest.raises(ValueError, match="mode L of 4 bits"):
        decode_labels(png)


@pytest.mark.parametrize("mode", ["LA", "RGB", "RGBA", "1", "I;16"])
def test_other_modes_are_refused(mode):
    stream = BytesIO()
    Image.new(mode, (3, 2)).save(stream, format="PNG")
    with pytest.raises(ValueError, match=f"mode P.*{mode}"):
        decode_labels(stream.getvalue())


@pytest.mark.parametrize("broken", ["empty", "text", "truncated", "jpeg"])
def test_what_is_no_png_is_refused(broken):
    png = encode_labels(np.random.default_rng(0).integers(0, 256, (64, 64)).astype(np.uint8))
    stream = BytesIO()
    Image.new("RGB", (3, 2)).save(stream, format="JPEG")
    data = {"empty": b"", "text": b"cat", "truncated": png[:-900], "jpeg": stream.getvalue()}
    with pytest.raises(ValueError, match="whole PNG"):
        decode_labels(data[broken])


@pytest.mark.data
def test_vocs_own_masks_have_this_palette(real_data):
    paths = sorted((real_data / "voc_animals/VOCdevkit/VOC2012/SegmentationClass").iterdir())[:5]
    for path in paths:
        with Image.open(path) as picture:
            assert picture.getpalette() == VOC_PALETTE.ravel().tolist()
        labels = decode_labels(path.read_bytes())
        assert set(np.unique(labels)) <= {*range(21), 255}
