"""Images with their objects: which objects are learnt, mirroring, stored and true masks."""

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from rayseg.labels import GivenBoxes, StoredInstances, TrueInstances, bad_boxes
from rayseg.learn import DrawOrder, ObjectImages, object_batches
from rayseg.records import Sample
from rayseg.records.images import ImageError
from rayseg.records.rle import encode_mask
from rayseg.store import INSTANCES_SCHEMA, Folder, rows_to_table, write_manifest, write_shard
from tests.bad_images import picture

GOOD, OVER, UPSIDE_DOWN = [4, 6, 30, 20], [40, 10, 80, 50], [20, 5, 10, 9]


def filled(box, size_hw=(40, 60)):
    x1, y1, x2, y2 = (max(int(side), 0) for side in box)
    mask = np.zeros(size_hw, bool)
    mask[y1:y2, x1:x2] = True
    return mask


def sample(folder, number, boxes, classes=None, **changed):
    path = folder / f"{number}.png"
    Image.fromarray(np.roll(picture(), number * 7, axis=0)).save(path)
    array = np.array(boxes, np.float32).reshape(-1, 4)
    kinds = np.array(classes or [0] * len(boxes), np.int64)
    tags = tuple(sorted(set(kinds.tolist())))
    return Sample(f"i{number}", str(path), 40, 60, tags, array, kinds, **changed)


@pytest.fixture
def samples(tmp_path):
    """One good box; four of which two are left; only a bad one; none."""
    masks = tuple(encode_mask(filled(box)) for box in (GOOD, OVER))
    return [
        sample(tmp_path, 0, [GOOD], true_masks=masks[:1]),
        sample(
            tmp_path, 1, [UPSIDE_DOWN, OVER, [0, 0, 60, 40], GOOD], [2, 1, 0, 3],
            difficult=(3,), crowds=(2,), true_masks=(b"", masks[1], masks[0], b""),
        ),
        sample(tmp_path, 2, [UPSIDE_DOWN]),
        sample(tmp_path, 3, []),
    ]  # fmt: skip


@pytest.fixture
def manifest(samples, tmp_path):
    folder = Folder(str(tmp_path / "manifest"))
    write_manifest(folder, samples, [*"abcd"])
    return folder


def stored(tmp_path, rows):
    folder = Folder(str(tmp_path / "masks"))
    folder.remove()
    whole = {"status": "ok", "height": 40, "width": 60}
    write_shard(folder, rows_to_table([whole | row for row in rows], INSTANCES_SCHEMA))
    return folder


@pytest.fixture
def masks(samples, tmp_path):
    """Of the objects of the second image, one sure in part and one without a mask."""
    inside = filled([45, 15, 60, 40])
    row = {
        "id": "i1",
        "boxes_xyxy": samples[1].boxes_xyxy[[0, 1, 3]].tolist(),  # crowds have no place in a row
        "classes": [2, 1, 3],
        "object_status": ["box must have x1 < x2", "ok", "no number"],
        "foreground": [b"", encode_mask(inside), b""],
        "possible": [b"", encode_mask(filled(OVER)), b""],
    }
    nothing = {"id": "i2", "boxes_xyxy": [UPSIDE_DOWN], "classes": [0], "object_status": ["bad"]}
    nothing |= {"foreground": [b""], "possible": [b""]}
    failed = {"id": "i0", "status": "error"}
    return stored(tmp_path, [row, nothing, failed])


def images(samples, labels, flip=False, seed=0):
    return ObjectImages([s for s in samples if s.id in labels.ids], labels, flip, seed)


# Which objects


def test_difficult_objects_are_learnt_and_crowds_and_bad_boxes_are_not(samples, manifest):
    targets = GivenBoxes(manifest).read(samples[1])
    assert targets.boxes_xyxy.tolist() == [[40, 10, 60, 40], GOOD]  # the first cut to the image
    assert targets.classes.tolist() == [1, 3]
    assert targets.masks is None


def test_images_without_an_object_are_learnt_from_only_if_that_is_asked_for(manifest):
    assert GivenBoxes(manifest).ids == {"i0", "i1"}
    assert GivenBoxes(manifest, keep_empty=True).ids == {"i0", "i1", "i2", "i3"}


