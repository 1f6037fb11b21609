"""Sweeps of walks: trials on the run's network, some of whose settings are read off one walk."""

from dataclasses import replace

import pytest

from rayseg.config import Compute, TuneConfig, read_toml
from rayseg.plain import PlainEngine
from rayseg.records.palette import decode_labels
from rayseg.scores import Confusion
from rayseg.steps.masks import refine_seeds
from rayseg.steps.spaces import load_space
from rayseg.steps.sweep import write_sweep
from rayseg.steps.trials import Plan, run_trial
from rayseg.store import Folder, read_rows, read_run
from tests.steps.learned import refining

ENGINE = PlainEngine()
ALONE = Compute(actors=0, threads=1, num_gpus=0)
READ = ("log_steps=2,6", "background_threshold=0.0,0.99")


def test_trials_of_a_sweep_walk_on_the_runs_network(learned):
    settings = {"run": learned[0].run, "seeds_of": "cam", "engine": "plain", "space": "irnet"}
    plan = Plan.of(TuneConfig(**settings), load_space("irnet").narrowed(READ))
    assert plan.identity(plan.choose())["weights"]
    images = [plan.image(row) for row in plan.choose()]
    trial = plan.trial({"beta": 8.0})
    counts = sum(trial.count(image) for image in images)
    assert counts.shape[0] == 4
    assert counts[0].sum() == counts[1].sum()
    assert (counts[0] != counts[1]).any()
    read = [(one["log_steps"], one["background_threshold"]) for one in trial.figures(counts)]
    assert read == [(2, 0.0), (2, 0.99), (6, 0.0), (6, 0.99)]


def swept(run, name, report, beta=8.0):
    """A trial of a sweep as Ray would run it, with slices of three images."""
    settings = {"run": run, "seeds_of": "cam", "space": name, "compute": ALONE}
    given = [one for one in READ if name == "irnet" or one.startswith("log_steps")]
    plan = Plan.of(TuneConfig(**settings), load_space(name).narrowed(given))
    rows = plan.choose()
    slices = [rows[start : start + 3] for start in range(0, len(rows), 3)]
    run_trial({"beta": beta}, plan, slices, {}, plan.folder, plan.image, report)
    return plan


@pytest.mark.parametrize(("name", "settings"), [("irnet", 4), ("psa", 2)])
def test_what_a_sweep_of_walks_found_best_is_what_its_file_makes(learned_copy, name, settings):
    seen = []

    def die(told):
        seen.append(told["images"])
        if told["images"] == 6:
            raise SystemExit

    with pytest.raises(SystemExit):
        swept(learned_copy.run, name, die)
    counted = []
    plan = swept(learned_copy.run, name, lambda told: counted.append(told["images"]))
    assert seen == [3, 6]
    assert counted == [3, 6, 8]  # those of before are told again
    swept(learned_copy.run, name, lambda told: None, beta=14.0)
    outcome = write_sweep(plan, plan.folder, {})
    facts = read_run(plan.folder)
    assert (facts["trajectories"], facts["settings"]) == (2, 2 * settings)
    assert outcome.lines[0].count("background_threshold") == (name == "irnet")
    alone = refining(learned_copy, refiners=(name,), compute=ALONE)
    best = read_toml(plan.folder.path("best.toml"), alone)
    assert best.refiner(name, "cam").log_steps == facts["best"]["log_steps"]
    (Folder(learned_copy.run) / "masks" / f"cam+{name}").remove()
    refine_seeds(best, ENGINE)
    total = Confusion.zeros(len(plan.classes)).counts
    for row in read_rows(Folder(learned_copy.run) / "masks" / f"cam+{name}"):
        labels = decode_labels(row["labels"])
        total = total + Confusion.of(plan.truths.of(row), labels, len(plan.classes)).counts
    assert Confusion(total).mean_iou() == facts["best"]["miou"]


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ("log_steps=4,99", "log_steps must lie from 0 to 14"),
        ("log_steps=2.5", "log_steps must be int"),
        ("background_threshold=2", r"background_threshold lie in \[0, 1\]"),
    ],
)
def test_a_sweep_of_walks_refuses_what_none_can_have(learned, grid, message):
    config = TuneConfig(run=learned[0].run, seeds_of="cam", space="irnet")
    with pytest.raises(ValueError, match=message):
        Plan.of(config, load_space("irnet").narrowed([grid]))


def test_a_sweep_of_walks_follows_from_no_value_that_it_reads_off(learned):
    found = []
    for log_steps in (3, 6):
        config = TuneConfig(run=learned[0].run, seeds_of="cam", space="psa")
        plan = Plan.of(
            replace(config, psa=replace(config.psa, log_steps=log_steps)), load_space("psa")
        )
        found.append(plan.identity([]))
        assert plan.known["log_steps"] == log_steps
    assert found[0] == found[1]
