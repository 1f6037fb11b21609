"""Inputs of users that failed once, one folder a case, each by what is right for its kind.

A case is ``run.sh`` with its files; the commands of rayseg in it are run here in this process, in a
copy of the folder. Where a case exports, the truth is stored first as if it had been found.
"""

import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO as Official
from pycocotools.cocoeval import COCOeval

from rayseg.cli import main
from rayseg.records.palette import decode_labels, encode_labels
from rayseg.store import (
    INSTANCES_SCHEMA,
    Folder,
    read_manifest,
    read_run,
    rows_to_table,
    write_run,
    write_shard,
)

DEFAULT = Path(__file__).resolve().parents[2] / ".." / "shared" / "cases"
CASES = Path(os.environ.get("RAYSEG_CASES", DEFAULT)).resolve()
SAVED = "masks/bbam+box_crf"
BOX = [5, 5, 25, 25]


@dataclass(frozen=True)
class Right:
    """What is right for a case.

    Attributes:
        status: of the last command.
        said: what the commands say, all of it.
        taken: numbers of the table; of a case that is prepared two images with an object each.
        left_out: number of what was left out of the data set, by what it is.
        changed: number of what was taken otherwise than it is written.
        columns: of the manifest.
        failed: images whose row of masks is an error.
        average: of COCOeval, of what was exported against the user's own JSON.
        names: file names in the exported JSON.
    """

    status: int = 0
    said: tuple[str, ...] = ()
    taken: dict[str, int] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)
    changed: dict[str, int] = field(default_factory=dict)
    columns: dict[str, list[Any]] = field(default_factory=dict)
    failed: int = 0
    average: float | None = None
    names: tuple[str, ...] = ()


TWO = {"images": 2, "tags": 2, "boxes": 2, "outlines": 2, "masks": 2}
ONE_OBJECT = {"images": 2, "tags": 1, "boxes": 1, "outlines": 1, "masks": 2}
TAGS = {"images": 2, "tags": 2}
ONE_BOX = {"images": 1, "tags": 1, "boxes": 1}
VOC_BOX = [4.0, 4.0, 25.0, 25.0]
FIRST = "a.json: image 1.jpg: annotation 1"


def without(reason: str) -> Right:
    """The first annotation is left out for that reason, and nothing else."""
    return Right(3, (f"left out: 1 annotations: {reason}",), ONE_OBJECT, {"annotations": 1})


