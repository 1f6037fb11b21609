"""Configurations: TOML in, JSON out, every part reachable, every mistake said in one line."""

import json
import pickle
import re
from dataclasses import fields, replace
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

from rayseg.attribution import BOX_METHODS, COMBINATIONS, METHODS, RIB, AdvCAM, OnRIB
from rayseg.config import (
    TRAIN_CONFIGS,
    AnalyseBoxesConfig,
    Compute,
    ExportConfig,
    MakeBoxMapsConfig,
    MakeBoxMasksConfig,
    MakeSeedsConfig,
    PredictConfig,
    PredictInstancesConfig,
    PrepareConfig,
    RefineSeedsConfig,
    RunConfig,
    ScoreConfig,
    as_plain,
    as_toml,
    as_written,
    identity_of,
    read_toml,
)
from rayseg.config.preset import FOLDER, with_presets
from rayseg.datasets import DATASETS
from rayseg.learn import (
    TRAININGS,
    ClassifierTraining,
    DSRGTraining,
    FickleNetTraining,
    SegmenterTraining,
)
from rayseg.nets.backbones import TRUNKS
from rayseg.nets.deeplab import HEADS
from rayseg.nets.trunks import STAGES, STRIDES
from rayseg.refine import REFINERS
from rayseg.refine.affinity_labels import AffinityLabels
from rayseg.refine.learned_walks import PSARefinement
from rayseg.toml import hint, update

JOBS = [
    PrepareConfig,
    TRAIN_CONFIGS["classifier"],
    TRAIN_CONFIGS["ficklenet"],
    TRAIN_CONFIGS["seam"],
    MakeSeedsConfig,
    RefineSeedsConfig,
    TRAIN_CONFIGS["segmenter"],
    TRAIN_CONFIGS["dsrg"],
    PredictConfig,
    TRAIN_CONFIGS["detector"],
    MakeBoxMapsConfig,
    MakeBoxMasksConfig,
    TRAIN_CONFIGS["mask_rcnn"],
    PredictInstancesConfig,
    ScoreConfig,
]
ALONE = [ExportConfig, AnalyseBoxesConfig]
"""Jobs that are no part of a run."""


def toml(tmp_path, text):
    path = tmp_path / "run.toml"
    path.write_text(text)
    return str(path)


# Parts


@pytest.mark.parametrize(
    ("kind", "parts"),
    [(MakeSeedsConfig, METHODS), (RefineSeedsConfig, REFINERS), (PrepareConfig, DATASETS)],
)
def test_every_entry_of_a_list_is_a_field_with_its_own_defaults(kind, parts):
    config = kind()
    assert {name: getattr(config, name) for name in parts} == {
        name: part() for name, part in parts.items()
    }


@pytest.mark.parametrize("kind", JOBS)
def test_a_run_has_every_key_of_every_job_with_the_same_default(kind):
    run = RunConfig()
    for part in fields(kind):
        assert getattr(run, part.name) == getattr(kind(), part.name), part.name


@pytest.mark.parametrize("kind", [*JOBS, RunConfig, *ALONE])
def test_a_configuration_travels_to_an_actor(kind):
    assert pickle.loads(pickle.dumps(kind())) == kind()


@pytest.mark.parametrize("kind", [*JOBS, RunConfig, *ALONE])
def test_a_configuration_is_plain_json(kind):
    plain = as_plain(kind())
    assert json.loads(json.dumps(plain)) == plain


def test_what_is_new_is_compared_only_where_it_is_not_at_its_default():
    """Folders of earlier versions lack it, and are what the default makes."""
    old, new = ClassifierTraining(), ClassifierTraining(precision="bf16", judge_images=7)
    identity = identity_of(TRAIN_CONFIGS["classifier"](classifier=old))["classifier"]
    assert identity.keys() == {
        "trunk", "stride", "weights", "batch_norm", "freeze", "epochs", "batch_size", "crops",
        "schedule", "seed",
    }  # fmt: skip
    assert identity_of(new) == identity | {"precision": "bf16", "judge_images": 7}


@pytest.mark.parametrize("kind", [one for one in TRAININGS if TRAININGS[one].learns_from != "tags"])
def test_what_is_not_new_is_compared_whole(kind):
    one = TRAININGS[kind]()
    new = ("least_steps", "most_steps")
    plain = {name: value for name, value in as_plain(one).items() if name not in new}
    plain["schedule"].pop("rule", None)
    assert identity_of(one) == plain | ({"iterations": 30_000} if kind == "segmenter" else {})


