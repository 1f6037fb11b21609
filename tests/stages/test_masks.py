import numpy as np
import pytest
from PIL import Image

from rayseg.records.palette import decode_labels
from rayseg.refine import Threshold
from rayseg.refine.saliency import SaliencyAgreement
from rayseg.stages import RefineSeeds, SaliencyMaps, enlarge
from rayseg.store import MASKS_SCHEMA, Folder, rows_to_table, unpack_seeds
from tests.bad_images import picture


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


def saliency_maps(folder, **maps):
    """The stage's argument, with these maps in the folder."""
    folder.mkdir()
    for id_, levels in maps.items():
        Image.fromarray(levels).save(folder / f"{id_}.png")
    return SaliencyMaps(Folder(str(folder)), SaliencyAgreement())


def test_where_map_and_mask_disagree_on_foreground_the_pixel_is_ignored(run, tmp_path):
    manifest, rows = run
    (plain,) = RefineSeeds(Threshold(0.4), manifest)(rows[:1])
    labels = decode_labels(plain["labels"])
    noisy = labels > 0
    noisy[:3] = ~noisy[:3]  # a map made of the mask itself, wrong in three lines
    saliency = saliency_maps(tmp_path / "saliency", i0=np.where(noisy, 200, 30).astype(np.uint8))
    (made,) = RefineSeeds(Threshold(0.4), manifest, saliency=saliency)(rows[:1])
    agreed = decode_labels(made["labels"])
    assert (agreed[:3] == 255).all()
    assert np.array_equal(agreed[3:], labels[3:])
    assert made["ignored"] == pytest.approx(3 / 18)


def test_a_bad_saliency_map_costs_its_own_mask_and_names_itself(run, tmp_path):
    manifest, rows = run
    saliency = saliency_maps(
        tmp_path / "saliency",
        i0=np.zeros((18, 20), np.uint8),
        i1=np.random.default_rng(0).integers(0, 256, (18, 22, 3), np.uint8),
    )
    made = RefineSeeds(Threshold(0.4), manifest, saliency=saliency)(rows)
    assert [row["status"] for row in made] == ["error"] * 3
    for row, said in zip(
        made,
        ("i0.png must be (18, 22) as its image, got (18, 20)", "i1.png must be grey", "i2.png: "),
        strict=True,
    ):
        assert said in row["error"]


def test_an_id_finds_no_map_outside_the_folder(run, tmp_path):
    saliency = saliency_maps(tmp_path / "saliency")
    Image.fromarray(np.zeros((18, 20), np.uint8)).save(tmp_path / "out.png")
    with pytest.raises(ValueError, match="file missing"):
        saliency("../out", np.zeros((18, 20), np.uint8))
    Image.fromarray(np.zeros((18, 20), np.uint8)).save(tmp_path / "saliency" / "a b%0A.png")
    saliency("a b\n", np.zeros((18, 20), np.uint8))
