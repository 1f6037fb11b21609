"""Sweeps: one trajectory serves all its steps, nothing stored is counted again."""

import contextlib
import json
import os
import subprocess
import sys
import time
import tomllib
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from rayseg.attribution import AdvCAM
from rayseg.config import Compute, MakeSeedsConfig, ScoreConfig, TuneConfig, read_toml
from rayseg.nets.classifier import CamClassifier
from rayseg.nets.weights import to_safetensors
from rayseg.on_ray.engine import RayEngine
from rayseg.on_ray.session import session
from rayseg.on_ray.tune import load_images, tune
from rayseg.plain import PlainEngine
from rayseg.records import Sample
from rayseg.records.palette import encode_labels
from rayseg.refine import BoxCRF
from rayseg.steps.score import score
from rayseg.steps.seeds import make_seeds
from rayseg.steps.spaces import Space, load_space
from rayseg.steps.sweep import _toml, choose_best
from rayseg.steps.trials import Plan, mark_stopped, run_trial, stored_trials
from rayseg.store import Folder, read_run, write_manifest
from tests.on_ray.fakes import WaitingAdvCAM, done_trials

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("cluster")]
ROOT = Path(__file__).resolve().parents[2]
CLASSES = ("cat", "dog")
ENGINE = RayEngine()
ADVCAM = AdvCAM(scales=(1.0,), precision="fp32")
COMPUTE = Compute(actors=2, threads=1, num_gpus=0)
GRID = ("restrict_weight=0,7", "restrict_threshold=0.3", "num_steps=1,2,3")


@pytest.fixture
def run(tmp_path):
    """Seven images with true masks, one of which is no image; a classifier."""
    rng, samples = np.random.default_rng(0), []
    for n in range(7):
        labels = np.zeros((32, 48), np.uint8)
        labels[8:24, 8 : 20 + n] = n % 2 + 1
        pixels = rng.integers(0, 90, (32, 48, 3), np.uint8) + 60 * labels[..., None]
        image, mask = tmp_path / f"i{n}.png", tmp_path / f"m{n}.png"
        Image.fromarray(pixels.astype(np.uint8)).save(image)
        mask.write_bytes(encode_labels(labels))
        if n == 3:
            image.write_bytes(b"no image")
        none = np.zeros((0, 4), np.float32), np.zeros(0, np.int64)
        samples.append(
            Sample(f"i{n}", str(image), 32, 48, (n % 2,), *none, split="train", mask_path=str(mask))
        )
    write_manifest(Folder(str(tmp_path / "manifest")), samples, CLASSES)
    torch.manual_seed(0)
    facts = {"trunk": "resnet18", "stride": 16, "classes": list(CLASSES)}
    data = to_safetensors(CamClassifier("resnet18", 2), facts)
    Folder(str(tmp_path / "classifier")).write("classifier.safetensors", data)
    return tmp_path


def config(run, **changed):
    given = {
        "run": os.path.relpath(run), "space": "advcam", "advcam": ADVCAM, "grid": GRID,
        "slice_images": 2, "compute": COMPUTE,
    }  # fmt: skip
    return TuneConfig(**given | changed)


def stored(run, space="advcam"):
    """Bytes of each trial's file, by name."""
    found = (run / "tuning" / space / "trials").glob("*.npz")
    return {path.name: path.read_bytes() for path in found}


def sweep_that_waits(run):
    """Begins the sweep, and goes on with no image once a trial has counted all of them."""
    os.environ["WAITING_SWEEP"] = run
    waiting = WaitingAdvCAM(scales=ADVCAM.scales, precision=ADVCAM.precision)
    with session():
        tune(config(run, advcam=waiting, compute=replace(COMPUTE, actors=1)), ENGINE)


def kill_after_the_first(run):
    """Starts the sweep in a process of its own, which dies after a trial; gives what is done."""
    code = f"from {__name__} import sweep_that_waits; sweep_that_waits({str(run)!r})"
    environment = {name: text for name, text in os.environ.items() if name != "RAY_ADDRESS"}
    with (run / "said").open("wb") as said:
        process = subprocess.Popen(
            [sys.executable, "-c", code], cwd=ROOT, env=environment, stderr=said
        )
    while not (done := done_trials(run)):
        assert process.poll() is None, (run / "said").read_text()[-2000:]
        time.sleep(0.05)
    process.kill()
    process.wait()
    return done


