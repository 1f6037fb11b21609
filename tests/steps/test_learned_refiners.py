"""Refiners that work on a network: what a run puts in front, and which seeds they take."""

import json
import re
import shutil
from dataclasses import fields, replace
from pathlib import Path

import pytest

from rayseg.attribution import CAM
from rayseg.config import (
    CheckConfig,
    Compute,
    DoctorConfig,
    ExportConfig,
    RefineSeedsConfig,
    RunConfig,
    ScoreConfig,
    TuneConfig,
    read_toml,
)
from rayseg.datasets import DATASETS
from rayseg.learn import (
    AffinityTraining,
    ClassifierTraining,
    Crops,
    IRNetTraining,
    PairCrops,
    PolySGD,
)
from rayseg.nets.classifier import load_classifier
from rayseg.nets.weights import read_facts, to_safetensors
from rayseg.plain import PlainEngine
from rayseg.records.palette import decode_labels
from rayseg.records.rle import mask_area
from rayseg.report import write_report
from rayseg.scores import Confusion
from rayseg.steps.check import check
from rayseg.steps.estimate import calibrate
from rayseg.steps.exporting import export
from rayseg.steps.labels import instance_labels, mask_labels
from rayseg.steps.masks import refine_seeds
from rayseg.steps.preparing import prepare
from rayseg.steps.recipe import recipe, run
from rayseg.steps.score import score
from rayseg.steps.seeds import make_seeds
from rayseg.steps.spaces import load_space
from rayseg.steps.sweep import write_sweep
from rayseg.steps.training import train
from rayseg.steps.trials import Plan, run_trial
from rayseg.store import (
    MASKS_SCHEMA,
    VIEW_STRIDES,
    WALKED_SCHEMA,
    Folder,
    kind_of,
    read_rows,
    read_run,
    read_shard,
    shard_columns,
    shard_names,
    sign_rows,
    unpack_grid,
    write_shard,
)

ENGINE = PlainEngine()
TINY = {
    "trunk": "mobilenet_v2", "weights": "none", "batch_size": 4, "precision": "fp32",
    "log_every": 1, "judge_images": 2,
}  # fmt: skip
PAIRS = TINY | {"iterations": 2, "radius": 3, "crops": PairCrops(64), "schedule": PolySGD(lr=0.01)}
ALONE = Compute(actors=0, threads=1, num_gpus=0)
READ = ("log_steps=2,6", "background_threshold=0.0,0.99")
REFINED = ("cam+irnet", "cam+psa", "cam+label_crf")


