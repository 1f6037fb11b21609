import numpy as np
import pytest
from PIL import Image

from rayseg.records.images import decode_image
from rayseg.stages import DecodeImages
from tests.bad_images import REFUSED, encode, picture, write_bad_images
from tests.records.test_photos import looked_at, stored


def manifest_row(id_, path, tags=(0,)):
    facts = {"id": id_, "path": str(path), "height": 40, "width": 60, "tags": list(tags)}
    return facts | {"boxes_xyxy": [], "box_classes": [], "crowds": []}


@pytest.fixture(scope="module")
def decoded(tmp_path_factory):
    """Rows of one image of each bad kind and a good one between them."""
    folder = tmp_path_factory.mktemp("images")
    paths = write_bad_images(folder)
    (folder / "good.png").write_bytes(encode(Image.fromarray(picture())))
    rows = [manifest_row(kind, path) for kind, path in paths.items()]
    rows.insert(3, manifest_row("good", folder / "good.png"))
    return {row["id"]: row for row in DecodeImages()(rows)}, [row["id"] for row in rows]


def test_decoding_keeps_rows_and_their_order(decoded):
    assert list(decoded[0]) == decoded[1]


def test_refused_images_have_a_reason_and_no_pixels(decoded):
    refused = {id_ for id_, row in decoded[0].items() if row["error"] and not row["pixels"]}
    assert refused == REFUSED


def test_a_reason_names_the_file(decoded):
    assert "/missing.jpg: file missing" in decoded[0]["missing"]["error"]


def test_converted_images_have_a_note_and_pixels(decoded):
    for id_, row in decoded[0].items():
        if id_ not in REFUSED | {"good"}:
            assert row["note"], id_
            assert len(row["pixels"]) == row["height"] * row["width"] * 3


def test_objects_have_their_places_and_crowds_have_none(tmp_path):
    (tmp_path / "a.png").write_bytes(encode(Image.fromarray(picture())))
    boxes = [[0, 0, n, n] for n in (5, 6, 7, 8)]
    row = manifest_row("a", tmp_path / "a.png")
    row |= {"boxes_xyxy": boxes, "box_classes": [0, 1, 0, 1], "crowds": [0, 2]}
    (made,) = DecodeImages()([row])
    assert made["places"] == [1, 3]
    assert (made["boxes_xyxy"], made["box_classes"]) == (boxes, [0, 1, 0, 1])


def test_a_good_image_has_its_pixels_and_no_note(decoded):
    row = decoded[0]["good"]
    assert (row["note"], row["height"], row["width"]) == ("", 40, 60)
    assert row["pixels"] == picture().tobytes()


def test_an_image_without_tags_is_said_to_have_none(tmp_path):
    Image.fromarray(picture()).save(tmp_path / "a.png")
    (row,) = DecodeImages()([manifest_row("a", tmp_path / "a.png", ())])
    assert (row["status"], row["error"], row["note"]) == ("empty", "", "no tags")


def test_every_decoded_row_has_the_same_columns(decoded):
    assert len({tuple(sorted(row)) for row in decoded[0].values()}) == 1


def test_the_pixels_of_a_picture_are_those_that_decoding_gives():
    assert np.array_equal(decode_image(encode(Image.fromarray(picture()))).pixels, picture())


def test_a_photo_is_decoded_as_the_manifest_says_that_it_is_seen_and_the_row_says_so(tmp_path):
    (tmp_path / "a.jpg").write_bytes(stored(looked_at(400, 600), 6))
    (row,) = DecodeImages()([manifest_row("a", tmp_path / "a.jpg") | {"seen_side": 120}])
    assert (row["height"], row["width"], len(row["pixels"])) == (80, 120, 80 * 120 * 3)
    assert row["note"] == "seen at 80x120 of 400x600 pixels; turned as EXIF orientation 6 says"


def test_a_negative_is_empty_and_says_what_it_is(tmp_path):
    (tmp_path / "a.png").write_bytes(encode(Image.fromarray(picture())))
    (row,) = DecodeImages()([manifest_row("a", tmp_path / "a.png", ()) | {"negative": True}])
    assert (row["status"], row["note"]) == ("empty", "negative: shows none of the classes")
