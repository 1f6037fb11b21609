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

pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.usefixtures("cluster"),
    pytest.mark.timeout(240),
]
BAD = 28
UNTAGGED = 2


@pytest.fixture(scope="module")
def job(cluster, tmp_path_factory):
    """The rows of the job by id, the kind of each bad one, and the exit status."""
    folder = tmp_path_factory.mktemp("bad_input")
    kinds = write_dataset(folder)
    torch.manual_seed(0)
    facts = {"trunk": "resnet18", "stride": 16, "classes": ["cat", "dog"]}
    (folder / "w.safetensors").write_bytes(to_safetensors(CamClassifier("resnet18", 2), facts))
    run = str(folder / "run")
    source = ["--data", "folder", "--folder.images", f"{folder}/images"]
    assert run_job("prepare", ["--run", run, *source, "--folder.tags", f"{folder}/tags.csv"]) == 0
    status = run_job(
        "make-seeds",
        [
            *("--run", run, "--methods", "cam", "--weights", f"{folder}/w.safetensors"),
            *("--cam.scales", "1", "--cam.precision", "fp32", "--compute.actors", "2"),
            *("--compute.threads", "1", "--compute.num-gpus", "0"),
        ],
    )
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


def test_each_of_the_300_rows_has_one_row(job):
    rows, _, _ = job
    assert len(rows) == len({row["id"] for row in rows}) == 300


def test_the_270_good_images_have_maps_and_nothing_to_say(job):
    good = [row for row in job[0] if row["id"].startswith("good") and row["status"] == "ok"]
    assert len(good) == 270
    assert all(len(row["maps"]) == len(row["classes"]) > 0 for row in good)
    assert not any(row["error"] or row["note"] for row in good)


def test_images_that_cannot_be_used_say_why(job):
    rows, kinds, _ = job
    for row in rows:
        if kinds.get(row["id"]) in REFUSED:
            assert row["status"] == "error", kinds[row["id"]]
            assert row["error"]
            assert "\n" not in row["error"]
            assert not row["maps"]


def test_images_that_can_be_converted_are_used_and_say_what_was_done(job):
    rows, kinds, _ = job
    for row in rows:
        if row["id"] in kinds and kinds[row["id"]] not in REFUSED:
            assert row["status"] == "ok", kinds[row["id"]]
            assert row["note"]


def test_images_without_tags_are_empty(job):
    assert {row["id"] for row in job[0] if row["status"] == "empty"} == {"good100", "good200"}


def test_the_exit_status_tells_that_some_images_failed(job):
    assert job[2] == 3
