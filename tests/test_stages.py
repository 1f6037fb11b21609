"""Stages map rows to rows: one out for each in, and one image's fault stays its own."""

import re
import weakref
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from PIL import Image

from rayseg.attribution import CAM
from rayseg.images import decode_image
from rayseg.labels import Truths
from rayseg.nets.classifier import CamClassifier
from rayseg.nets.weights import to_safetensors
from rayseg.palette import decode_labels, encode_labels
from rayseg.records import Sample, Seeds
from rayseg.refine import Threshold
from rayseg.scores import Confusion, ThresholdSweep
from rayseg.stages import (
    CountLabels,
    DecodeImages,
    MakeSeeds,
    RefineSeeds,
    SweepSeeds,
    by_size,
    enlarge,
)
from rayseg.store import (
    MASKS_SCHEMA,
    SEEDS_SCHEMA,
    Folder,
    pack_maps,
    rows_to_table,
    unpack_seeds,
    write_manifest,
)
from tests.bad_images import REFUSED, encode, picture, write_bad_images

CLASSES = ("cat", "dog", "emu")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    network = CamClassifier("resnet18", 3, 16)
    path = tmp_path_factory.mktemp("weights") / "classifier.safetensors"
    facts = {"trunk": "resnet18", "stride": 16, "classes": list(CLASSES)}
    path.write_bytes(to_safetensors(network, facts))
    return str(path)


def decoded_row(id_, classes=(0,), size_hw=(32, 48), seed=0):
    pixels = np.random.default_rng(seed).integers(1, 256, (*size_hw, 3), np.uint8)
    return {
        "id": id_, "classes": list(classes), "pixels": pixels.tobytes(), "height": size_hw[0],
        "width": size_hw[1], "status": "" if classes else "empty", "error": "", "note": "",
    }  # fmt: skip


def manifest_row(id_, path, tags=(0,)):
    return {"id": id_, "path": str(path), "height": 40, "width": 60, "tags": list(tags)}


# Decoding


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


# Seeds


def test_images_of_one_size_form_a_batch():
    sizes = [(4, 5), (5, 4), (4, 5), (4, 5), (5, 4)]
    rows = [{"id": i, "height": h, "width": w} for i, (h, w) in enumerate(sizes)]
    assert [[row["id"] for row in group] for group in by_size(rows)] == [[0, 2, 3], [1, 4]]


def test_rows_come_back_in_their_order_whatever_their_size(weights):
    stage = MakeSeeds(CAM(scales=(1.0,)), weights, CLASSES)
    sizes = {"a": (48, 32), "b": (32, 48), "c": (48, 32), "d": (32, 32)}
    rows = [decoded_row(id_, size_hw=size) for id_, size in sizes.items()]
    made = stage(rows)
    assert [row["id"] for row in made] == list("abcd")
    assert [unpack_seeds(row).maps.shape for row in made] == [
        (1, 12, 8), (1, 8, 12), (1, 12, 8), (1, 8, 8),
    ]  # fmt: skip


def test_seeds_are_those_of_the_method_alone(weights):
    method = CAM(scales=(1.0, 0.5), precision="fp32")
    stage = MakeSeeds(method, weights, CLASSES)
    row = decoded_row("a", (2, 0))
    pixels = np.frombuffer(row["pixels"], np.uint8).reshape(1, 32, 48, 3).copy()
    alone = method.run(stage.network, torch.from_numpy(pixels), [[2, 0]], 4)[0]
    (made,) = stage([row])
    assert made["maps"] == pack_maps(alone.maps.numpy())
    assert made["scores"] == alone.scores.tolist()


def test_an_image_without_tags_is_empty_and_says_no_error(weights):
    (made,) = MakeSeeds(CAM(), weights, CLASSES)([decoded_row("a", ())])
    assert (made["status"], made["error"]) == ("empty", "")


def test_an_image_that_was_not_decoded_keeps_its_reason(weights):
    reason = {"status": "error", "error": "a.jpg: file has zero bytes"}
    row = decoded_row("a") | {"pixels": b""} | reason
    (made,) = MakeSeeds(CAM(), weights, CLASSES)([row])
    assert (made["status"], made["error"]) == ("error", "a.jpg: file has zero bytes")


