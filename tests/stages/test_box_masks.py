"""Masks of objects from their maps: instances and one semantic mask an image."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from rayseg.attribution import MISSED, enlarge_grid
from rayseg.records import Sample
from rayseg.records.palette import decode_labels
from rayseg.records.rle import decode_mask, encode_mask
from rayseg.refine import (
    BoxCRF,
    BoxThreshold,
    ProposalRefinement,
    SuperpixelProposals,
    semantic_labels,
)
from rayseg.stages.box_masks import NO_MASK, FolderProposals, OwnProposals, RefineBoxMaps
from rayseg.store import (
    INSTANCES_SCHEMA,
    Folder,
    pack_maps,
    rows_to_table,
    unpack_grid,
    write_manifest,
)
from tests.bad_images import picture

BOXES = [[2, 2, 20, 18], [10, 6, 38, 28]]
PLAIN = BoxThreshold(crf=False)


STRANGE = "the detector knows no class 'x'"


def written(tmp_path, boxes=(), crowds=()):
    """A manifest of one image with these boxes."""
    path = tmp_path / "a.png"
    Image.fromarray(picture((30, 40))).save(path)
    xyxy = np.array(boxes, np.float32).reshape(-1, 4)
    own = xyxy, np.zeros(len(xyxy), np.int64)
    folder = Folder(str(tmp_path / "manifest"))
    sample = Sample("a", str(path), 30, 40, (), *own, crowds=crowds)
    write_manifest(folder, [sample], ["x", "y"])
    return folder


@pytest.fixture
def manifest(tmp_path):
    return written(tmp_path)


def grid(row, column):
    """A map that says one cell of four by five."""
    cells = np.full((1, 4, 5), 0.1, np.float32)
    cells[0, row, column] = 1
    return pack_maps(cells)[0]


def row(**changed):
    made = {
        "id": "a", "status": "ok", "error": "", "note": "", "height": 30, "width": 40,
        "boxes_xyxy": BOXES, "classes": [0, 1], "object_status": ["ok", "ok"],
        "maps": [grid(1, 1), grid(2, 3)],
    }  # fmt: skip
    return made | changed


def masks(made, part="foreground"):
    return [decode_mask(counts, (30, 40)) for counts in made[part]]


def test_each_object_has_its_masks_inside_its_box_and_the_image_one_semantic_mask(manifest):
    (made,) = RefineBoxMaps(PLAIN, manifest)([row()])
    assert made["status"] == "ok"
    labels = decode_labels(made["labels"])
    for i, (sure, possible) in enumerate(zip(masks(made), masks(made, "possible"), strict=True)):
        x1, y1, x2, y2 = BOXES[i]
        assert sure.any()
        assert not (sure & ~possible).any()
        assert possible.sum() == possible[y1:y2, x1:x2].sum()
        assert set(np.unique(labels[sure])) <= {i + 1, 255}
    assert made["ignored"] == pytest.approx((labels == 255).mean())
    assert rows_to_table([made], INSTANCES_SCHEMA).num_rows == 1


def test_an_object_with_a_bad_box_has_no_mask_and_the_others_keep_theirs(manifest):
    status = "box must have x1 < x2 and y1 < y2, got (9, 9, 3, 3)"
    bad = row(boxes_xyxy=[[9, 9, 3, 3], BOXES[1]], object_status=[status, "ok"])
    (made,) = RefineBoxMaps(PLAIN, manifest)([bad])
    (clean,) = RefineBoxMaps(PLAIN, manifest)([row()])
    assert made["foreground"][0] == b""
    assert made["foreground"][1] == clean["foreground"][1]
    assert made["object_status"] == [status, "ok"]
    assert 1 not in decode_labels(made["labels"])


@pytest.mark.parametrize("refiner", [PLAIN, BoxCRF()])
def test_an_object_that_the_detector_misses_has_the_mask_of_its_box(manifest, refiner):
    nothing = pack_maps(np.zeros((1, 4, 5), np.float32))[0]
    missed = row(object_status=["ok", MISSED], maps=[grid(1, 1), nothing])
    (made,) = RefineBoxMaps(refiner, manifest)([missed])
    image, maps = picture((30, 40)), np.zeros((1, 30, 40), np.float32)
    (expected,) = refiner(image, maps, np.array(BOXES[1:], np.float32))
    assert expected.possible.any()
    np.testing.assert_array_equal(masks(made)[1], expected.foreground)
    np.testing.assert_array_equal(masks(made, "possible")[1], expected.possible)
    assert expected.note in made["note"]
    assert (decode_labels(made["labels"])[expected.possible] != 0).all()


@pytest.mark.parametrize("keep_nested", [True, False])
@pytest.mark.parametrize("refiner", [PLAIN, BoxCRF()])
@pytest.mark.parametrize("proposals", [None, OwnProposals(SuperpixelProposals(min_size=20))])
def test_one_by_one_gives_what_all_at_once_gives(manifest, refiner, proposals, keep_nested):
    boxes = np.array([*BOXES, [14, 8, 30, 24]], np.float32)
    grids = [grid(1, 1), grid(2, 3), grid(1, 2)]
    given = row(boxes_xyxy=boxes.tolist(), classes=[0, 1, 0], object_status=["ok"] * 3, maps=grids)
    refinement = ProposalRefinement(min_side=0)
    stage = RefineBoxMaps(refiner, manifest, proposals, refinement, keep_nested=keep_nested)
    (made,) = stage([given])
    image = picture((30, 40))
    maps = [enlarge_grid(torch.from_numpy(unpack_grid(one)), (30, 40)).numpy() for one in grids]
    expected = refiner(image, np.stack(maps), boxes)
    if proposals:
        own = proposals("a", image)
        pairs = zip(expected, boxes, strict=True)
        expected = [refinement(mask, box, own) for mask, box in pairs]
    np.testing.assert_array_equal(masks(made), [one.foreground for one in expected])
    np.testing.assert_array_equal(masks(made, "possible"), [one.possible for one in expected])
    labels = semantic_labels(expected, boxes, [0, 1, 0], (30, 40), keep_nested)
    np.testing.assert_array_equal(decode_labels(made["labels"]), labels)


def test_an_object_of_a_class_that_the_detector_does_not_know_is_no_background(manifest):
    (made,) = RefineBoxMaps(PLAIN, manifest)([row(object_status=[STRANGE, "ok"])])
    (clean,) = RefineBoxMaps(PLAIN, manifest)([row()])
    labels = decode_labels(made["labels"])
    sure = masks(made)[1]
    assert (labels[2:18, 2:20][~sure[2:18, 2:20]] == 255).all()
    assert (labels[sure] == 2).all()
    assert labels[28:].max() == 0
    assert made["foreground"] == [b"", clean["foreground"][1]]


def test_a_crowd_is_no_background_where_no_object_is_found(tmp_path):
    crowd = [0, 20, 16, 40]
    (bare,) = RefineBoxMaps(PLAIN, written(tmp_path, [crowd, BOXES[0]]))([row()])
    (tmp_path / "own").mkdir()
    folder = written(tmp_path / "own", [crowd, BOXES[0], [90, 90, 95, 95]], crowds=(0, 2))
    (made,) = RefineBoxMaps(PLAIN, folder)([row()])
    labels, without = decode_labels(made["labels"]), decode_labels(bare["labels"])
    inside = np.zeros((30, 40), bool)
    inside[20:, :16] = True
    assert (without[inside] == 0).any()
    np.testing.assert_array_equal(labels, np.where(inside & (without == 0), 255, without))


def test_an_image_of_which_no_object_has_a_mask_is_empty(manifest):
    (made,) = RefineBoxMaps(PLAIN, manifest)([row(object_status=[STRANGE] * 2, note="grey")])
    assert (made["status"], made["note"]) == ("empty", f"grey; {NO_MASK}")
    assert made["object_status"] == [STRANGE] * 2
    assert made["foreground"] == [b"", b""]
    stored = rows_to_table([made], INSTANCES_SCHEMA).to_pylist()
    assert stored[0]["labels"] == b""


@pytest.mark.parametrize(
    ("told", "kept"), [({"places": [3, -1]}, [3, -1]), ({"places": None}, []), ({}, [])]
)
def test_masks_keep_their_objects_places_as_far_as_the_maps_have_them(manifest, told, kept):
    (made,) = RefineBoxMaps(PLAIN, manifest)([row(**told)])
    assert made["places"] == kept


def test_rows_without_maps_keep_their_status(manifest):
    given = [row(status="empty", note="no boxes"), row(status="error", error="cut short")]
    made = RefineBoxMaps(PLAIN, manifest)(given)
    assert [(one["status"], one["error"]) for one in made] == [
        ("empty", ""),
        ("error", "cut short"),
    ]


def test_masks_follow_the_proposals_of_a_folder(manifest, tmp_path):
    proposal = np.zeros((30, 40), bool)
    proposal[8:26, 14:36] = True
    counts = {"size": [30, 40], "counts": encode_mask(proposal).decode()}
    (tmp_path / "a.json").write_text(json.dumps([counts]))
    folder = FolderProposals(Folder(str(tmp_path)))
    stage = RefineBoxMaps(PLAIN, manifest, folder, ProposalRefinement(min_side=0))
    one = {"boxes_xyxy": BOXES[1:], "classes": [1], "object_status": ["ok"], "maps": [grid(2, 3)]}
    (made,) = stage([row(**one)])
    np.testing.assert_array_equal(masks(made)[0], proposal)


def test_missing_proposals_are_the_images_error(manifest, tmp_path):
    stage = RefineBoxMaps(PLAIN, manifest, FolderProposals(Folder(str(tmp_path / "none"))))
    (made,) = stage([row()])
    assert made["status"] == "error"
    assert "mask proposals of 'a' must lie in" in made["error"]


def test_an_id_finds_no_proposals_outside_the_folder(tmp_path):
    counts = {"size": [30, 40], "counts": encode_mask(np.ones((30, 40), bool)).decode()}
    (tmp_path / "out.json").write_text(json.dumps([counts]))
    (tmp_path / "in").mkdir()
    with pytest.raises(ValueError, match="must lie in"):
        FolderProposals(Folder(str(tmp_path / "in")))("../out", np.zeros((30, 40, 3), np.uint8))