def test_a_sweep_scores_triples_from_pairs_and_repeats_nothing(run):
    killed = kill_after_the_first(run)
    assert len(killed) == 1
    with pytest.raises(ValueError, match="trials was made under another configuration"):
        tune(config(run, slice_images=3), ENGINE)  # else it would go on from counts of other slices
    outcome = tune(config(run), ENGINE)
    assert killed.items() <= done_trials(run).items()
    assert outcome.left_out == 1
    assert any("left out: 1 images, such as i3" in line for line in outcome.lines)
    facts = read_run(Folder(str(run / "tuning/advcam")))
    assert (facts["trajectories"], facts["settings"], facts["images"]) == (2, 6, 6)
    best = facts["best"]
    before = stored(run)
    assert tune(config(run), ENGINE).lines == outcome.lines
    assert stored(run) == before  # not even the seconds were counted again
    for changed in (
        {"max_images": 3},
        {"advcam": replace(ADVCAM, flip=False)},
        {"grid": (*GRID[:2], "num_steps=3")},
    ):
        with pytest.raises(ValueError, match="tuning/advcam"):
            tune(config(run, **changed), ENGINE)
    # other values join, also of what only flags say
    tune(config(run, grid=("restrict_weight=7.0,9", *GRID[1:])), ENGINE)
    assert len(stored(run)) == 3
    other = replace(ADVCAM, step_size=0.3)
    tune(
        config(run, advcam=other, grid=("restrict_weight=0", "restrict_threshold=0.3", GRID[2])),
        ENGINE,
    )
    after = stored(run)
    assert len(after) == 4
    assert before.items() <= after.items()
    # the file is one that the jobs take, and the maps that it makes score as the sweep says
    toml = run / "tuning/advcam/best.toml"
    alone = replace(COMPUTE, actors=0)
    made = read_toml(str(toml), MakeSeedsConfig(run=str(run), methods=("advcam",), compute=alone))
    assert made.advcam.num_steps in (1, 2, 3)
    make_seeds(made, PlainEngine())
    score(ScoreConfig(run=str(run), compute=alone), PlainEngine())
    scored = json.loads((run / "scores.json").read_text())["seeds/advcam"]
    now = read_run(Folder(str(run / "tuning/advcam")))["best"]
    assert now["miou"] >= best["miou"]
    assert scored["miou"] == pytest.approx(now["miou"], abs=0.02)  # maps are stored in 8 bits
    # a refiner is tuned on these maps
    tune(config(run, space="label_crf", grid=("fg_threshold=0.3,0.5",)), ENGINE)
    told = tomllib.loads((run / "tuning/advcam+label_crf/best.toml").read_text())
    assert told["thresholds"]["advcam"][0] in (0.3, 0.5)
    assert "fg_threshold" not in told["label_crf"]
    with Image.open(run / "tuning/advcam/sensitivity.png") as picture:
        assert picture.width > 600
    header, first = (run / "tuning/advcam/table.csv").read_text().splitlines()[:2]
    assert dict(zip(header.split(","), first.split(","), strict=True))["miou"] == str(now["miou"])


def test_searches_draw_what_they_drew_before_and_count_what_is_there(run):
    asked = config(run, search="random", samples=2, grid=("num_steps=1,2",), stop_early="asha")
    tune(asked, ENGINE)
    first = stored(run)
    assert len(first) == 2
    tune(asked, ENGINE)
    assert stored(run) == first
    tune(replace(asked, search="optuna", samples=3), ENGINE)
    assert len(stored(run)) == 3


@dataclass
class Numbered:
    """Stands in for an image."""

    id: str


@dataclass
class Counted:
    """Stands in for a trial: an image counts 1, the metric is the sum over ten."""

    counted: list[str]

    def zeros(self):
        return np.zeros(1, np.int64)

    def count(self, image):
        self.counted.append(image.id)
        return np.ones(1, np.int64)

    def figures(self, counts):
        return [{"miou": float(counts[0]) / 10}]


@dataclass
class Planned:
    """Stands in for a plan."""

    trial_: Counted
    config: TuneConfig
    space: Space = field(default_factory=lambda: load_space("advcam"))
    base: AdvCAM = ADVCAM

    def trial(self, setting):
        return self.trial_


def test_a_trial_that_a_search_has_ended_stays_ended_until_none_is(tmp_path):
    ended_at, reported = 2, []

    def report(told):
        reported.append(told["images"])
        if told["images"] == ended_at:
            raise SystemExit  # as Tune ends a trial

    slices = [[Numbered(f"{i}{j}") for j in range(2)] for i in range(3)]
    folder, setting = Folder(str(tmp_path)), {"restrict_weight": 3.0}
    asha, none = (TuneConfig(stop_early=how) for how in ("asha", "none"))

    def run(config):
        trial = Counted([])
        plan = Planned(trial, config)
        with contextlib.suppress(SystemExit):
            run_trial(setting, plan, slices, {}, folder, lambda image: image, report)
        mark_stopped(setting, plan, folder)
        return trial.counted

    assert run(asha) == ["00", "01"]
    (only,) = stored_trials(folder)
    assert (only["stopped"], only["done"], only["images"]) == (True, False, 2)
    ended_at = 99
    assert run(asha) == []
    assert run(none) == ["10", "11", "20", "21"]
    (only,) = stored_trials(folder)
    assert (only["stopped"], only["done"], only["images"]) == (False, True, 6)
    assert only["figures"] == [{"miou": 0.6}]
    assert run(asha) == []
    assert reported == [2, 2, 2, 4, 6, 2, 4, 6]