RIGHT = {
    "c01_flat_polygon": Right(
        said=(f"points of a polygon in no list of their own, such as {FIRST}",),
        taken=TWO,
        changed={"annotations": 1},
        columns={"boxes_xyxy": [[BOX], [BOX]]},
    ),
    "c02_null_coordinate": without(f"a coordinate of the outline is no number, such as {FIRST} "),
    "c03_far_coordinate": without(
        f"a coordinate of the outline lies far off the image, such as {FIRST} (found 208000000.0)"
    ),
    "c04_rle_too_long": without(
        f"counts of the run-length code do not add up to its image's pixels, such as {FIRST} "
    ),
    "c05_rle_bytes_repr": without(  # its counts are read, and are of 142 pixels
        "counts of the run-length code do not add up to its image's pixels, such as "
        f"{FIRST} (found 142)"
    ),
    "c06_string_image_ids": Right(taken=TWO, columns={"tags": [[0], [1]]}),
    "c07_orphans": without(
        "image is not in the file's list, or was left out, such as a.json: annotation 1 of image 9"
    ),
    "c08_val_same_ids": Right(
        said=("manifest: 2 train, 2 val; 2 classes",),
        taken={what: 2 * number for what, number in TWO.items()},
        columns={"source_id": ["1", "2"] * 2, "split": ["train", "train", "val", "val"]},
    ),
    "c09_iscrowd_text": Right(
        said=(f"iscrowd is no number, such as {FIRST}",),
        taken=TWO,
        changed={"annotations": 1},
        columns={"crowds": [[], []]},
    ),
    "c10_no_bbox": Right(
        said=(f"box is that of the outline, such as {FIRST}",),
        taken=TWO,
        changed={"annotations": 2},
        columns={"boxes_xyxy": [[BOX], [BOX]]},
    ),
    "c11_bbox_empty": Right(
        3,
        (f"left out: 1 boxes: bbox is an empty list, such as {FIRST}",),
        TWO,
        {"boxes": 1},
        {"annotations": 1},
        {"boxes_xyxy": [[BOX], [BOX]]},
    ),
    "c12_image_id_path": Right(taken=TWO, columns={"source_id": ['"a/1"', '"a/2"']}),
    "c13_image_id_escapes": Right(
        taken=TWO, columns={"source_id": ['"../../../escaped1"', '"../../../escaped2"']}
    ),
    "c14_height_zero": Right(
        said=("height and width are lacking or none of an image, those of the file count",),
        taken=TWO,
        changed={"images": 1},
        columns={"height": [40, 40], "width": [60, 60]},
    ),
    "c15_size_swapped": Right(
        3,
        ("swapped against the image file's, which has no EXIF orientation", f"{FIRST}: 60x40 in"),
        {"images": 2, "tags": 2, "boxes": 1, "outlines": 1, "masks": 1},
        {"boxes": 1},
        columns={"height": [40, 40], "boxes_xyxy": [[], [BOX]]},
    ),
    "c16_file_name_number": Right(
        3,
        ("left out: 1 images: not found, of 2 that are listed, such as", "/img/5\n"),
        {"images": 1, "tags": 2, "boxes": 2, "outlines": 1, "masks": 1},
        {"images": 1},
        columns={"file_name": ["5", "2.jpg"]},
    ),
    "c17_backslashes": Right(
        said=(r"found under another name, such as A\1.jpg",), taken=TWO, changed={"images": 2}
    ),
    "c18_folder_said_twice": Right(
        said=("found under another name, such as img/A/1.jpg",), taken=TWO, changed={"images": 2}
    ),
    **dict.fromkeys(
        (
            "e01_categories_from_0",
            "e02_image_ids_words",
            "e03_image_ids_19_digits",
            "e04_image_ids_negative",
            "e05_image_ids_digits_as_text",
            "e09_gap_ids",
            "e10_image_ids_float",
        ),
        Right(taken=TWO, average=1.0),
    ),
    "e06_subfolders": Right(taken=TWO, names=("cam0/0001.jpg", "cam1/0001.jpg")),
    "e07_class_background": Right(
        1,
        (
            "export --format voc will refuse this: class names must differ",
            "rayseg: class names must differ and not be 'background' or 'ignored'",
        ),
        TWO,
    ),
    "e08_nothing_found": Right(
        3, ("export: 0 objects of 2 images", "no mask was written"), {"images": 2, "masks": 2}
    ),
    "e11_class_colon": Right(
        1,
        (
            "export --format voc will refuse this: class name 'cat:black' does not fit",
            "rayseg: class name 'cat:black' does not fit",
        ),
        TWO,
    ),
    "e12_voc_of_nothing": Right(
        3,
        ("export: 0 masks in exp", "left out 2 images: 2 empty", "no mask was written"),
        {"images": 2, "masks": 2},
    ),
    "e13_most_rows_failed": Right(
        3,
        ("export: 1 masks in exp", "left out 3 images: 3 error"),
        {what: 2 * number for what, number in TWO.items()},
        failed=3,
    ),
    "f01_semicolons": Right(taken=TAGS, columns={"id": ["a", "b"], "tags": [[0], [1]]}),
    "f02_python_lists": Right(
        said=("; 2 classes",), taken={"images": 2, "tags": 3}, columns={"tags": [[0, 1], [1]]}
    ),
    "f03_case_of_suffix": Right(
        taken={"images": 1, "tags": 1}, columns={"height": [40], "width": [60]}
    ),
    "f04_decomposed_name": Right(
        taken={"images": 1, "tags": 1}, columns={"id": ["caf\u00e9"], "height": [40]}
    ),
    "f06_case_of_tags": Right(
        said=("classes of their own, such as t.csv: 'Cat' and 'cat'",),
        taken=TAGS,
        changed={"classes": 2},
    ),
    "m01_masks_0_255": Right(
        1, ("hold only 0, background, and 255, which is ignored", "--folder.mask-values 255=CLASS")
    ),
    "m02_masks_jpg": Right(
        3, ("a .jpg changes values: save masks as PNG", "/m/a.jpg"), TAGS, {"masks": 1}
    ),
    "v01_own_classes": Right(
        said=("; 1 classes",), taken=ONE_BOX, columns={"boxes_xyxy": [[VOC_BOX]]}
    ),
    "v02_names_with_spaces": Right(taken=ONE_BOX, columns={"id": ["my photo"], "height": [40]}),
    "v03_size_of_another_image": Right(
        3,
        ("400x600, the file has 40x60", "made for another size than the file's", "object 1"),
        {"images": 1, "tags": 1},
        {"boxes": 1},
        {"sizes": 1},
        {"height": [40], "boxes_xyxy": [[]]},
    ),
    "v04_gbk": Right(taken=ONE_BOX, columns={"tags": [[11]], "boxes_xyxy": [[VOC_BOX]]}),
    "v05_latin1_unknown_class": Right(said=("; 1 classes",), taken=ONE_BOX),
    "v06_tags_in_capitals": Right(
        taken=ONE_BOX, columns={"tags": [[11]], "boxes_xyxy": [[VOC_BOX]]}
    ),
    "v07_upper_case_suffix": Right(taken=ONE_BOX, columns={"height": [40]}),
    "v08_list_of_pairs": Right(
        said=("changed: 1 masks: that a list names, not found", "/SegmentationClassAug/a0.png"),
        taken=ONE_BOX,
        changed={"masks": 1},
        columns={"id": ["a0"], "height": [40], "boxes_xyxy": [[VOC_BOX]]},
    ),
    "v09_polygon_without_box": Right(
        3,
        ("left out: 1 boxes: polygon has fewer than three points", "/a0.xml: object 1"),
        {"images": 2, "tags": 2, "boxes": 1},
        {"boxes": 1},
        columns={"boxes_xyxy": [[], [VOC_BOX]]},
    ),
}
BY_MEMORY = {"n01_many_objects"}