def test_an_image_without_an_object_has_empty_targets(samples, manifest):
    _, targets, _ = images(samples, GivenBoxes(manifest, keep_empty=True))[(0, 3)]
    assert (tuple(targets["boxes"].shape), tuple(targets["classes"].shape)) == ((0, 4), (0,))


def test_boxes_that_are_left_out_are_named(samples):
    told = list(bad_boxes(samples))
    assert [id_ for id_, _ in told] == ["i1", "i2"]
    assert told[0][1] == "box must have x1 < x2 and y1 < y2, got (20, 5, 10, 9)"


def test_a_box_in_an_image_that_could_not_be_read_says_that(samples):
    unread = replace(samples[0], height=0, width=0)
    assert list(bad_boxes([unread])) == [("i0", "image could not be read")]


# Masks


def test_true_masks_leave_no_doubt_and_follow_their_boxes(samples, manifest):
    truths = TrueInstances(manifest)
    assert truths.ids == {"i0", "i1"}
    targets = truths.read(replace(samples[1], true_masks=()))
    assert targets.classes.tolist() == [1, 3]
    assert targets.masks.known.tolist() == [True, False]
    assert np.array_equal(targets.masks.foreground[0], filled(OVER))
    assert np.array_equal(targets.masks.foreground, targets.masks.possible)
    assert not targets.masks.foreground[1].any()


def test_true_masks_do_not_travel_to_workers(samples, manifest):
    truths = TrueInstances(manifest)
    empty = len(pickle.dumps(truths))
    truths.read(samples[0])
    again = pickle.loads(pickle.dumps(truths))
    assert len(pickle.dumps(truths)) == empty
    assert again.read(samples[0]).masks.known.tolist() == [True]


def test_true_masks_of_other_objects_are_refused(samples, manifest):
    other = replace(samples[0], id="i1", true_masks=())
    with pytest.raises(ValueError, match=r"masks of 'i1' in .* must be 1, one a box, got 4"):
        TrueInstances(manifest).read(other)


def test_stored_masks_say_what_is_sure_and_what_may_be(samples, masks):
    targets = StoredInstances(masks).read(samples[1])
    assert targets.boxes_xyxy.tolist() == [[40, 10, 60, 40], GOOD]
    assert targets.masks.known.tolist() == [True, False]
    assert np.array_equal(targets.masks.foreground[0], filled([45, 15, 60, 40]))
    assert np.array_equal(targets.masks.possible[0], filled(OVER))


def test_masks_are_held_once(samples, masks):
    targets = StoredInstances(masks).read(samples[1])
    tensors = targets.as_tensors()
    for name in ("foreground", "possible"):
        assert np.shares_memory(tensors[name].numpy(), getattr(targets.masks, name))


def test_only_images_with_a_stored_mask_are_learnt_from(masks):
    assert StoredInstances(masks).ids == {"i1"}


def test_stored_masks_of_another_size_are_refused(samples, masks):
    turned = replace(samples[1], height=60, width=40)
    with pytest.raises(ValueError, match=r"must be of \(60, 40\) as its image, got \(40, 60\)"):
        StoredInstances(masks).read(turned)


def test_folders_without_masks_of_objects_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing holds no object masks"):
        StoredInstances(Folder(str(tmp_path / "nothing")))


def test_stored_masks_that_are_gone_or_damaged_are_refused_by_name(samples, masks):
    gone, damaged = StoredInstances(masks), StoredInstances(masks)
    (shard,) = masks.names(".parquet")
    masks.write(shard, b"cat")
    with pytest.raises(ValueError, match=rf"^object mask of 'i1' in .*{shard} cannot be read: "):
        damaged.read(samples[1])
    masks.delete(shard)
    with pytest.raises(ValueError, match=rf"^object mask of 'i1' in .*{shard} is missing"):
        gone.read(samples[1])


