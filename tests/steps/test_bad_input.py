"""300 rows of which 30 are bad: 270 good rows, 30 that say why, and an exit status that tells."""

import csv
import itertools

import numpy as np
import pytest
import torch
from PIL import Image

from rayseg.cli import run_job
from rayseg.nets.classifier import CamClassifier
from rayseg.nets.weights import to_safetensors
from rayseg.store import Folder, read_rows
from tests.bad_images import REFUSED, write_bad_images

pytestmark = pytest.mark.slow
CONVERTED = {"cmyk", "palette", "grey", "alpha", "animated", "exif_rotated"}
BAD = 28  # two of each kind
UNTAGGED = 2


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """The rows of the job by id, the kind of each bad one, and the exit status."""
    folder = tmp_path_factory.mktemp("bad_input")
    kinds = write_dataset(folder)
    torch.manual_seed(0)
    facts = {"trunk": "resnet18", "stride": 16, "classes": ["cat", "dog"]}
    (folder / "w.safetensors").write_bytes(to_safetensors(CamClassifier("resnet18", 2), facts))
    run = str(folder / "run")
    plain, names = ["--run", run, "--engine", "plain"], f"{folder}/tags.csv"
    source = ["--data", "folder", "--folder.images", f"{folder}/images", "--folder.tags", names]
    source.append("--folder.max-side=0")  # so that one photo is too large
    assert run_job("prepare", [*plain, *source]) == 3  # some are not there, or no images
    method = ["--methods", "cam", "--cam.scales", "1", "--cam.precision", "fp32"]
    network = ["--weights", f"{folder}/w.safetensors", "--compute.num-gpus", "0"]
    status = run_job("make-seeds", [*plain, *method, *network])
    return list(read_rows(Folder(f"{run}/seeds/cam"))), kinds, status


def write_dataset(folder):
    """Images and tags.csv: every kind of bad image until 28, two untagged, 270 good."""
    bad = write_bad_images(folder / "images")
    rng = np.random.default_rng(0)
    kinds = {}
    for kind in itertools.islice(itertools.cycle(bad), BAD):
        id_ = f"bad{len(kinds):02d}"
        path = folder / "images" / f"{id_}{bad[kind].suffix}"
        if kind != "missing":
            path.write_bytes(bad[kind].read_bytes())
        kinds[id_] = (kind, path.name)
    names = [name for _, name in kinds.values()]
    for n in range(270 + UNTAGGED):
        size = [(32, 48), (48, 32), (48, 48)][n % 3]
        pixels = rng.integers(0, 256, (*size, 3), np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"good{n:03d}.png", compress_level=1)
        names.append(f"good{n:03d}.png")
    untagged = {f"good{n:03d}.png" for n in (100, 200)}
    rng.shuffle(names)
    # as a spreadsheet writes it: a byte order mark, quotes, CRLF
    with (folder / "tags.csv").open("w", encoding="utf-8-sig", newline="") as file:
        table = csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator="\r\n")
        table.writerow(["image", "tags"])
        for n, name in enumerate(names):
            table.writerow([name, "" if name in untagged else ("cat", "dog", "cat;dog")[n % 3]])
    return {id_: kind for id_, (kind, _) in kinds.items()}


def of_kinds(job, wanted):
    """Rows of the bad images of those kinds; fails where there is none of a kind."""
    rows, kinds, _ = job
    found = [row for row in rows if kinds.get(row["id"]) in wanted]
    assert {kinds[row["id"]] for row in found} == set(wanted)
    return found


def test_each_of_the_300_rows_has_one_row(job):
    rows, kinds, _ = job
    assert len(rows) == len({row["id"] for row in rows}) == 300
    assert len(kinds) == BAD
    assert set(kinds) < {row["id"] for row in rows}


def test_270_rows_are_good_and_30_say_why(job):
    silent = [row for row in job[0] if not row["error"] and not row["note"]]
    assert len(silent) == 270
    assert {row["status"] for row in silent} == {"ok"}
    assert len(job[0]) - len(silent) == BAD + UNTAGGED == 30


def test_good_images_have_a_map_for_each_of_their_tags(job):
    good = [row for row in job[0] if row["id"].startswith("good") and row["status"] == "ok"]
    assert len(good) == 270
    assert all(len(row["maps"]) == len(row["classes"]) > 0 for row in good)
    assert not any(row["error"] or row["note"] for row in good)


def test_images_that_cannot_be_used_say_why(job):
    rows = of_kinds(job, REFUSED)
    assert len(rows) == 2 * len(REFUSED) == 16
    for row in rows:
        assert row["status"] == "error", row["id"]
        assert row["error"]
        assert "\n" not in row["error"]
        assert not row["maps"]


def test_images_that_can_be_converted_are_used_and_say_what_was_done(job):
    rows = of_kinds(job, CONVERTED)
    assert len(rows) == 2 * len(CONVERTED) == 12
    for row in rows:
        assert row["status"] == "ok", row["id"]
        assert row["note"]
        assert not row["error"]
        assert row["maps"]


def test_images_without_tags_are_empty_and_say_so(job):
    untagged = [row for row in job[0] if row["status"] == "empty"]
    assert {row["id"] for row in untagged} == {"good100", "good200"}
    assert [row["note"] for row in untagged] == ["negative: shows none of the classes"] * UNTAGGED
    assert not any(row["maps"] for row in untagged)


def test_the_exit_status_tells_that_some_images_failed(job):
    assert job[2] == 3