def test_what_fits_itself_to_the_data_is_compared_as_what_stood_there_before():
    assert identity_of(ClassifierTraining())["epochs"] == 5
    assert identity_of(ClassifierTraining(epochs=7))["epochs"] == 7
    assert identity_of(ClassifierTraining(least_steps=30))["least_steps"] == 30


@pytest.mark.parametrize("kind", [*JOBS, RunConfig])
@pytest.mark.parametrize("name", ["laptop", "gpu"])
def test_a_preset_for_a_machine_is_read_by_every_job(name, kind):
    assert with_presets(kind(), [name]).compute.device == {"laptop": "cpu", "gpu": "cuda"}[name]


def test_presets_of_methods_and_of_machines_can_be_combined():
    both = with_presets(RunConfig(), ["laptop", "as_written"])
    assert both == with_presets(RunConfig(), ["as_written", "laptop"])
    assert (both.classifier.trunk, both.advcam.num_steps) == ("mobilenet_v2", 6)
    assert both.advcam.step_size == AdvCAM.as_written().step_size != AdvCAM().step_size
    assert with_presets(RunConfig(), ["official"]) == RunConfig()
    with pytest.raises(ValueError, match=r"one of official, as_written, laptop, gpu, .*got 'lap'"):
        with_presets(RunConfig(), ["lap"])


def test_a_configuration_goes_through_json_and_back():
    config = replace(RunConfig(), split="val", advcam=AdvCAM(scales=(1.0,), num_steps=3))
    plain = as_plain(config)
    assert update(RunConfig(), json.loads(json.dumps(plain)), "json") == config


def test_as_written_reaches_every_method():
    for kind, parts in ((MakeSeedsConfig, METHODS), (MakeBoxMapsConfig, BOX_METHODS)):
        config = as_written(kind())
        assert all(getattr(config, name) == part.as_written() for name, part in parts.items())


def test_a_combination_is_made_of_its_methods_settings():
    config = MakeSeedsConfig(advcam=AdvCAM(num_steps=3), rib=RIB(num_steps=2))
    assert config.method("advcam+rib") == OnRIB(AdvCAM(num_steps=3), RIB(num_steps=2))
    assert config.parts("advcam+rib") == {"advcam": config.advcam, "rib": config.rib}
    assert config.parts("cam") == {"cam": config.cam}


def test_an_unknown_method_is_told_all_methods_and_combinations():
    with pytest.raises(ValueError, match="methods must be of ") as caught:
        MakeSeedsConfig(methods=("advcam+rip",))
    said = ", ".join([*METHODS, *COMBINATIONS])
    assert f"of {said}, got 'advcam+rip'; did you mean 'advcam+rib'?" in str(caught.value)


@pytest.mark.parametrize("name", ["rib+advcam", "cam+label_crf", "+", ""])
def test_what_is_no_combination_is_refused(name):
    for kind in (MakeSeedsConfig, RefineSeedsConfig):
        with pytest.raises(ValueError, match=re.escape(f", got {name!r}")):
            kind(methods=(name,))


def test_methods_say_which_networks_they_need():
    assert MakeSeedsConfig(methods=("advcam+rib", "cam")).network_kinds == {"classifier"}
    both = MakeSeedsConfig(methods=("ficklenet", "cam"))
    assert both.network_kinds == {"classifier", "ficklenet"}
    refined = MakeSeedsConfig(methods=("seam", "advcam_seam"), seam_weights="a.safetensors")
    assert refined.network_kinds == {"seam"}
    assert refined.given_weights["seam"] == "a.safetensors"


def test_every_method_and_combination_has_thresholds():
    config = RefineSeedsConfig(methods=(*METHODS, *COMBINATIONS))
    names = {name.replace("+", "_") for name in config.methods}
    assert {part.name for part in fields(config.thresholds)} == names
    for name in config.methods:
        assert config.refiner("label_crf", name).fg_threshold > 0


def test_a_combination_has_thresholds_of_its_own_that_begin_as_its_first_methods():
    """METHODS 2 for AdvCAM; of the pair the text names none."""
    config = update(RefineSeedsConfig(), {"thresholds": {"advcam": [0.4, 0.1]}}, "here")
    for name, foreground in (("advcam", 0.4), ("advcam+rib", 0.35)):
        assert config.refiner("label_crf", name).fg_threshold == foreground
    config = update(RefineSeedsConfig(), {"thresholds": {"advcam_rib": [0.6, 0.2]}}, "here")
    assert config.refiner("label_crf", "advcam+rib").bg_threshold == 0.2
    assert config.refiner("threshold", "advcam+rib").threshold == 0.6