def test_an_image_whose_stored_masks_are_gone_is_replaced_by_the_next(samples, tmp_path, caplog):
    row = {"boxes_xyxy": [GOOD], "classes": [0], "foreground": [encode_mask(filled(GOOD))]}
    row |= {"possible": [b""]}
    folder = stored(tmp_path, [row | {"id": "i0"}])
    (first,) = folder.names(".parquet")
    whole = {"id": "i1", "status": "ok", "height": 40, "width": 60}
    write_shard(folder, rows_to_table([whole | row], INSTANCES_SCHEMA))
    chosen = images(samples, StoredInstances(folder))
    folder.delete(first)
    assert chosen[(0, 0)][2] == "i1"
    assert "object mask of 'i0'" in caplog.text


# Draws


def test_an_image_keeps_its_size_and_its_levels(samples, manifest):
    planes, targets, id_ = images(samples, GivenBoxes(manifest))[(5, 1)]
    assert planes.dtype == torch.uint8
    assert np.array_equal(planes.permute(1, 2, 0), np.roll(picture(), 7, axis=0))
    assert targets.keys() == {"boxes", "classes"}
    assert id_ == "i1"


def test_mirroring_moves_pixels_boxes_and_masks_alike(samples, masks):
    plain = images(samples, StoredInstances(masks))
    flipped = images(samples, StoredInstances(masks), flip=True)
    draws = [flipped[(draw, 0)] for draw in range(20)]
    planes, targets, _ = plain[(0, 0)]
    for got_planes, got, _ in draws:
        if torch.equal(got_planes, planes):
            assert torch.equal(got["boxes"], targets["boxes"])
            continue
        assert torch.equal(got_planes, planes.flip(-1))
        assert got["boxes"].tolist() == [[0, 10, 20, 40], [30, 6, 56, 20]]
        for name in ("foreground", "possible"):
            assert torch.equal(got[name], targets[name].flip(-1))
        assert torch.equal(got["has_mask"], targets["has_mask"])
    mirrored = sum(not torch.equal(one[0], planes) for one in draws)
    assert 4 <= mirrored <= 16


def test_a_draw_follows_from_seed_and_place(samples, manifest):
    labels = GivenBoxes(manifest)

    def sides(seed):
        drawn = images(samples, labels, flip=True, seed=seed)
        return [float(drawn[(draw, 0)][1]["boxes"][0, 0]) for draw in range(20)]

    assert sides(1) == sides(1)
    assert sides(1) != sides(2)


@pytest.mark.parametrize("kind", ["text", "another size"])
def test_an_unusable_image_is_replaced_by_the_next(samples, manifest, caplog, kind):
    if kind == "text":
        Path(samples[0].path).write_text("<html>")
    else:
        Image.fromarray(picture((60, 40))).save(samples[0].path)
    _, targets, id_ = images(samples, GivenBoxes(manifest))[(0, 0)]
    assert id_ == "i1"
    assert targets["classes"].tolist() == [1, 3]
    assert "0.png: " in caplog.text


def test_images_that_are_all_unusable_are_an_error_that_names_one(samples, manifest):
    for one in samples:
        Path(one.path).write_text("<html>")
    with pytest.raises(ImageError, match=r"2 images in a row cannot be used, such as .*1.png"):
        images(samples, GivenBoxes(manifest))[(0, 1)]


def test_images_without_labels_are_refused_with_both_sides(samples, manifest):
    with pytest.raises(ValueError, match=r"all 4 images must have objects .*, 2 have none, .*'i2'"):
        ObjectImages(samples, GivenBoxes(manifest), False, 0)


@pytest.mark.parametrize("loader_workers", [0, 1])
def test_batches_are_lists_in_the_draws_order(samples, manifest, loader_workers):
    chosen, order = images(samples, GivenBoxes(manifest)), DrawOrder(2, 3, 1, 3, 0)
    batches = list(object_batches(chosen, order, loader_workers))
    assert len(batches) == 2
    for (planes, targets, ids), keys in zip(batches, order, strict=True):
        expected = [chosen[key] for key in keys]
        assert [type(part) for part in (planes, targets, ids)] == [list] * 3
        assert ids == [id_ for _, _, id_ in expected]
        for plane, target, (image, wanted, _) in zip(planes, targets, expected, strict=True):
            assert torch.equal(plane, image)
            assert torch.equal(target["boxes"], wanted["boxes"])