def test_rows_of_every_status_fit_the_schema(weights):
    rows = [decoded_row("a", ()), decoded_row("b", (0, 1)), decoded_row("c", (7,))]
    table = rows_to_table(MakeSeeds(CAM(scales=(1.0,)), weights, CLASSES)(rows), SEEDS_SCHEMA)
    assert table.column("status").to_pylist() == ["empty", "ok", "error"]
    assert list(map(len, table.column("maps").to_pylist())) == [0, 2, 0]


@dataclass(frozen=True)
class Failing(CAM):
    """CAM that fails on every batch with more images than it bears, or with a black one."""

    bears: int = 100
    error: type[Exception] = RuntimeError

    def run(self, network, images, classes, map_stride=1):
        sizes.append(len(images))
        heavy = images.float()  # held by the traceback of what is raised here
        assert not any(ref() is not None for ref in alive)
        alive.append(weakref.ref(heavy))
        if len(images) > self.bears or (images == 0).flatten(1).all(1).any():
            raise self.error(f"{len(images)} images")
        return super().run(network, images, classes, map_stride)


sizes: list[int] = []
alive: list[weakref.ref] = []


@pytest.fixture(autouse=True)
def _forget_calls():
    sizes.clear()
    alive.clear()


def test_a_failing_batch_is_halved_until_only_the_bad_image_fails(weights):
    rows = [decoded_row(f"i{n}", seed=n) for n in range(8)]
    rows[5]["pixels"] = bytes(len(rows[5]["pixels"]))
    made = MakeSeeds(Failing(scales=(1.0,)), weights, CLASSES)(rows)
    assert [row["id"] for row in made] == [f"i{n}" for n in range(8)]
    assert [row["status"] for row in made] == ["ok"] * 5 + ["error"] + ["ok"] * 2
    assert made[5]["error"] == "RuntimeError: 1 images"
    assert sizes == [8, 4, 4, 2, 1, 1, 2]


def test_a_lost_device_is_no_fault_of_an_image(weights):
    method = Failing(scales=(1.0,), bears=0, error=torch.AcceleratorError)
    with pytest.raises(torch.AcceleratorError):
        MakeSeeds(method, weights, CLASSES)([decoded_row("a")])


def test_a_batch_that_does_not_fit_into_memory_is_run_in_parts(weights):
    rows = [decoded_row(f"i{n}", seed=n) for n in range(4)]
    method = Failing(scales=(1.0,), bears=1, error=torch.OutOfMemoryError)
    made = MakeSeeds(method, weights, CLASSES)(rows)
    assert [row["status"] for row in made] == ["ok"] * 4
    assert sizes == [4, 2, 1, 1, 2, 1, 1]


def test_memory_of_a_failed_batch_is_free_when_its_halves_run(weights):
    method = Failing(scales=(1.0,), bears=1, error=torch.OutOfMemoryError)
    MakeSeeds(method, weights, CLASSES)([decoded_row("a"), decoded_row("b")])
    assert len(alive) == 3  # the method itself asserts that none of the earlier is left


def test_an_image_too_large_for_the_memory_costs_its_own_row(weights):
    method = Failing(scales=(1.0,), bears=0, error=torch.OutOfMemoryError)
    (made,) = MakeSeeds(method, weights, CLASSES)([decoded_row("a")])
    assert (made["status"], made["error"]) == ("error", "OutOfMemoryError: 1 images")


def test_maps_that_are_not_finite_are_an_error_of_their_image(weights, tmp_path):
    network = CamClassifier("resnet18", 3, 16)
    with torch.no_grad():
        network.head.weight.fill_(float("nan"))
    path = tmp_path / "nan.safetensors"
    facts = {"trunk": "resnet18", "stride": 16, "classes": list(CLASSES)}
    path.write_bytes(to_safetensors(network, facts))
    (made,) = MakeSeeds(CAM(scales=(1.0,)), str(path), CLASSES)([decoded_row("a")])
    assert made["status"] == "error"
    assert "finite" in made["error"]


