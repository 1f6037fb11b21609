"""Which detector a job asks: a wrong one is one line, before anything starts; no Ray."""

from dataclasses import replace

import numpy as np
import pytest

from rayseg.config import AnalyseBoxesConfig, MakeBoxMapsConfig, MakeBoxMasksConfig
from rayseg.nets.detectors import build_detector
from rayseg.nets.detectors.files import detector_facts
from rayseg.nets.weights import to_safetensors
from rayseg.on_ray.box_analysis import analyse_boxes
from rayseg.on_ray.boxes import choose_detector, make_box_maps, make_box_masks
from rayseg.records import Sample
from rayseg.rle import encode_mask
from rayseg.store import Folder, write_manifest


@pytest.fixture
def run(tmp_path):
    """A manifest of one object with its true mask."""
    boxes = np.array([[1, 1, 20, 20]], np.float32)
    mask = (encode_mask(np.ones((24, 24), bool)),)
    sample = Sample("a", "a.png", 24, 24, (0,), boxes, np.array([0]), true_masks=mask)
    write_manifest(Folder(str(tmp_path)) / "manifest", [sample], ["cow"])
    return str(tmp_path)


def write_detector(folder, classes):
    network = build_detector("retinanet", "mobilenet_v2", len(classes), channels=16)
    Folder(folder).write("a.safetensors", to_safetensors(network, detector_facts(network, classes)))
    return f"{folder}/a.safetensors"


JOBS = [(MakeBoxMapsConfig, make_box_maps), (AnalyseBoxesConfig, analyse_boxes)]


@pytest.mark.parametrize(("kind", "job"), JOBS)
def test_without_a_detector_the_way_to_one_is_said(run, kind, job):
    with pytest.raises(FileNotFoundError, match="make it with `rayseg train-detector`, or name "):
        job(kind(run=run))


@pytest.mark.parametrize(("kind", "job"), JOBS)
def test_a_missing_file_of_weights_is_named(run, kind, job):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.safetensors") as caught:
        job(kind(run=run, detector_weights=f"{run}/nowhere.safetensors"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("kind", "job"), JOBS)
def test_a_detector_of_other_classes_is_refused_with_both(run, kind, job):
    address = write_detector(run, ["dog", "emu"])
    with pytest.raises(ValueError, match=r"dog.*cow|cow.*dog") as caught:
        job(kind(run=run, detector_weights=address))
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_detector_is_refused(run):
    Folder(run).write("a.safetensors", b"<html>")
    with pytest.raises(ValueError, match=r"a\.safetensors"):
        make_box_maps(MakeBoxMapsConfig(run=run, detector_weights=f"{run}/a.safetensors"))


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
        make_box_masks(config)