def test_masks_of_a_combination_are_named_after_it():
    config = RunConfig(methods=("advcam+rib",), refiners=("label_crf",))
    assert config.mask_names() == ["advcam+rib+label_crf"]


def test_settings_of_companions_and_of_ficklenet_are_read(tmp_path):
    path = toml(
        tmp_path, "[companions]\nimages = 20\ncrops.crop = 64\n[ficklenet_classifier]\nkernel = 5\n"
    )
    config = read_toml(path, RunConfig())
    assert (config.companions.images, config.companions.crops.crop) == (20, 64)
    assert config.ficklenet_classifier == FickleNetTraining(kernel=5)


def test_thresholds_reach_the_refiner_of_their_method():
    config = update(RefineSeedsConfig(), {"thresholds": {"cam": [0.4, 0.1]}}, "here")
    assert config.refiner("label_crf", "cam").fg_threshold == 0.4
    assert config.refiner("label_crf", "cam").bg_threshold == 0.1
    assert config.refiner("threshold", "cam").threshold == 0.4
    assert config.refiner("label_crf", "advcam") == RefineSeedsConfig().refiner(
        "label_crf", "advcam"
    )


def test_a_refiners_own_threshold_would_be_overridden_and_is_refused():
    with pytest.raises(ValueError, match=r"set thresholds.<method> in place of label_crf's own"):
        update(RefineSeedsConfig(), {"label_crf": {"fg_threshold": 0.5}}, "here")


# TOML


def test_toml_sets_nested_values_and_leaves_the_rest(tmp_path):
    path = toml(tmp_path, 'methods = ["advcam"]\n[advcam]\nnum_steps = 5\nscales = [1, 0.5]\n')
    config = read_toml(path, MakeSeedsConfig())
    assert config.methods == ("advcam",)
    assert config.advcam == AdvCAM(num_steps=5, scales=(1, 0.5))
    assert config.cam == MakeSeedsConfig().cam


