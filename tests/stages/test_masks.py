import numpy as np

from rayseg.palette import decode_labels
from rayseg.refine import Threshold
from rayseg.stages import RefineSeeds, enlarge
from rayseg.store import MASKS_SCHEMA, rows_to_table, unpack_seeds
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
