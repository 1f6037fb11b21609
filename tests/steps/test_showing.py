"""One image with a run's masks on it; no Ray."""

import numpy as np
import pytest
from PIL import Image

from rayseg.cli import main
from rayseg.config import ShowConfig
from rayseg.plain import PlainEngine
from rayseg.records import Sample
from rayseg.records.palette import encode_labels
from rayseg.steps.showing import show
from rayseg.store import MASKS_SCHEMA, Folder, rows_to_table, write_manifest, write_shard

LABELS = np.zeros((20, 40), np.uint8)
LABELS[:, 20:] = 1
LABELS[:4, 20:] = 255


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run of two images, of which one has no tags, with masks and predictions."""
    monkeypatch.chdir(tmp_path)
    none = np.zeros((0, 4), np.float32), np.zeros(0, np.int64)
    samples = []
    for id_, tags in (("sub/a", (0,)), ("b", ())):
        path = tmp_path / f"{id_.replace('/', '_')}.png"
        Image.new("RGB", (40, 20), (200, 200, 200)).save(path)
        samples.append(Sample(id_, str(path), 20, 40, tags, *none, file_name=f"{id_}.png"))
    folder = Folder(str(tmp_path / "run"))
    write_manifest(folder / "manifest", samples, ["cow"])
    rows = [
        {"id": "sub/a", "status": "ok", "height": 20, "width": 40, "labels": encode_labels(LABELS)},
        {"id": "b", "status": "empty", "note": "no tags", "height": 20, "width": 40},
    ]
    write_shard(folder / "masks" / "cam+crf", rows_to_table(rows, MASKS_SCHEMA))
    write_shard(folder / "predictions" / "truth", rows_to_table(rows[:1], MASKS_SCHEMA))
    return tmp_path


def shown(run, id_, **given):
    return show(ShowConfig(run=str(run / "run"), id=id_, **given), PlainEngine()).lines


def test_the_photo_and_each_mask_lie_side_by_side_and_shares_are_said(run):
    lines = shown(run, "sub/a")
    assert lines == [
        "show: sub_a.overlay.png: the photo, then in this order:",
        "masks/cam+crf: background 50 %, cow 40 %, undecided 10 %",
        "predictions/truth: background 50 %, cow 40 %, undecided 10 %",
    ]
    picture = np.array(Image.open(run / "sub_a.overlay.png"))
    assert picture.shape == (20, 3 * 40 + 2 * 8, 3)
    assert (picture[:, :40] == 200).all()
    assert (picture[:, 40:48] == 255).all()
    assert (picture[:, 48:68] == 200).all()
    assert (picture[10, 80] != 200).any()


def test_an_image_is_found_by_the_name_of_its_file(run):
    assert shown(run, "sub/a.png", results=("masks/cam+crf",), picture="x.png")[0].startswith(
        "show: x.png"
    )
    with Image.open(run / "x.png") as picture:
        assert picture.size == (88, 20)


def test_an_image_without_a_mask_says_why(run):
    assert shown(run, "b") == [
        "show: b.overlay.png: the photo; no mask of it",
        "masks/cam+crf: no mask, empty (no tags)",
        "predictions/truth: no mask, no row yet",
    ]


@pytest.mark.parametrize(
    ("id_", "given", "message"),
    [
        ("", {}, "id must name an image, got nothing: `rayseg show RUN ID`"),
        ("sub/b", {}, "id must be of an image of the run, got 'sub/b'; did you mean"),
        ("b", {"picture": "b.png"}, "picture must be another file than the photo"),
        ("b", {"results": ("masks/rib",)}, "holds nothing; .* has: masks/cam.crf, predictions"),
    ],
)
def test_what_cannot_be_shown_is_one_line(run, id_, given, message):
    before = (run / "b.png").read_bytes()
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        shown(run, id_, **given)
    assert (run / "b.png").read_bytes() == before


@pytest.mark.parametrize("given", [{"picture": "a.jpg"}, {"results": ("seeds/cam",)}])
def test_settings_that_make_no_picture_are_refused(given):
    with pytest.raises(ValueError, match="must be"):
        ShowConfig(id="a", **given)


def test_run_and_image_are_given_without_flags(run, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["show", "run", "sub/a", "--picture", "there.png"])
    assert ended.value.code == 0
    assert "show: there.png: the photo, then" in capsys.readouterr().out