def test_keys_of_other_jobs_are_passed_over(tmp_path):
    path = toml(tmp_path, 'over = ["cat"]\n[cam]\nflip = false\n')
    assert read_toml(path, MakeSeedsConfig()).cam.flip is False
    assert read_toml(path, ScoreConfig()).over == ("cat",)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("metods = []", "unknown key 'metods'; did you mean 'methods'?"),
        ("[advcam]\nnum_step = 3", "unknown key 'advcam.num_step'; did you mean 'num_steps'?"),
        ("[compute]\nzzz = 3", "unknown key 'compute.zzz'"),
        ("[classifier.crops]\ncrp = 3", "unknown key 'classifier.crops.crp'; did you mean 'crop'?"),
        ("[advcam]\nnum_steps = 'x'", "advcam.num_steps must be int such as 27, got 'x'"),
        ("[advcam]\nflip = 1", "advcam.flip must be bool such as True, got 1"),
        ("[advcam]\nflip = 'yes'", "advcam.flip must be bool such as True, got 'yes'"),
        ("advcam = 3", "advcam must be a table, got 3"),
        (
            "[classifier]\nbatch_norm = 'frosen'",
            "classifier.batch_norm must be one of auto, frozen, trained, got 'frosen'; "
            "did you mean 'frozen'?",
        ),
        ("[classifier]\ntrunk = 'resnet51'", "got 'resnet51'; did you mean 'resnet50'?"),
        ("[classifier]\nstride = 12", "classifier.stride must be one of 8, 16, 32, got 12"),
        ("[classifier]\nstride = 16.0", "classifier.stride must be one of 8, 16, 32, got 16.0"),
        ("[classifier]\nepochs = 2.5", "classifier.epochs must be int such as 0, got 2.5"),
        ("[classifier]\nepochs = true", "classifier.epochs must be int such as 0, got True"),
        ("[classifier.schedule]\nlr = false", "schedule.lr must be float such as 0.1, got False"),
        (
            "[classifier.crops]\nlong_side = [112]",
            "classifier.crops.long_side must be [int, int] such as [320, 640], got [112]",
        ),
        ("[classifier.crops]\nlong_side = [1, 2, 3]", "[int, int] such as [320, 640], got [1, 2"),
        ("[classifier.crops]\nlong_side = [112, 0.5]", "[int, int] such as [320, 640], got [112"),
        ("[thresholds]\ncam = [0.3]", "thresholds.cam must be [float, float] such as ["),
        ("[thresholds]\ncam = 0.3", "thresholds.cam must be [float, float] such as ["),
        ("[cam]\nscales = ['a']", "cam.scales must be [float, ...] such as ["),
        ("[cam]\nscales = [true]", "cam.scales must be [float, ...] such as ["),
        ("[cam]\nscales = 1.0", "cam.scales must be [float, ...] such as ["),
        ("[folder]\nclass_names = [1]", "folder.class_names must be [str, ...], got [1]"),
        ("[folder]\nimages = 3", "folder.images must be str such as 'images', got 3"),
        ("[folder]\nmasks = 3", "folder.masks must be str, got 3"),
        ("[voc]\ntags_from = 'annotation'", "did you mean 'annotations'?"),
        ("[classifier]\nepochs = -1", "run.toml [classifier]: epochs must be 0 or more, got -1"),
        ("split = ['a']", "split must be str such as 'train', got ['a']"),
        ("[advcam]\nnum_steps = -1", "num_steps must be 0 or more, got -1"),
        ("methods = ['advcan']", "got 'advcan'; did you mean 'advcam'?"),
        ("[companions]\nimages = 0", "run.toml [companions]: images must be 1 or more, got 0"),
        ("[rib]\nmargin_role = 'lost'", "got 'lost'; did you mean 'loss'?"),
        ("[compute]\nblock_rows = 0", "compute.block_rows must be 1 or more, got 0"),
        ("split = ", "is no TOML"),
    ],
)
def test_a_mistake_in_a_file_is_one_line_that_names_it(tmp_path, text, said):
    path = toml(tmp_path, text)
    with pytest.raises(ValueError, match=r"run.toml") as caught:
        read_toml(path, RunConfig())
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named():
    with pytest.raises(FileNotFoundError, match=r"configuration file nowhere.toml does not exist"):
        read_toml("nowhere.toml", RunConfig())


def test_update_takes_whole_numbers_for_fractions_and_strings_for_paths():
    config = update(PrepareConfig(), {"folder": {"images": "a/b"}, "synthetic": {"count": 3}}, "x")
    assert config.folder.images == Path("a/b")
    assert type(update(Compute(), {"num_gpus": 1}, "x").num_gpus) is float


def test_a_path_that_is_none_by_default_is_a_path_when_given():
    config = update(PrepareConfig(), {"folder": {"masks": "true/masks"}}, "x")
    assert config.folder.masks == Path("true/masks")


@pytest.mark.parametrize("kind", [*JOBS, RunConfig, *ALONE])
def test_every_field_takes_its_own_default(kind):
    """No field is of a type that the reader does not know."""
    given = as_plain(kind())
    assert len(given) == len(fields(kind))
    assert update(kind(), given, "here") == kind()


def test_a_file_that_serves_all_jobs_may_hold_those_of_export(tmp_path):
    path = toml(tmp_path, 'out = "png"\nsplit = "val"\n[cam]\nflip = false\n')
    assert read_toml(path, ExportConfig()).out == "png"
    assert read_toml(path, RunConfig()).cam.flip is False


def test_a_file_that_is_not_text_is_named(tmp_path):
    (tmp_path / "run.toml").write_bytes(b"split = '\xff'")
    with pytest.raises(ValueError, match=r"run.toml is no TOML"):
        read_toml(str(tmp_path / "run.toml"), RunConfig())


def test_a_file_with_a_byte_order_mark_is_read(tmp_path):
    (tmp_path / "run.toml").write_text('split = "val"', encoding="utf-8-sig")
    assert read_toml(str(tmp_path / "run.toml"), RunConfig()).split == "val"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (
            {"trunk": "resnet51"},
            f"trunk must be one of {', '.join(TRUNKS)}, got 'resnet51'; did you mean 'resnet50'?",
        ),
        ({"stride": 12}, "stride must be one of 8, 16, 32, got 12"),
        ({"batch_norm": "frosen"}, "got 'frosen'; did you mean 'frozen'?"),
        ({"freeze": "stage5"}, "freeze must be one of none, stem, stage1, "),
    ],
)
def test_a_classifier_that_cannot_be_is_refused_when_it_is_made(values, said):
    with pytest.raises(ValueError, match=r"must be one of") as caught:
        ClassifierTraining(**values)
    assert said in str(caught.value)


