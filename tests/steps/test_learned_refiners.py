"""Refiners that work on a network: what a run puts in front, and which seeds they take."""

import re
from dataclasses import fields, replace
from pathlib import Path

import pytest

from rayseg.config import DoctorConfig, RefineSeedsConfig, RunConfig
from rayseg.plain import PlainEngine
from rayseg.records.palette import decode_labels
from rayseg.steps.estimate import calibrate
from rayseg.steps.masks import refine_seeds
from rayseg.steps.recipe import recipe, run
from rayseg.steps.seeds import make_seeds
from rayseg.steps.training import train
from rayseg.store import Folder, read_rows, read_run
from tests.steps.learned import refining

ENGINE = PlainEngine()
REFINED = ("cam+irnet", "cam+psa", "cam+label_crf")


def test_a_run_makes_labels_and_networks_before_the_masks():
    config = RunConfig(methods=("cam", "advcam"), refiners=("irnet", "psa", "label_crf"))
    parts = [
        (part.kind, part.names, part.shown)
        for part in recipe(config, judged=True)
        if part.kind in ("irnet", "affinity", "masks")
    ]
    crf, labels = (
        tuple(f"{method}+{refiner}" for method in config.methods)
        for refiner in ("label_crf", "affinity_labels")
    )
    masks = tuple(name for name in config.mask_names() if name not in crf)
    assert parts == [
        ("masks", crf, False), ("irnet", crf, True),
        ("masks", labels, True), ("affinity", labels, True),
        ("masks", masks, True),
    ]  # fmt: skip


def test_each_network_is_trained_on_its_own_refiners_masks(learned):
    config, outcome = learned
    folder = Folder(config.run)
    assert sorted((folder / "masks").folders()) == sorted([*REFINED, "cam+affinity_labels"])
    for place in ("irnet/cam+label_crf", "affinity/cam+affinity_labels"):
        facts = read_run(folder / place)
        assert facts["done"]
        assert facts["images"] == 8
        assert facts["judged"][-1]["images"] == 2
        assert set(facts["config"]["labels"]) == {place.rpartition("+")[2], "seeds"}
    assert sum("masks cam+label_crf" in line for line in outcome.lines) == 1


def test_the_page_shows_how_the_networks_were_trained(learned):
    page = (Path(learned[0].run) / "report.html").read_text()
    assert "Training of IRNet and AffinityNet" in page
    assert "Loss and pairs of IRNet and AffinityNet by iteration" in page
    for name in ("cam+label_crf", "cam+affinity_labels"):
        assert re.search(rf"</b>{re.escape(name)}: 8 images", page), name


@pytest.mark.parametrize("name", REFINED[:2])
def test_every_pixel_of_every_image_has_a_label(learned, name):
    folder = Folder(learned[0].run)
    rows = list(read_rows(folder / "masks" / name))
    assert [row["status"] for row in rows] == ["ok"] * 8
    tags = {row["id"]: row["classes"] for row in read_rows(folder / "seeds" / "cam")}
    seen = set()
    for row in rows:
        labels = decode_labels(row["labels"])
        assert labels.shape == (72, 72)
        assert set(labels.flat) <= {0, *(1 + number for number in tags[row["id"]])}
        seen |= set(labels.flat)
    assert len(seen) > 1


def test_a_second_start_repeats_nothing(learned):
    config, outcome = learned
    before = {name: read_run(Folder(config.run) / "masks" / name)["seconds"] for name in REFINED}
    assert run(config, ENGINE).lines == outcome.lines
    after = {name: read_run(Folder(config.run) / "masks" / name)["seconds"] for name in REFINED}
    assert after == before


def test_each_method_walks_with_its_own_values():
    config = RefineSeedsConfig(methods=("cam", "advcam"), refiners=("irnet",))
    assert config.refiner("irnet", "advcam").cam_power == 1.5
    assert config.refiner("irnet", "rib").background_threshold == 0.27
    assert config.refiner("irnet", "advcam+rib").cam_power == 1.5
    assert config.refiner("irnet", "cam").cam_power == 1.0
    with pytest.raises(ValueError, match=r"set walks\.<method> in place of irnet's own"):
        replace(config, irnet=replace(config.irnet, cam_power=2.0))


def test_a_missing_network_is_named_with_the_command_that_trains_it(learned_copy):
    (Folder(learned_copy.run) / "irnet").remove()
    with pytest.raises(
        FileNotFoundError, match=r"`rayseg train-irnet --run \S+ --labels cam\+label_crf`"
    ):
        refine_seeds(refining(learned_copy), ENGINE)


def test_seeds_of_another_classifier_are_refused(learned_copy):
    again = replace(learned_copy, classifier=replace(learned_copy.classifier, seed=1))
    (Folder(learned_copy.run) / "classifier").remove()
    (Folder(learned_copy.run) / "masks" / "cam+irnet").remove()
    train("classifier", again, ENGINE)
    remade = replace(again, compute=replace(again.compute, remake_stale=True))
    make_seeds(remade, ENGINE)
    with pytest.raises(ValueError, match=r"irnet/cam\+label_crf was trained on masks from other s"):
        refine_seeds(refining(learned_copy), ENGINE)


def test_seeds_of_another_split_are_refused(learned_copy):
    make_seeds(replace(learned_copy, split="val"), ENGINE)
    with pytest.raises(ValueError, match=r"was trained on split 'train', and .* holds 3 images of"):
        refine_seeds(refining(learned_copy), ENGINE)


def test_masks_follow_from_the_network(learned_copy):
    """Another training into the same folder makes its masks stale."""
    (Folder(learned_copy.run) / "irnet").remove()
    other = replace(learned_copy.irnet_network, seed=1)
    train("irnet", replace(learned_copy, irnet_network=other, labels=("cam+label_crf",)), ENGINE)
    with pytest.raises(ValueError, match=r"cam.irnet.*weights"):
        refine_seeds(refining(learned_copy), ENGINE)


def test_an_estimate_measures_labels_networks_and_masks_once(learned):
    config = DoctorConfig(
        **{one.name: getattr(learned[0], one.name) for one in fields(RunConfig)}
        | {"estimate": True, "calibrate_images": 4, "calibrate_steps": 2}
    )
    measured = [one.name for one in calibrate(config, ENGINE)]
    assert measured == [
        "classifier", "seeds/cam",
        "masks/cam+label_crf", "irnet/cam+label_crf",
        "masks/cam+affinity_labels", "affinity/cam+affinity_labels",
        "masks/cam+irnet", "masks/cam+psa", "scores",
    ]  # fmt: skip
