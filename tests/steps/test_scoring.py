"""Scores equal a literal count of single pixels."""

import json

import numpy as np
import pytest
from PIL import Image

from rayseg.config import Compute, RefineSeedsConfig, ScoreConfig
from rayseg.plain import PlainEngine
from rayseg.records import Sample
from rayseg.records.palette import decode_labels, encode_labels
from rayseg.refine import Threshold
from rayseg.stages import RefineSeeds, enlarge
from rayseg.steps import scoring
from rayseg.steps.masks import refine_seeds
from rayseg.steps.score import score
from rayseg.steps.table import score_table
from rayseg.store import (
    SEEDS_SCHEMA,
    Folder,
    claim,
    count_status,
    pack_maps,
    read_rows,
    rows_to_table,
    unpack_seeds,
    write_manifest,
    write_run,
    write_shard,
)
from tests.reference import scores_literal as literal

ENGINE = PlainEngine()
CLASSES = ("cat", "dog", "emu")
SIZE_HW = (18, 22)
COMPUTE = Compute(num_gpus=0, block_rows=4)
STEP = 0.25
BOUNDS_PX = (60, 75)
SPLITS = {"train": 12, "bad": 3, "bare": 1, "untrue": 1}
NOTHING = {"empty": "", "error": "cut short"}


def samples(folder, rng):
    """Images of the splits; the truth holds no emu, and of one image nothing that counts."""
    none = np.zeros((0, 4), np.float32), np.zeros(0, np.int64)
    for split, number in SPLITS.items():
        for n in range(number):
            id_ = f"{split}{n:02d}"
            image, mask = folder / f"{id_}.png", folder / f"{id_}-mask.png"
            Image.fromarray(rng.integers(0, 256, (*SIZE_HW, 3), np.uint8)).save(image)
            truth = rng.choice([0, 0, 1, 2, 255], SIZE_HW).astype(np.uint8)
            mask.write_bytes(encode_labels(np.full_like(truth, 255) if id_ == "train03" else truth))
            truthful = split != "untrue" and id_ != "train11"
            path = str(mask) if truthful else ""
            yield Sample(id_, str(image), *SIZE_HW, (0,), *none, split=split, mask_path=path)
    (folder / "bad01-mask.png").unlink()
    (folder / "bad02-mask.png").write_bytes(encode_labels(np.full(SIZE_HW, 9, np.uint8)))


def seeds_row(id_, n, rng):
    status = {"train09": "empty", "train10": "error"}.get(id_, "ok")
    row = {"id": id_, "status": status, "height": SIZE_HW[0], "width": SIZE_HW[1]}
    if status != "ok":
        return row | {"error": NOTHING[status]}
    classes = [(0,), (0, 1), (1, 2), (2,)][n % 4]
    maps = rng.random((len(classes), 5, 6), dtype=np.float32)
    return row | {"classes": list(classes), "maps": pack_maps(maps)}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Seeds in three shards, and masks of them by a job."""
    folder = tmp_path_factory.mktemp("run")
    rng = np.random.default_rng(0)
    found = list(samples(folder, rng))
    write_manifest(Folder(f"{folder}/manifest"), found, CLASSES)
    ids = [sample.id for sample in found if sample.split != "bare"]
    rows = [seeds_row(id_, n, rng) for n, id_ in enumerate(ids)]
    seeds = Folder(f"{folder}/seeds/cam")
    claim(seeds, {"cam": {"flip": True}})
    for part in (rows[:5], rows[5:6], rows[6:]):
        write_shard(seeds, rows_to_table(part, SEEDS_SCHEMA))
    write_run(seeds, {"counts": count_status(seeds)})
    config = RefineSeedsConfig(
        run=str(folder), methods=("cam",), refiners=("threshold",), compute=COMPUTE
    )
    refine_seeds(config, ENGINE)
    return Folder(str(folder))


def config(run, **changed):
    given = {"run": run.location, "compute": COMPUTE, "threshold_step": STEP}
    return ScoreConfig(**given | {"size_bounds_px": BOUNDS_PX} | changed)


@pytest.fixture(scope="module")
def scored(run):
    """Entries of the train images, counted a few rows at a time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scoring, "COUNTED_ROWS", 3)
        entries = scoring.score_run(run, config(run, over=("dog",)), ENGINE).entries
    stored = json.loads(run.read("scores.json"), parse_constant=pytest.fail)  # no NaN
    assert stored.pop("quality").keys() == {"masks/cam+threshold"}
    assert stored == entries
    return entries