def test_the_choices_of_a_classifier_are_those_of_the_networks():
    kinds = get_type_hints(ClassifierTraining)
    assert get_args(kinds["trunk"]) == tuple(TRUNKS)
    assert get_args(kinds["stride"]) == STRIDES
    assert get_args(kinds["freeze"]) == ("none", *STAGES)


def test_a_hint_is_given_only_where_something_is_near():
    assert hint("advcan", METHODS) == "; did you mean 'advcam'?"
    assert hint("zzzzzz", METHODS) == ""


@pytest.mark.parametrize(
    ("kind", "stated"),
    [
        ("classifier", {}),
        ("ficklenet", {}),
        ("seam", {}),
        ("irnet", {}),
        ("affinity", {"distance": "sum"}),
        ("dsrg", {"seeds": "accumulate", "boundary": "seeds"}),
    ],
)
def test_as_written_changes_what_the_text_states_and_no_rate_or_momentum(kind, stated):
    training = TRAININGS[kind]
    assert training.as_written() == replace(training(), **stated)


def test_as_written_reaches_thresholds():
    config = as_written(RunConfig())
    assert config.thresholds.advcam == (0.30, 0.05)
    assert RunConfig().thresholds.advcam == (0.35, 0.15)
    alone = as_written(TRAIN_CONFIGS["dsrg"](thresholds=RunConfig().thresholds))
    assert alone.thresholds == config.thresholds


def test_a_configuration_comes_back_from_its_toml(tmp_path):
    config = replace(RunConfig(), over=("cat",), advcam=AdvCAM(num_steps=3))
    (tmp_path / "run.toml").write_text(as_toml(config))
    assert read_toml(str(tmp_path / "run.toml"), RunConfig()) == config


# Segmenters


def test_the_presets_of_a_segmenter_are_those_of_the_author_and_of_the_text():
    """METHODS 10: what the author used, and deeplab-pytorch's own settings."""
    official, written = SegmenterTraining(), SegmenterTraining.as_written()
    assert (official.loss, official.most_steps, official.accumulate) == ("balanced", 30_000, 1)
    assert official.fitted(10_582).iterations == 30_000
    assert (written.loss, written.iterations, written.accumulate) == ("cross_entropy", 20_000, 2)
    assert official.crops.scales == (0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0)
    assert written.crops.scales == (0.5, 0.75, 1.0, 1.25, 1.5)
    for one in (official, written):
        assert (one.network, one.trunk, one.stride, one.batch_size) == (
            "deeplab_v2", "resnet101", 8, 10,
        )  # fmt: skip
        assert (one.schedule.lr, one.crops.crop) == (2.5e-4, 321)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"network": "unet"}, "network must be one of deeplab_v2, deeplab_v2_fc, deeplab_v3, got"),
        ({"stride": 32}, "stride must be one of 8, 16, got 32"),
        ({"iterations": -1}, "iterations must be 0 or more, got -1"),
        ({"most_steps": 9}, "most_steps must be 2000 or more, got 9"),
        ({"judge_images": -1}, "judge_images must be 0 or more, got -1"),
        ({"input_scales": (0.5,)}, "input_scales must be positive and begin with 1, got (0.5,)"),
        ({"trunk": "wide_resnet38", "stride": 16}, "stride must be 8 for trunk wide_resnet38, got"),
        ({"accumulate": 3}, "batch_size must divide by accumulate, got 10, 3"),
    ],
)
def test_a_segmenter_that_cannot_be_is_refused_when_it_is_made(values, said):
    with pytest.raises(ValueError, match=f"^{re.escape(said)}"):
        SegmenterTraining(**values)


def test_the_choices_of_a_segmenter_are_those_of_the_networks():
    for training in (SegmenterTraining, DSRGTraining):
        kinds = get_type_hints(training)
        assert get_args(kinds["trunk"]) == tuple(TRUNKS)
        assert get_args(kinds["network"]) == HEADS