def test_weights_of_other_classes_are_refused(weights):
    with pytest.raises(ValueError, match=r"trained on 3 classes \(cat, dog.*the manifest has 1"):
        MakeSeeds(CAM(), weights, ("cat",))


# Enlarging


def test_enlarged_maps_have_the_images_size():
    seeds = Seeds("a", (0,), np.zeros((1, 5, 7), np.float32), (19, 27))
    assert enlarge(seeds).shape == (1, 19, 27)


def test_an_enlarged_cell_lies_over_its_own_pixels():
    maps = np.zeros((1, 5, 5), np.float32)
    maps[0, 2, 3] = 1
    weight = enlarge(Seeds("a", (0,), maps, (20, 20)))[0]
    rows, columns = np.mgrid[:20, :20]
    assert (weight * rows).sum() / weight.sum() == pytest.approx(2 * 4 + 1.5)
    assert (weight * columns).sum() / weight.sum() == pytest.approx(3 * 4 + 1.5)


def test_an_image_without_maps_enlarges_to_none():
    seeds = Seeds("a", (), np.zeros((0, 5, 7), np.float32), (19, 27))
    assert enlarge(seeds).shape == (0, 19, 27)


# Refining


@pytest.fixture
def run(tmp_path):
    """A manifest of three images with true masks, and seed rows of them."""
    rng = np.random.default_rng(1)
    samples, rows = [], []
    no_boxes, no_classes = np.zeros((0, 4), np.float32), np.zeros(0, np.int64)
    for n, classes in enumerate([(0,), (0, 2), (1,)]):
        image, mask = tmp_path / f"i{n}.png", tmp_path / f"m{n}.png"
        Image.fromarray(picture((18, 22))).save(image)
        truth = rng.choice([0, 1, 2, 3, 255], (18, 22)).astype(np.uint8)
        mask.write_bytes(encode_labels(truth))
        samples.append(
            Sample(f"i{n}", str(image), 18, 22, classes, no_boxes, no_classes, mask_path=str(mask))
        )
        maps = rng.random((len(classes), 5, 6), dtype=np.float32)
        rows.append(
            {
                "id": f"i{n}", "status": "ok", "error": "", "note": "", "height": 18, "width": 22,
                "classes": list(classes), "maps": pack_maps(maps),
            }
        )  # fmt: skip
    write_manifest(Folder(str(tmp_path / "manifest")), samples, CLASSES)
    return Folder(str(tmp_path / "manifest")), rows


def test_a_mask_is_the_refiners(run):
    manifest, rows = run
    (made,) = RefineSeeds(Threshold(0.4), manifest)(rows[:1])
    seeds = unpack_seeds(rows[0])
    expected = Threshold(0.4)(picture((18, 22)), enlarge(seeds), seeds.classes)
    assert made["status"] == "ok"
    assert np.array_equal(decode_labels(made["labels"]), expected)


def test_a_row_without_seeds_keeps_its_status_and_reason(run):
    manifest, rows = run
    statuses = {"error": "cut short", "poison": "killed", "empty": ""}
    given = [
        row | {"status": status, "error": reason}
        for row, (status, reason) in zip(rows, statuses.items(), strict=True)
    ]
    made = RefineSeeds(Threshold(), manifest)(given)
    assert {row["status"]: row["error"] for row in made} == statuses
    assert rows_to_table(made, MASKS_SCHEMA).num_rows == 3


def test_an_image_that_vanished_since_costs_its_own_mask(run, tmp_path):
    manifest, rows = run
    (tmp_path / "i1.png").unlink()
    made = RefineSeeds(Threshold(), manifest)(rows)
    assert [row["status"] for row in made] == ["ok", "error", "ok"]
    assert "file missing" in made[1]["error"]


# Counting


def test_truths_are_those_of_the_split_that_have_a_mask(run):
    truths = Truths(run[0], "train", ["i1"])
    assert truths.num_classes == 3
    assert truths.rows(run[1]) == [run[1][1]]
    assert truths.of(run[1][1]).shape == (18, 22)