def truth_of(run, id_):
    return decode_labels(run.read(f"{id_}-mask.png"))


def counted(run, predict, folder):
    """The confusion of the train images that have both, pixel by pixel, and each image's own."""
    own = {}
    for row in read_rows(run / folder):
        if row["status"] == "ok" and row["id"].startswith("train") and row["id"] != "train11":
            own[row["id"]] = literal.confusion(truth_of(run, row["id"]), predict(row), len(CLASSES))
    return np.sum(list(own.values()), axis=0).tolist(), own


def at(threshold):
    def predict(row):
        seeds = unpack_seeds(row)
        return literal.predict(enlarge(seeds), seeds.classes, np.float32(threshold))

    return predict


def test_masks_of_the_job_are_those_of_a_plain_loop(run):
    rows = list(read_rows(run / "seeds/cam"))
    refiner = RefineSeedsConfig().refiner("threshold", "cam")
    assert isinstance(refiner, Threshold)
    looped = {row["id"]: row for row in RefineSeeds(refiner, run / "manifest")(rows)}
    stored = {row["id"]: row for row in read_rows(run / "masks/cam+threshold")}
    assert stored.keys() == looped.keys()
    assert sum(row["status"] == "ok" for row in stored.values()) == len(rows) - 2
    for id_, row in looped.items():
        for name in ("status", "error", "labels", "height", "width"):
            assert stored[id_].get(name) == row.get(name, b""), (id_, name)


def test_seeds_are_scored_at_the_best_threshold_of_a_literal_sweep(run, scored):
    entry, over = scored["seeds/cam"], [0, 2]
    curve = {t: counted(run, at(t), "seeds/cam")[0] for t in (0.0, 0.25, 0.5, 0.75)}
    assert entry["sweep"]["thresholds"] == list(curve)
    means = [literal.mean_iou(counts, over) for counts in curve.values()]
    assert entry["sweep"]["miou_over"] == pytest.approx(means)
    assert entry["sweep"]["miou"] == pytest.approx(
        [literal.mean_iou(counts, range(4)) for counts in curve.values()]
    )
    assert entry["threshold"] == list(curve)[int(np.argmax(means))]
    assert entry["confusion"] == curve[entry["threshold"]]


def test_masks_are_scored_as_a_literal_count_has_them(run, scored):
    entry = scored["masks/cam+threshold"]
    total, own = counted(run, lambda row: decode_labels(row["labels"]), "masks/cam+threshold")
    assert entry["confusion"] == total
    assert entry["threshold"] is None
    assert "sweep" not in entry
    scores = {id_: literal.mean_iou(counts, range(4)) for id_, counts in own.items()}
    assert scores.pop("train03") is None  # nothing of it counts, so it is neither best nor worst
    assert {item["id"]: item["miou"] for item in entry["best"]} == pytest.approx(scores)
    worst = [item["miou"] for item in entry["worst"]]
    assert worst == sorted(worst)


def test_means_are_over_all_labels_the_chosen_and_those_of_the_truth(scored):
    for entry in scored.values():
        counts = entry["confusion"]
        assert entry["miou"] == pytest.approx(literal.mean_iou(counts, range(4)))
        assert entry["over"]["names"] == ["background", "dog"]
        assert entry["over"]["miou"] == pytest.approx(literal.mean_iou(counts, [0, 2]))
        assert entry["present"]["names"] == ["background", "cat", "dog"]
        assert entry["present"]["miou"] == pytest.approx(literal.mean_iou(counts, [0, 1, 2]))
        assert entry["miou"] < entry["present"]["miou"]  # emu is predicted and never right