def let_speak(address):
    """Lets a classifier that has learnt nothing see classes where there is something."""
    network = load_classifier(address)
    network.head.weight.data.abs_()
    Path(address).write_bytes(to_safetensors(network, read_facts(address)))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The configuration of a finished run on drawn scenes, and what it said."""
    config = RunConfig(
        run=str(tmp_path_factory.mktemp("learned")),
        engine="plain",
        synthetic=DATASETS["synthetic"](count=8, val_count=3, size=72),
        methods=("cam",),
        refiners=("irnet", "psa", "label_crf"),
        until="masks",
        classifier=ClassifierTraining(
            **TINY, epochs=1, crops=Crops(crop=64, long_side=(64, 72)), batch_norm="frozen"
        ),
        irnet_network=IRNetTraining(**PAIRS),
        affinity_network=AffinityTraining(**PAIRS, batch_norm="frozen"),
        cam=CAM(scales=(1.0,), precision="fp32"),
        compute=Compute(actors=1, threads=1, num_gpus=0),
    )
    prepare(config, ENGINE)
    train("classifier", config, ENGINE)
    let_speak(f"{config.run}/classifier/classifier.safetensors")
    return config, run(config, ENGINE)


@pytest.fixture
def copied(made, tmp_path):
    """The finished run in a folder of its own."""
    shutil.copytree(made[0].run, tmp_path / "run")
    return replace(made[0], run=str(tmp_path / "run"))


def refining(config, **changed):
    settings = {"run": config.run, "methods": ("cam",), "refiners": ("irnet",)}
    return RefineSeedsConfig(**settings | {"compute": config.compute} | changed)


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


def test_each_network_is_trained_on_its_own_refiners_masks(made):
    config, outcome = made
    folder = Folder(config.run)
    assert sorted((folder / "masks").folders()) == sorted([*REFINED, "cam+affinity_labels"])
    for place in ("irnet/cam+label_crf", "affinity/cam+affinity_labels"):
        facts = read_run(folder / place)
        assert facts["done"]
        assert facts["images"] == 8
        assert facts["judged"][-1]["images"] == 2
        assert set(facts["config"]["labels"]) == {place.rpartition("+")[2], "seeds"}
    assert sum("masks cam+label_crf" in line for line in outcome.lines) == 1


def test_the_page_shows_how_the_networks_were_trained(made):
    page = (Path(made[0].run) / "report.html").read_text()
    assert "Training of IRNet and AffinityNet" in page
    assert "Loss and pairs of IRNet and AffinityNet by iteration" in page
    for name in ("cam+label_crf", "cam+affinity_labels"):
        assert re.search(rf"</span>{re.escape(name)}: 8 images", page), name


@pytest.mark.parametrize("name", REFINED[:2])
def test_every_pixel_of_every_image_has_a_label(made, name):
    rows = list(read_rows(Folder(made[0].run) / "masks" / name))
    assert [row["status"] for row in rows] == ["ok"] * 8
    tags = {row["id"]: row["classes"] for row in read_rows(Folder(made[0].run) / "seeds" / "cam")}
    seen = set()
    for row in rows:
        labels = decode_labels(row["labels"])
        assert labels.shape == (72, 72)
        assert set(labels.flat) <= {0, *(1 + number for number in tags[row["id"]])}
        seen |= set(labels.flat)
    assert len(seen) > 1


def test_masks_have_what_their_walk_went_by(made):
    for name, own, cells in (("irnet", "edges", 18), ("psa", "affinities", 9)):
        for row in read_rows(Folder(made[0].run) / "masks" / f"cam+{name}"):
            assert unpack_grid(row[own]).shape == (cells, cells)
            assert [row[one] for one in VIEW_STRIDES if one != own] == [b""]
    for row in read_rows(Folder(made[0].run) / "masks" / "cam+label_crf"):
        assert not {*VIEW_STRIDES} & row.keys()


def test_the_page_shows_seeds_masks_edges_and_affinities_side_by_side(made):
    page = (Path(made[0].run) / "report.html").read_text()
    shown = re.findall(r"<figcaption>(.*?)</figcaption>", page)
    assert [one for one in shown if one.startswith(("edges", "affin"))]
    row = ["image", "truth", "cam", "cam+affinity_labels", "cam+irnet", "edges of cam+irnet"]
    row += ["cam+label_crf", "cam+psa", "affinities of cam+psa"]
    assert shown[: len(row)] == row
    assert "Edges: white where" in page


def test_masks_that_were_begun_without_edges_go_on_without_them(copied):
    """As a run that an earlier version began, and that was killed."""
    folder = Folder(copied.run) / "masks" / "cam+irnet"
    names = MASKS_SCHEMA.names
    rows = [{key: row[key] for key in names} for row in read_rows(folder)]
    for name in shard_names(folder):
        folder.delete(name)
    earlier = [{**row, "digest": row["follows"]} for row in rows[:3]]
    write_shard(folder, sign_rows(earlier, MASKS_SCHEMA))
    refine_seeds(refining(copied), ENGINE)
    assert all(shard_columns(folder, name) == names for name in shard_names(folder))
    again = {row["id"]: row["labels"] for row in read_rows(folder)}
    assert again == {row["id"]: row["labels"] for row in rows}
    write_report(Folder(copied.run))
    page = (Path(copied.run) / "report.html").read_text()
    assert "<figcaption>cam+irnet</figcaption>" in page
    assert "<figcaption>edges of" not in page
    assert "<figcaption>affinities of" in page


def test_a_check_looks_at_edges_too(copied):
    assert check(CheckConfig(run=copied.run), ENGINE).left_out == 0
    folder = Folder(copied.run) / "masks" / "cam+irnet"
    name = shard_names(folder)[0]
    rows = read_shard(folder, name).to_pylist()
    spoiled = [{**row, "edges": row["edges"][:40], "digest": row["follows"]} for row in rows]
    assert write_shard(folder, sign_rows(spoiled, WALKED_SCHEMA)) == name
    said = "\n".join(check(CheckConfig(run=copied.run), ENGINE).lines)
    assert "its edges are no PNG" in said


def test_a_second_start_repeats_nothing(made):
    config, outcome = made
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


def test_trials_of_a_sweep_walk_on_the_runs_network(made):
    settings = {"run": made[0].run, "seeds_of": "cam", "engine": "plain", "space": "irnet"}
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
def test_what_a_sweep_of_walks_found_best_is_what_its_file_makes(copied, name, settings):
    seen = []

    def die(told):
        seen.append(told["images"])
        if told["images"] == 6:
            raise SystemExit

    with pytest.raises(SystemExit):
        swept(copied.run, name, die)
    counted = []
    plan = swept(copied.run, name, lambda told: counted.append(told["images"]))
    assert seen == [3, 6]
    assert counted == [3, 6, 8]  # those of before are told again
    swept(copied.run, name, lambda told: None, beta=14.0)
    outcome = write_sweep(plan, plan.folder, {})
    facts = read_run(plan.folder)
    assert (facts["trajectories"], facts["settings"]) == (2, 2 * settings)
    assert outcome.lines[0].count("background_threshold") == (name == "irnet")
    alone = RefineSeedsConfig(run=copied.run, methods=("cam",), refiners=(name,), compute=ALONE)
    best = read_toml(plan.folder.path("best.toml"), alone)
    assert best.refiner(name, "cam").log_steps == facts["best"]["log_steps"]
    (Folder(copied.run) / "masks" / f"cam+{name}").remove()
    refine_seeds(best, ENGINE)
    total = Confusion.zeros(len(plan.classes)).counts
    for row in read_rows(Folder(copied.run) / "masks" / f"cam+{name}"):
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
def test_a_sweep_of_walks_refuses_what_none_can_have(made, grid, message):
    config = TuneConfig(run=made[0].run, seeds_of="cam", space="irnet")
    with pytest.raises(ValueError, match=message):
        Plan.of(config, load_space("irnet").narrowed([grid]))


def test_a_sweep_of_walks_follows_from_no_value_that_it_reads_off(made):
    found = []
    for log_steps in (3, 6):
        config = TuneConfig(run=made[0].run, seeds_of="cam", space="psa")
        plan = Plan.of(
            replace(config, psa=replace(config.psa, log_steps=log_steps)), load_space("psa")
        )
        found.append(plan.identity([]))
        assert plan.known["log_steps"] == log_steps
    assert found[0] == found[1]


def test_a_missing_network_is_named_with_the_command_that_trains_it(copied):
    (Folder(copied.run) / "irnet").remove()
    with pytest.raises(FileNotFoundError, match=r"`rayseg train-irnet --labels cam\+label_crf`"):
        refine_seeds(refining(copied), ENGINE)


def test_seeds_of_another_classifier_are_refused(copied):
    again = replace(copied, classifier=replace(copied.classifier, seed=1))
    (Folder(copied.run) / "classifier").remove()
    (Folder(copied.run) / "masks" / "cam+irnet").remove()
    train("classifier", again, ENGINE)
    remade = replace(again, compute=replace(again.compute, remake_stale=True))
    make_seeds(remade, ENGINE)
    with pytest.raises(ValueError, match=r"irnet/cam\+label_crf was trained on masks from other s"):
        refine_seeds(refining(copied), ENGINE)


def test_seeds_of_another_split_are_refused(copied):
    make_seeds(replace(copied, split="val"), ENGINE)
    with pytest.raises(ValueError, match=r"was trained on split 'train', and .* holds 3 images of"):
        refine_seeds(refining(copied), ENGINE)


def test_masks_follow_from_the_network(copied):
    """Another training into the same folder makes its masks stale."""
    (Folder(copied.run) / "irnet").remove()
    other = replace(copied.irnet_network, seed=1)
    train("irnet", replace(copied, irnet_network=other, labels=("cam+label_crf",)), ENGINE)
    with pytest.raises(ValueError, match=r"cam.irnet.*weights"):
        refine_seeds(refining(copied), ENGINE)


def test_instances_from_tags_are_refined_scored_exported_and_learnt_from(copied, tmp_path):
    name, folder = "cam+irnet_instances", Folder(copied.run)
    walk = replace(copied.irnet_instances, background_threshold=0.4, log_steps=4)
    asked = refining(copied, refiners=("irnet_instances",), irnet_instances=walk)
    outcome = refine_seeds(asked, ENGINE)
    assert outcome.lines == [f"masks {name}: 8 ok"]
    rows = list(read_rows(folder / "masks" / name))
    assert kind_of(folder / "masks" / name) == "tag_instances"
    areas = [mask_area(counts, (72, 72)) for row in rows for counts in row["foreground"]]
    assert len(areas) > 4
    assert min(areas) >= 0.01 * 72 * 72
    tags = {row["id"]: row["classes"] for row in read_rows(folder / "seeds" / "cam")}
    assert all(set(row["classes"]) <= set(tags[row["id"]]) for row in rows)

    export(ExportConfig(run=copied.run, masks=name, format="coco", out=str(tmp_path)), ENGINE)
    (path,) = tmp_path.glob("instances_*.json")
    written = json.loads(path.read_text())["annotations"]
    assert sorted(one["area"] for one in written) == sorted(areas)

    lines = score(ScoreConfig(run=copied.run, compute=copied.compute), ENGINE).lines
    assert any(line.startswith(f"objects/{name}") for line in lines)
    entry = json.loads(folder.read("scores.json"))[f"objects/{name}"]
    assert entry["found"]["images_with_masks"] == entry["images"] == 8
    assert 0 < entry["found"]["abo"] < 1
    section = folder.read("report.html").decode().partition('<section id="objects">')[2]
    assert name in section
    assert '<th scope="col">ABO</th>' in section

    labels, config = instance_labels(folder, name, "train")
    assert config["irnet_instances"]["log_steps"] == 4
    assert labels.ids == {row["id"] for row in rows if row["foreground"]}
    with pytest.raises(FileNotFoundError, match="holds no masks of objects"):
        instance_labels(folder, "cam+irnet", "train")
    assert len(mask_labels(folder, name, "train")[0].ids) == 8


def test_a_run_makes_one_network_for_masks_and_instances(copied):
    asked = replace(copied, refiners=("irnet", "irnet_instances"))
    kinds = [part.kind for part in recipe(asked, judged=True)]
    assert kinds.count("irnet") == 1
    assert run(asked, ENGINE).failed == frozenset()
    places = (Folder(asked.run) / "masks").folders()
    assert "cam+irnet_instances" in places


def test_an_estimate_measures_labels_networks_and_masks_once(made):
    config = DoctorConfig(
        **{one.name: getattr(made[0], one.name) for one in fields(RunConfig)}
        | {"estimate": True, "calibrate_images": 4, "calibrate_steps": 2}
    )
    measured = [one.name for one in calibrate(config, ENGINE)]
    assert measured == [
        "classifier", "seeds/cam",
        "masks/cam+label_crf", "irnet/cam+label_crf",
        "masks/cam+affinity_labels", "affinity/cam+affinity_labels",
        "masks/cam+irnet", "masks/cam+psa", "scores",
    ]  # fmt: skip