def grey(labels, mode="L"):
    return encode(Image.fromarray(labels).convert(mode))


BAD_TRUTHS = {
    "is missing": None,
    "whole PNG": b"cat",
    "mode RGB": grey(np.ones((18, 22), np.uint8), "RGB"),
    r"must be \(18, 22\) as its image, got \(22, 18\)": grey(np.ones((22, 18), np.uint8)),
    "up to 3 classes, got 4": grey(np.full((18, 22), 4, np.uint8)),
}


@pytest.mark.parametrize("threshold", [None, 0.5])
@pytest.mark.parametrize(("reason", "data"), BAD_TRUTHS.items())
def test_a_bad_true_mask_costs_its_own_image(run, tmp_path, reason, data, threshold):
    manifest, rows = run
    truths = Truths(manifest)
    stage = SweepSeeds(truths, [0.5]) if threshold is None else CountLabels(truths, threshold)
    expected = stage([rows[0], rows[2]])[0]
    (tmp_path / "m1.png").unlink()
    if data is not None:
        (tmp_path / "m1.png").write_bytes(data)
    (counted,) = stage(rows)
    assert np.array_equal(counted["counts"], expected["counts"])
    assert [item["id"] for item in counted["skipped"]] == ["i1"]
    assert re.search(rf"m1\.png.* {reason}", counted["skipped"][0]["reason"])


def test_a_grey_true_mask_holds_labels(run, tmp_path):
    truths = Truths(run[0])
    before = truths.of(run[1][0])
    (tmp_path / "m0.png").write_bytes(grey(before))
    assert np.array_equal(truths.of(run[1][0]), before)


def test_sweeping_rows_equals_one_argmax_a_threshold(run):
    manifest, rows = run
    truths, thresholds = Truths(manifest), (0.0, 0.25, 0.5, 0.9)
    (counted,) = SweepSeeds(truths, thresholds)([*rows, rows[0] | {"status": "error"}])
    zero = ThresholdSweep.zeros(3, thresholds)
    sweep = ThresholdSweep(zero.thresholds, counted["counts"].reshape(zero.counts.shape))
    assert counted["images"] == 3
    for index, threshold in enumerate(thresholds):
        expected = brute_force(truths, rows, threshold)
        assert np.array_equal(sweep.confusion(index).counts, expected)


def test_counting_rows_equals_brute_force(run):
    manifest, rows = run
    truths = Truths(manifest)
    (counted,) = CountLabels(truths, 0.5)(rows)
    assert np.array_equal(counted["counts"].reshape(4, 4), brute_force(truths, rows, 0.5))
    assert counted["ids"] == ["i0", "i1", "i2"]
    assert counted["ious"][1] == Confusion(brute_force(truths, rows[1:2], 0.5)).mean_iou()


def test_counting_masks_equals_counting_what_they_were_made_of(run):
    manifest, rows = run
    truths = Truths(manifest)
    masks = RefineSeeds(Threshold(0.5), manifest)(rows)
    (of_masks,), (of_seeds,) = CountLabels(truths)(masks), CountLabels(truths, 0.5)(rows)
    assert np.array_equal(of_masks["counts"], of_seeds["counts"])
    assert np.array_equal(of_masks["sizes"], of_seeds["sizes"])


def brute_force(truths, rows, threshold):
    counts = np.zeros((4, 4), np.int64)
    for row in rows:
        truth, seeds = truths.of(row), unpack_seeds(row)
        maps = enlarge(seeds)
        for y, x in np.ndindex(truth.shape):
            values = [np.float32(threshold), *maps[:, y, x]]
            label = [0, *(c + 1 for c in seeds.classes)][int(np.argmax(values))]
            if truth[y, x] != 255:
                counts[truth[y, x], label] += 1
    return counts


def test_the_pixels_of_a_picture_are_those_that_decoding_gives():
    assert np.array_equal(decode_image(encode(Image.fromarray(picture()))).pixels, picture())