def test_an_entry_says_what_it_was_taken_over(scored):
    for entry in scored.values():
        assert (entry["split"], entry["ids"], entry["images"]) == ("train", "", 9)
        assert (entry["empty"], entry["error"], entry["poison"], entry["missing"]) == (1, 1, 0, 0)
        assert (entry["skipped_count"], entry["skipped"]) == (0, [])
        assert entry["sizes"]["bounds_px"] == list(BOUNDS_PX)
    assert scored["seeds/cam"]["config"] == {"cam": {"flip": True}}
    assert scored["masks/cam+threshold"]["config"]["seeds"] == {"cam": {"flip": True}}


def test_bad_true_masks_cost_their_own_images_and_are_said(run):
    outcome = score(config(run, split="bad"), ENGINE)
    assert outcome.failed == {"bad01", "bad02"}
    assert any(
        line.startswith("not scored: 2 of bad truth, such as bad01") for line in outcome.lines
    )
    entries = json.loads(run.read("scores.json"))
    entries.pop("quality", None)
    assert entries.keys() == {"seeds/cam", "masks/cam+threshold"}
    for entry in entries.values():
        assert (entry["images"], entry["skipped_count"]) == (1, 2)
        assert [item["id"] for item in entry["skipped"]] == ["bad01", "bad02"]
        assert "is missing" in entry["skipped"][0]["reason"]
        assert "got 9" in entry["skipped"][1]["reason"]
    assert "bad01-mask.png is missing" in run.read("report.html").decode()


@pytest.mark.parametrize(
    ("split", "said"),
    [
        ("bare", "seeds/cam: no image has both a result and a usable true mask"),
        ("untrue", "scores: none, no true mask in the split or no seeds and masks in the run"),
    ],
)
def test_without_seeds_or_truth_it_is_said_and_there_is_a_report(run, split, said):
    run.delete("report.html") if run.exists("report.html") else None
    outcome = score(config(run, split=split), ENGINE)
    assert said in outcome.lines
    assert not outcome.failed
    assert run.exists("report.html")
    entries = json.loads(run.read("scores.json"), parse_constant=pytest.fail)
    entries.pop("quality", None)
    assert all(entry["images"] == 0 for entry in entries.values())


def test_ids_without_a_usable_truth_are_said(run, tmp_path):
    (tmp_path / "few.txt").write_text("bad01\n")
    outcome = score(config(run, split="", ids=str(tmp_path / "few.txt")), ENGINE)
    assert outcome.failed == {"bad01"}
    entries = json.loads(run.read("scores.json"), parse_constant=pytest.fail)
    entries.pop("quality", None)
    assert {entry["images"] for entry in entries.values()} == {0}
    assert {entry["ids"] for entry in entries.values()} == {str(tmp_path / "few.txt")}


def test_the_table_shows_the_chosen_mean_only_where_classes_were_chosen(scored):
    titles, *rows = score_table(scored)
    assert titles.split()[:5] == ["split", "mIoU", "undecided", "over", "present"]
    assert rows[0].split()[4] == f"{100 * scored['seeds/cam']['over']['miou']:.1f}"
    plain = {name: entry | {"over": {"miou": None}} for name, entry in scored.items()}
    assert score_table(plain)[0].split()[:4] == ["split", "mIoU", "undecided", "present"]


def test_a_class_that_does_not_exist_is_refused_naming_the_classes(run):
    with pytest.raises(ValueError, match=r"over must name classes \(cat, dog, emu\), got 'cow'"):
        scoring.score_run(run, config(run, over=("cow",)), ENGINE)
