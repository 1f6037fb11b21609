"""Which detector a job asks: a wrong one is one line, before anything starts; no Ray."""

import sys
from dataclasses import replace

import numpy as np
import pytest

from rayseg.attribution import BBAM
from rayseg.cli import run_job
from rayseg.config import AnalyseBoxesConfig, MakeBoxMapsConfig, MakeBoxMasksConfig
from rayseg.nets.detectors import DetectorDesign, build_detector
from rayseg.nets.weights import to_safetensors
from rayseg.plain import PlainEngine
from rayseg.records import Sample
from rayseg.records.rle import encode_mask
from rayseg.steps import box_analysis, boxes
from rayseg.steps.box_analysis import analyse_boxes
from rayseg.steps.boxes import make_box_maps, make_box_masks
from rayseg.steps.weights import choose_detector
from rayseg.store import Folder, write_manifest
from tests.attribution.tiny_detector import TinyPoints


@pytest.fixture
def run(tmp_path):
    """A manifest of one object with its true mask."""
    boxes = np.array([[1, 1, 20, 20]], np.float32)
    mask = (encode_mask(np.ones((24, 24), bool)),)
    sample = Sample("a", "a.png", 24, 24, (0,), boxes, np.array([0]), true_masks=mask)
    write_manifest(Folder(str(tmp_path)) / "manifest", [sample], ["cow"])
    return str(tmp_path)


def write_detector(folder, classes):
    known = {"classes": tuple(classes), "trunk": "mobilenet_v2", "channels": 16}
    network = build_detector(DetectorDesign(kind="retinanet", **known))
    Folder(folder).write("a.safetensors", to_safetensors(network, network.design.facts))
    return f"{folder}/a.safetensors"


JOBS = [(MakeBoxMapsConfig, make_box_maps), (AnalyseBoxesConfig, analyse_boxes)]


@pytest.mark.parametrize(("kind", "job"), JOBS)
def test_without_a_detector_the_way_to_one_is_said(run, kind, job):
    with pytest.raises(
        FileNotFoundError, match=r"make it with `rayseg train-detector --run .*`, or name "
    ):
        job(kind(run=run), PlainEngine())


@pytest.mark.parametrize(("kind", "job"), JOBS)
def test_a_missing_file_of_weights_is_named(run, kind, job):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.safetensors") as caught:
        job(kind(run=run, detector_weights=f"{run}/nowhere.safetensors"), PlainEngine())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("kind", "job"), JOBS)
def test_a_detector_of_other_classes_is_refused_with_both(run, kind, job):
    address = write_detector(run, ["dog", "emu"])
    with pytest.raises(ValueError, match=r"dog.*cow|cow.*dog") as caught:
        job(kind(run=run, detector_weights=address), PlainEngine())
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_detector_is_refused(run):
    Folder(run).write("a.safetensors", b"<html>")
    with pytest.raises(ValueError, match=r"a\.safetensors"):
        make_box_maps(
            MakeBoxMapsConfig(run=run, detector_weights=f"{run}/a.safetensors"), PlainEngine()
        )


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"bbam": BBAM(region="windows")}, "region must be full for a detector"),
        ({"box_methods": ("bbam", "box_gradcam")}, "feature_layer must name a module"),
    ],
)
def test_settings_that_a_detector_cannot_serve_bind_no_folder(run, monkeypatch, changed, said):
    whole = TinyPoints()
    whole.window_stride = 0
    monkeypatch.setattr(boxes, "load_detector", lambda path, classes: whole)
    config = MakeBoxMapsConfig(run=run, detector_weights=write_detector(run, ["cow"]))
    with pytest.raises(ValueError, match=said):
        make_box_maps(replace(config, **changed), PlainEngine())
    assert not (Folder(run) / "box_maps").exists()


def test_an_analysis_that_a_detector_cannot_serve_binds_no_folder(run, monkeypatch):
    monkeypatch.setattr(box_analysis, "load_detector", lambda path, classes: TinyPoints())
    config = AnalyseBoxesConfig(run=run, detector_weights=write_detector(run, ["cow"]))
    said = "got methods, whose box_gradcam it cannot: feature_layer must .* by --analyses"
    with pytest.raises(ValueError, match=said):
        analyse_boxes(config, PlainEngine())
    assert not (Folder(run) / "analyses").exists()


def test_what_opens_an_onnx_file_must_be_installed(run, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "onnx2torch", None)
    Folder(run).write("a.onnx", b"")
    with pytest.raises(SystemExit) as ending:
        run_job("make-box-maps", ["--run", run, "--detector-weights", f"{run}/a.onnx"])
    said = capsys.readouterr().err
    assert ending.value.code == 1
    assert said.startswith(f"rayseg: onnx2torch must be installed for {run}/a.onnx: pip install")
    assert said.count("\n") == 1


def test_given_weights_come_before_the_runs_own_and_are_found_from_anywhere(run, monkeypatch):
    (Folder(run) / "detector").write("detector.safetensors", b"")
    config = MakeBoxMapsConfig(run=run)
    assert choose_detector(config).address == f"{run}/detector/detector.safetensors"
    monkeypatch.chdir(run)
    given = choose_detector(replace(config, detector_weights="own.safetensors"))
    assert given.address == f"{run}/own.safetensors"
    remote = replace(config, detector_weights="s3://bucket/yolox.onnx", detector_classes=("cow",))
    assert choose_detector(remote).address == "s3://bucket/yolox.onnx"
    assert choose_detector(remote).classes == ("cow",)


def test_masks_from_a_folder_of_proposals_that_is_not_there_are_refused(run):
    config = MakeBoxMasksConfig(run=run, proposals=f"{run}/mcg")
    with pytest.raises(FileNotFoundError, match=r"none, superpixels or a folder; .*/mcg does not"):
        make_box_masks(config, PlainEngine())