@pytest.fixture
def case(tmp_path, monkeypatch):
    """What copies a case and goes there."""
    if not CASES.is_dir():
        pytest.skip(f"cases of users not found at {CASES}: set RAYSEG_CASES")

    def enter(name: str) -> Path:
        place = tmp_path / "a" / "b" / "c" / "d" / name  # room for ../../.. of a name
        shutil.copytree(CASES / name, place, ignore=shutil.ignore_patterns("out", "exp"))
        monkeypatch.chdir(place)
        return place

    return enter


def commands(place: Path) -> list[list[str]]:
    """The arguments of rayseg that a case's script gives, in order."""
    lines = (place / "run.sh").read_text().splitlines()
    found = [
        one for line in lines for one in re.findall(r"rayseg ((?:prepare|export) [^&;|>]*)", line)
    ]
    return [shlex.split(one) for one in found]


def call(arguments: list[str]) -> tuple[int, str]:
    """Exit status of a command and what it says; an error must be one line."""
    out, errors = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(errors), pytest.raises(SystemExit) as ending:
        main(arguments)
    assert errors.getvalue().count("\n") == (ending.value.code == 1), errors.getvalue()
    return ending.value.code, out.getvalue() + errors.getvalue()


def store_truth(failed: int) -> None:
    """The true objects of the run as masks of objects; the last rows as errors."""
    manifest = read_manifest(Folder("out") / "manifest", true_masks=True)
    rows = []
    for sample in manifest.samples():
        rows.append(
            {
                "id": sample.id,
                "status": "ok" if sample.true_masks else "empty",
                "height": sample.height,
                "width": sample.width,
                "labels": encode_labels(np.zeros((sample.height, sample.width), np.uint8)),
                "boxes_xyxy": sample.boxes_xyxy.tolist(),
                "classes": sample.box_classes.tolist(),
                "object_status": ["ok"] * len(sample.true_masks),
                "scores": [1.0] * len(sample.true_masks),
                "foreground": list(sample.true_masks),
                "possible": [b""] * len(sample.true_masks),
            }
        )
    for row in rows[len(rows) - failed :]:
        row |= {"status": "error", "error": "boom", "labels": b""}
    write_shard(Folder("out") / SAVED, rows_to_table(rows, INSTANCES_SCHEMA))
    write_run(Folder("out") / SAVED, {"done": True, "config": {}})


