"""`rayseg.label`: the steps of a run in one call, and what it gives back."""

import gc
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import rayseg
from rayseg.config import RunConfig, read_toml
from rayseg.plain import PlainEngine
from rayseg.steps.recipe import run
from rayseg.store import Folder, digests_of
from tests.api.tiny import TINY, drawn

TAGS = [["red"], ["green"], [], ["red"]]


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """Masks of three arrays and a file that is no image, in a folder to be read."""
    folder = tmp_path_factory.mktemp("labelled")
    (folder / "broken.jpg").write_bytes(b"no image")
    images = [*drawn(), folder / "broken.jpg"]
    return rayseg.label(images, TAGS, run=folder / "run", progress=False, **TINY)


def test_masks_are_found_by_id_and_by_place(labelled):
    assert labelled.classes == ("green", "red")
    assert labelled.names_of_labels == {0: "background", 1: "green", 2: "red", 255: "undecided"}
    assert len(labelled) == 4
    assert list(labelled.masks) == [image.id for image in labelled][:3] == ["0", "1", "2"]
    for key in ("1", 1):
        mask = labelled.masks[key]
        assert (mask.dtype, mask.shape) == (np.uint8, (40, 56))
        assert {*np.unique(mask)} <= {0, 1, 255}
    assert not labelled[2].mask.any()
    assert [image.id for image in labelled[-2:]] == ["2", "broken"]


def test_an_image_has_its_photo_its_maps_and_an_overlay(labelled):
    image = labelled["0"]
    assert (image.photo == drawn()[0]).all()
    (name, found), *others = image.seeds.items()
    assert (name, others, found.dtype, found.shape) == ("red", [], np.float32, (40, 56))
    assert 0 <= found.min() <= found.max() <= 1
    shown = image.overlay()
    assert isinstance(shown, Image.Image)
    assert shown.size == (56, 40)
    kept = labelled.masks["0"] == 0
    assert (np.array(shown)[kept] == image.photo[kept]).all()


def test_an_image_that_cannot_be_read_has_a_reason_and_costs_no_other(labelled):
    assert [*labelled.failed] == ["broken"]
    assert "not an image" in labelled.failed["broken"]
    with pytest.raises(ValueError, match=r"image 'broken' has none of masks/cam\+label_crf: "):
        _ = labelled["broken"].mask
    with pytest.raises(KeyError):
        _ = labelled.masks[3]
    assert "broken" not in labelled.masks
    assert labelled.masks.get("nobody") is None


def test_the_rows_are_those_of_a_run_by_the_same_settings(labelled, tmp_path):
    config = read_toml(labelled.run.folder.path("run.toml"), RunConfig())
    assert (config.engine, config.until, config.data) == ("plain", "masks", "folder")
    run(replace(config, run=str(tmp_path / "run")), PlainEngine())
    for name in ("seeds/cam", "masks/cam+label_crf"):
        here, there = (
            digests_of(f / name) for f in (labelled.run.folder, Folder(f"{tmp_path}/run"))
        )
        assert here == there != {}


def test_the_same_call_goes_on_and_another_tag_makes_one_image_again(tmp_path, labelled):
    weights = labelled.run.folder.path("classifier/classifier.safetensors")
    given = {"run": tmp_path, "progress": False, "methods": ["cam"], "cam": TINY["cam"]}
    first = rayseg.label(drawn(), TAGS[:3], classifier=weights, **given)
    assert not (tmp_path / "classifier").exists()
    assert first.classes == ("green", "red")
    again = rayseg.label(drawn(), [["red"], ["green"], ["green"]], classifier=weights, **given)
    assert "seeds cam: made again after a change: 1 image (2)" in again.lines
    assert [*again[2].seeds] == ["green"]


def test_a_temporary_run_lives_as_long_as_what_came_from_it(labelled):
    weights = labelled.run.folder.path("classifier/classifier.safetensors")
    given = {"progress": False, "methods": ["cam"], "cam": TINY["cam"]}
    made = rayseg.label(drawn(1), [["red"]], classifier=weights, **given)
    folder, masks = made.run.folder.location, made.masks
    del made
    gc.collect()
    assert masks[0].shape == (40, 56)
    del masks
    gc.collect()
    assert not os.path.exists(folder)


def test_a_call_leaves_the_process_as_it_was(labelled, capfd):
    weights = labelled.run.folder.path("classifier/classifier.safetensors")
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    rayseg.label(drawn(1), [["red"]], classifier=weights, methods=["cam"], cam=TINY["cam"])
    assert (torch.get_rng_state() == state).all()
    assert torch.get_num_threads() == threads
    out, err = capfd.readouterr()
    assert out == ""
    assert "masks cam+label_crf: 1 of 1 images" in err


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"advcam": {"num_step": 3}}, "settings: unknown key 'advcam.num_step'; did you mean 'num"),
        ({"metods": ["cam"]}, "settings: unknown key 'metods'; did you mean 'methods'"),
        ({"methods": "cam"}, "settings: methods must be .*, got 'cam'"),
        ({"methods": ("cams",)}, "methods must be of .*, got 'cams'; did you mean 'cam'"),
        ({"until": "seeds"}, "until is set by the call itself"),
        ({"folder": {"tags": "x.csv"}}, "folder.tags is set by the call itself"),
        ({"preset": "lap"}, "preset must be one of official, .*, got 'lap'; did you mean 'laptop'"),
        ({"classifier": "nowhere.safetensors"}, "nowhere.safetensors"),
        ({"classifier": {"weights": "nowhere.pth"}}, "--classifier.weights must be a file that is"),
        ({"folder": {"class_names": ["cow"]}}, "tags of '0' must be of cow, got 'red'"),
        ({"run": "s3://bucket/run"}, "run must be a local folder, got s3://bucket/run"),
    ],
)
def test_what_is_wrong_is_a_value_error_of_one_line(given, message, tmp_path):
    with pytest.raises(ValueError, match=message) as caught:
        rayseg.label(drawn(1), [["red"]], **{"run": tmp_path, "progress": False, **given})
    assert "\n" not in str(caught.value)


def test_all_that_is_wrong_is_one_error(tmp_path):
    wrong = {"classifier": {"weights": "nowhere.pth"}, "saliency_maps": "nothing"}
    with pytest.raises(ValueError, match=r"nowhere\.pth; .*--saliency-maps must be a folder"):
        rayseg.label(drawn(1), [["red"]], run=tmp_path, progress=False, **wrong)


def test_a_call_in_a_fresh_process_loads_no_ray(labelled):
    weights = labelled.run.folder.path("classifier/classifier.safetensors")
    code = (
        "import sys, rayseg; from tests.api.tiny import drawn; "
        f"rayseg.label(drawn(1), [['red']], classifier={weights!r}, methods=['cam'], "
        "progress=False); print('ray' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]
