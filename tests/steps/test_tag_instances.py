"""Instances from tags alone, from their refinement to their scores and their export."""

import json
from dataclasses import replace

import pytest

from rayseg.config import ExportConfig, ScoreConfig
from rayseg.plain import PlainEngine
from rayseg.records.rle import mask_area
from rayseg.steps.exporting import export
from rayseg.steps.labels import instance_labels, mask_labels
from rayseg.steps.masks import refine_seeds
from rayseg.steps.recipe import recipe, run
from rayseg.steps.score import score
from rayseg.store import Folder, kind_of, read_rows
from tests.steps.learned import refining

ENGINE = PlainEngine()


def test_instances_from_tags_are_refined_scored_exported_and_learnt_from(learned_copy, tmp_path):
    name, folder = "cam+irnet_instances", Folder(learned_copy.run)
    walk = replace(learned_copy.irnet_instances, background_threshold=0.4, log_steps=4)
    asked = refining(learned_copy, refiners=("irnet_instances",), irnet_instances=walk)
    outcome = refine_seeds(asked, ENGINE)
    assert outcome.lines == [f"masks {name}: 8 ok"]
    rows = list(read_rows(folder / "masks" / name))
    assert kind_of(folder / "masks" / name) == "tag_instances"
    areas = [mask_area(counts, (72, 72)) for row in rows for counts in row["foreground"]]
    assert len(areas) > 4
    assert min(areas) >= 0.01 * 72 * 72
    tags = {row["id"]: row["classes"] for row in read_rows(folder / "seeds" / "cam")}
    assert all(set(row["classes"]) <= set(tags[row["id"]]) for row in rows)

    export(ExportConfig(run=learned_copy.run, masks=name, format="coco", out=str(tmp_path)), ENGINE)
    (path,) = tmp_path.glob("instances_*.json")
    written = json.loads(path.read_text())["annotations"]
    assert sorted(one["area"] for one in written) == sorted(areas)

    lines = score(ScoreConfig(run=learned_copy.run, compute=learned_copy.compute), ENGINE).lines
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


def test_a_run_makes_one_network_for_masks_and_instances(learned_copy):
    asked = replace(learned_copy, refiners=("irnet", "irnet_instances"))
    kinds = [part.kind for part in recipe(asked, judged=True)]
    assert kinds.count("irnet") == 1
    assert run(asked, ENGINE).failed == frozenset()
    places = (Folder(asked.run) / "masks").folders()
    assert "cam+irnet_instances" in places