def test_the_presets_of_dsrg_are_the_code_and_the_text():
    """METHODS 8 and 11: seeds restart or accumulate, boundaries of all cells or of seeds."""
    official, written = DSRGTraining(), DSRGTraining.as_written()
    assert (official.seeds, official.boundary) == ("restart", "all")
    assert written == replace(official, seeds="accumulate", boundary="seeds")
    assert (official.network, official.trunk, official.stride) == ("deeplab_v2_fc", "vgg16", 8)
    assert (official.batch_size, official.iterations, official.head_width) == (20, 8000, 1024)
    assert (official.crops.side, official.crops.flip) == (321, True)
    rate = official.schedule
    assert (rate.lr, rate.drop_factor, rate.every) == (5e-4, 0.33, 1000)
    assert (rate.momentum, rate.weight_decay) == (0.9, 5e-4)
    crf = official.crf
    assert (crf.gaussian_sxy, crf.gaussian_compat, crf.iterations) == (3 / 12, 3, 10)
    assert (crf.bilateral_sxy, crf.bilateral_srgb, crf.bilateral_compat) == (80 / 12, 13, 10)
    assert (official.growing.sure_foreground, official.growing.sure_background) == (0.85, 0.99)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"cues": (0.1, 0.15)}, "cues must be two values that descend in [0, 1], got (0.1, 0.15)"),
        ({"cues": (0.3,)}, "cues must be two values that descend in [0, 1], got (0.3,)"),
        ({"seeds": "shrink"}, "seeds must be one of restart, accumulate, got 'shrink'"),
        ({"boundary": "edges"}, "boundary must be one of all, seeds, got 'edges'"),
        ({"head_width": 0}, "head_width must be 1 or more, got 0"),
    ],
)
def test_a_dsrg_that_cannot_be_is_refused_when_it_is_made(values, said):
    with pytest.raises(ValueError, match=f"^{re.escape(said)}"):
        DSRGTraining(**values)


@pytest.mark.parametrize("name", ["", "masks/cam", "../cam", ".hidden"])
def test_labels_are_names_of_folders(name):
    with pytest.raises(ValueError, match=r"^labels must be a plain name "):
        TRAIN_CONFIGS["segmenter"](labels=(name,))


def test_files_are_held_against_each_other_and_not_against_the_defaults(tmp_path):
    (tmp_path / "one.toml").write_text("[segmenter]\nbatch_size = 8\n")
    (tmp_path / "two.toml").write_text("[segmenter]\naccumulate = 4\n")
    config = RunConfig()
    for name in ("one.toml", "two.toml"):
        config = read_toml(str(tmp_path / name), config)
    assert (config.segmenter.batch_size, config.segmenter.accumulate) == (8, 4)


@pytest.mark.parametrize("value", [-0.1, 1.0])
def test_min_probability_is_a_share(value):
    with pytest.raises(ValueError, match=r"^min_probability must lie in \[0, 1\), got "):
        PredictConfig(min_probability=value)


def test_a_run_ends_with_seeds_masks_or_segmenters():
    with pytest.raises(
        ValueError, match=r"^until must be one of seeds, masks, segmenters, got 'm'"
    ):
        RunConfig(until="m")


@pytest.mark.parametrize(
    ("name", "preset"),
    [
        ("deeplab_v2_authors", SegmenterTraining(iterations=30_000)),
        ("deeplab_v2_public", SegmenterTraining.as_written()),
    ],
)
def test_the_shipped_presets_are_the_two_presets(name, preset):
    path = FOLDER / f"{name}.toml"
    other = replace(RunConfig(), segmenter=SegmenterTraining(iterations=7, loss="cross_entropy"))
    read = read_toml(str(path), other)
    assert read.crf
    assert read.segmenter == preset


def test_the_shipped_preset_of_rib_for_coco_is_the_public_codes():
    path = FOLDER / "rib_coco.toml"
    assert read_toml(str(path), RunConfig()).rib == RIB.coco()


def test_the_shipped_preset_of_seam_is_its_public_code():
    """METHODS 2: SEAM's constants of PSA beside its own, which are the defaults."""
    path = FOLDER / "seam.toml"
    config, plain = read_toml(str(path), RunConfig()), RunConfig()
    assert (config.methods, config.refiners) == (("seam",), ("psa",))
    assert config.psa == PSARefinement.official("seam")
    assert config.affinity_labels == AffinityLabels.official("seam")
    network, own = config.affinity_network, plain.affinity_network
    schedule = replace(own.schedule, lr=0.01)
    assert network == replace(own, trunk="wide_resnet38", schedule=schedule)
    assert config.seam_classifier == plain.seam_classifier