def test_a_trial_that_counts_no_pixel_is_an_error_and_no_worst_setting(tmp_path):
    class Ignored(Counted):
        def count(self, image):
            return self.zeros()

    plan, images = Planned(Ignored([]), TuneConfig()), [[Numbered("0")], [Numbered("1")]]
    reported = []
    with pytest.raises(ValueError, match=r"^no pixel of the images counts: "):
        run_trial(
            {"restrict_weight": 3.0}, plan, images, {}, Folder(str(tmp_path)), lambda one: one,
            reported.append,
        )  # fmt: skip
    assert len(reported) == 1  # images to come may count


def test_images_that_cannot_be_used_leave_no_empty_slice(run):
    plan = Plan.of(config(run, slice_images=1), load_space("advcam"))
    slices, left_out = load_images(plan, plan.choose())
    assert list(left_out) == ["i3"]
    assert [len(one) for one in slices] == [1] * 6


def test_a_plan_names_files_as_the_driver_does(run):
    weights = run / "classifier/classifier.safetensors"
    plan = Plan.of(config(run, weights=os.path.relpath(weights)), load_space("advcam"))
    for given, expected in ((plan.config.run, run), (plan.config.weights, weights)):
        assert Path(given).is_absolute()
        assert Path(given).samefile(expected)


@pytest.mark.parametrize(
    ("space", "changed", "values", "expected"),
    [
        ("threshold", {}, {"threshold": 0.3}, {"thresholds": {"advcam": [0.3, 0.15]}}),
        ("threshold", {}, {"threshold": 0.1}, {"thresholds": {"advcam": [0.1, 0.1]}}),
        (
            "label_crf",
            {"seeds_of": "advcam+rib"},
            {"fg_threshold": 0.5, "bg_threshold": 0.1},
            {"thresholds": {"advcam_rib": [0.5, 0.1]}},
        ),
        (
            "bbam",
            {"box_crf": BoxCRF(background=0.1)},
            {"sparsity": 0.01, "box_crf.foreground": 0.4},
            {"box_crf": {"background": 0.1, "foreground": 0.4}, "bbam": {"sparsity": 0.01}},
        ),
        ("rib", {}, {"num_steps": 4}, {"rib": {"num_steps": 4, "decay_steps": 10}}),
    ],
)
def test_the_best_setting_is_a_file_that_jobs_take(run, space, changed, values, expected):
    plan = Plan.of(config(run, space=space, grid=(), **changed), load_space(space))
    metric = plan.space.metric
    path = run / "best.toml"
    path.write_text(_toml(plan, values | {metric: 0.5}))
    told = read_toml(str(path), config(run))
    for part, fields in expected.items():
        for name, value in fields.items():
            found = getattr(getattr(told, part), name)
            assert (list(found) if isinstance(found, tuple) else found) == value


def test_equals_are_told_apart_by_what_was_asked_and_not_by_the_longest_run(run):
    plan = Plan.of(config(run, grid=("num_steps=10,27,30",)), load_space("advcam"))
    found = [{"num_steps": steps, "miou": 0.5} for steps in (10, 27, 30)]
    assert choose_best(found, plan.known, ["num_steps"], "miou")["num_steps"] == 27
    boxes = Plan.of(config(run, space="bbam", grid=()), load_space("bbam"))
    found = [{"box_crf.foreground": share, "miou": 0.5} for share in (0.3, 0.85)]
    assert choose_best(found, boxes.known, ["box_crf.foreground"], "miou") == found[1]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"sweep": "a/b"}, "sweep must be a plain name"),
        ({"space": "advcan"}, "did you mean 'advcam'"),
        ({"grid": ("restrict_weight='much'",)}, "restrict_weight must be float such as 7.0"),
        ({"grid": ("restrict_weight=1",), "search": "random"}, "random draws from the space's"),
        ({"grid": ("num_steps=0,5",)}, "num_steps must be 1 or more in a sweep, got 0"),
        ({"grid": ("num_steps=2.5",)}, "num_steps must be int"),
        ({"over": ("cow",)}, "over must name classes \\(cat, dog\\), got 'cow'"),
        ({"split": "val"}, "val"),
    ],
)
def test_what_cannot_be_tuned_is_refused_at_once(run, changed, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        tune(config(run, **changed), ENGINE)
    assert not Path(run / "tuning").exists()


def test_of_equals_the_setting_that_changes_least_is_best():
    base = {"weight": 7.0, "steps": 27}
    found = [
        {"weight": 0.0, "steps": 10, "miou": 0.5},
        {"weight": 7.0, "steps": 10, "miou": 0.5},
        {"weight": 7.0, "steps": 27, "miou": 0.4},
    ]
    assert choose_best(found, base, ["weight", "steps"], "miou") == found[1]
