"""Configurations of the jobs about boxes: what they make and compare, sense, TOML and back."""

import pytest
import tomli_w

from rayseg.attribution import BBAM, BOX_METHODS
from rayseg.config import (
    AnalyseBoxesConfig,
    MakeBoxMapsConfig,
    MakeBoxMasksConfig,
    RunConfig,
    as_plain,
    as_written,
)
from rayseg.refine import BOX_REFINERS, BoxCRF, ProposalRefinement
from rayseg.stages import ANALYSES
from rayseg.toml import read, update


@pytest.mark.parametrize(
    ("kind", "parts"),
    [
        (MakeBoxMapsConfig, BOX_METHODS),
        (MakeBoxMasksConfig, BOX_REFINERS),
        (AnalyseBoxesConfig, BOX_METHODS),
        (AnalyseBoxesConfig, BOX_REFINERS),
    ],
)
def test_every_entry_of_a_list_is_a_field_with_its_own_defaults(kind, parts):
    config = kind()
    for name, part in parts.items():
        assert getattr(config, name) == part()


@pytest.mark.parametrize(
    ("kind", "changed", "said"),
    [
        (MakeBoxMapsConfig, {"box_methods": ("bam",)}, "got 'bam'; did you mean 'bbam'"),
        (MakeBoxMapsConfig, {"boxes": "found"}, "boxes must be .*got 'found'"),
        (MakeBoxMapsConfig, {"min_score": 1.2}, r"min_score must lie in \[0, 1\], got 1.2"),
        (MakeBoxMasksConfig, {"box_methods": ("cam",)}, "box_methods must be of .*got 'cam'"),
        (MakeBoxMasksConfig, {"box_refiners": ("boxcrf",)}, "did you mean 'box_crf'"),
        (AnalyseBoxesConfig, {"analyses": ("head",)}, "did you mean 'heads'"),
        (AnalyseBoxesConfig, {"noise_refiner": "label_crf"}, "noise_refiner must be of .*'label"),
        (AnalyseBoxesConfig, {"max_images": -1}, "max_images must be 0 or more, got -1"),
        (AnalyseBoxesConfig, {"fixed_strides": (0, 24)}, r"1 or more, got \(0, 24\)"),
        (AnalyseBoxesConfig, {"amounts": (-0.5, 0.0)}, r"above -0.5 with 0 among them, got \(-0.5"),
        (AnalyseBoxesConfig, {"amounts": (0.0, -0.1)}, r"ascend .*got \(0.0, -0.1\)"),
        (AnalyseBoxesConfig, {"amounts": (0.1,)}, "with 0 among them"),
        (AnalyseBoxesConfig, {"amounts": ()}, "with 0 among them"),
    ],
)
def test_what_has_no_sense_is_refused_in_one_line(kind, changed, said):
    with pytest.raises(ValueError, match=said) as caught:
        kind(**changed)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("proposals", "ending"),
    [("none", ""), ("superpixels", "+superpixels"), ("/data/mcg", "+proposals")],
)
def test_a_folder_of_masks_is_named_after_all_that_made_it(proposals, ending):
    config = MakeBoxMasksConfig(
        box_methods=("bbam", "box_gradcam"), box_refiners=("box_crf",), proposals=proposals
    )
    assert config.box_mask_names() == [f"bbam+box_crf{ending}", f"box_gradcam+box_crf{ending}"]


def test_nested_boxes_are_an_exception_of_the_code_alone():
    assert MakeBoxMasksConfig().semantic_masks.keep_nested
    assert not as_written(MakeBoxMasksConfig()).semantic_masks.keep_nested
    assert not as_written(RunConfig()).semantic_masks.keep_nested


@pytest.mark.parametrize(
    ("named", "address", "classes"),
    [
        ((), "detector.safetensors", ()),
        (("cow",), "yolox.onnx", ("cow",)),
        (("cow",), "detector.safetensors", ("cow",)),
    ],
)
def test_a_detector_of_the_run_counts_the_runs_classes(named, address, classes):
    assert MakeBoxMapsConfig(detector_classes=named).classes_of_detector(address) == classes


def test_a_detector_of_others_counts_cocos_classes_unless_others_are_named():
    classes = MakeBoxMapsConfig().classes_of_detector("yolox.onnx")
    assert len(classes) == 80
    assert (classes[0], classes[-1]) == ("person", "toothbrush")


# What an analysis compares


def test_each_head_is_looked_at_alone_whatever_the_maps_are_made_of():
    config = AnalyseBoxesConfig(bbam=BBAM(use_box=False, steps=7, early_stop=0.1))
    box, class_ = config.variants("heads")
    assert (box.name, box.method.use_box, box.method.use_class) == ("box", True, False)
    assert (class_.name, class_.method.use_box, class_.method.use_class) == ("class", False, True)
    for one in (box, class_):
        assert (one.method.record, one.method.early_stop, one.method.steps) == (True, 0.0, 7)


def test_noise_changes_the_boxes_alone():
    config = AnalyseBoxesConfig(amounts=(-0.1, 0.0, 0.15))
    variants = config.variants("noise")
    assert [(one.name, one.noise) for one in variants] == [
        ("-0.1", -0.1),
        ("+0", 0),
        ("+0.15", 0.15),
    ]
    assert {one.method for one in variants} == {config.bbam}


def test_strides_are_the_adaptive_one_and_fixed_ones():
    variants = AnalyseBoxesConfig().variants("strides")
    assert [one.name for one in variants] == ["adaptive", "stride 24", "stride 48"]
    assert [one.method.fixed_stride for one in variants] == [0, 24, 48]


def test_methods_are_all_that_ask_a_detector():
    config = AnalyseBoxesConfig(bbam=BBAM(steps=3))
    methods = {one.name: one.method for one in config.variants("methods")}
    assert methods == {name: getattr(config, name) for name in BOX_METHODS}
    assert methods["bbam"].steps == 3


@pytest.mark.parametrize("analysis", ANALYSES)
def test_no_two_variants_have_one_name(analysis):
    names = [one.name for one in AnalyseBoxesConfig().variants(analysis)]
    assert len(set(names)) == len(names) > 1


def test_the_refiner_of_noisy_boxes_is_the_one_that_is_named():
    config = AnalyseBoxesConfig(box_crf=BoxCRF(foreground=0.7))
    assert config.refiner() == BoxCRF(foreground=0.7)
    assert (
        AnalyseBoxesConfig(noise_refiner="box_threshold").refiner()
        == BOX_REFINERS["box_threshold"]()
    )


@pytest.mark.parametrize(
    "config",
    [
        MakeBoxMapsConfig(bbam=BBAM(region="windows"), boxes="predicted"),
        MakeBoxMasksConfig(proposal_refinement=ProposalRefinement(in_box=0.5)),
        AnalyseBoxesConfig(amounts=(-0.1, 0.0), analyses=("noise",)),
    ],
)
def test_a_job_survives_toml(tmp_path, config):
    (tmp_path / "job.toml").write_text(tomli_w.dumps(as_plain(config)))
    given = read(str(tmp_path / "job.toml"))
    assert update(type(config)(), given, "job.toml") == config