def everything(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def average_precision(truth: str, results: str) -> float:
    with redirect_stdout(io.StringIO()):
        official = Official(truth)
        judge = COCOeval(official, official.loadRes(results), "segm")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return float(judge.stats[0])


@pytest.mark.data
@pytest.mark.parametrize("name", sorted(RIGHT))
def test_a_case_gives_what_is_right(name, case, tmp_path):
    right, place = RIGHT[name], case(name)
    before, statuses, said = everything(tmp_path), [], ""
    for arguments in commands(place):
        if arguments[0] == "export":
            store_truth(right.failed)
        status, text = call(arguments)
        statuses.append(status)
        said += text
    assert statuses == [0] * (len(statuses) - 1) + [right.status]
    assert [text for text in right.said if text not in said] == []
    own = str(place.relative_to(tmp_path))
    made = everything(tmp_path) - before
    assert {path for path in made if not re.match(rf"{own}/(out|exp)(/|$)", path)} == set()
    if right.taken:
        check_manifest(right)
    if right.average is not None:
        assert average_precision("a.json", "exp/results_train.json") == pytest.approx(right.average)
    if right.names:
        images = json.loads(Path("exp/instances_train.json").read_text())["images"]
        assert tuple(image["file_name"] for image in images) == right.names


def check_manifest(right: Right) -> None:
    """Holds the table of what was taken, the manifest and its masks against what is right."""
    tally = read_run(Folder("out") / "manifest")["tally"]
    assert tally["taken"] == right.taken
    for kind in ("left_out", "changed"):
        counts: dict[str, int] = {}
        for one in tally[kind]:
            counts[one["what"]] = counts.get(one["what"], 0) + one["count"]
        assert counts == getattr(right, kind)
    manifest = read_manifest(Folder("out") / "manifest")
    for column, values in right.columns.items():
        assert manifest.table.column(column).to_pylist() == values
    for path in filter(None, manifest.table.column("mask_path").to_pylist()):
        assert Path(path).resolve().is_relative_to(Path("out").resolve())
        assert Path(path).is_file()


@pytest.mark.data
def test_no_case_is_without_its_test(case):
    there = {path.name for path in CASES.iterdir() if (path / "run.sh").is_file()}
    assert there == RIGHT.keys() | BY_MEMORY


@pytest.mark.data
def test_masks_of_0_and_255_are_read_by_the_values_that_are_given(case):
    (arguments,) = commands(case("m01_masks_0_255"))
    assert call([*arguments, "--folder.mask-values", "255=lesion"])[0] == 0
    paths = read_manifest(Folder("out") / "manifest").table.column("mask_path").to_pylist()
    for path in paths:
        assert np.unique(decode_labels(Path(path).read_bytes())).tolist() == [0, 1]


PEAK = """
import sys
from pathlib import Path
from rayseg.cli import main
try:
    main(sys.argv[1:])
except SystemExit as ending:
    status = Path("/proc/self/status").read_text()
    print(ending.code, int(status.partition("VmHWM:")[2].split()[0]) // 1024)
"""


@pytest.mark.data
def test_the_command_that_reads_two_thousand_objects_takes_less_than_500_mb(case):
    case("n01_many_objects")
    made = Path("show.py").read_text().partition("t=time.time()")[0]
    subprocess.run([sys.executable, "-c", made, "2000"], check=True)
    flags = ["--run=out", "--data=coco", "--coco.images=img", "--coco.annotations=a.json"]
    done = subprocess.run(
        [sys.executable, "-c", PEAK, "prepare", *flags], capture_output=True, text=True, check=True
    )
    assert "boxes          2000" in done.stdout
    status, peak = map(int, done.stdout.splitlines()[-1].split())
    assert status == 0
    assert peak < 500
