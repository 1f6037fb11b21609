"""Rows of objects from maps of classes, against the refiner by hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from rayseg.nets.irnet import IRNet, irnet_facts, load_irnet
from rayseg.nets.weights import to_safetensors
from rayseg.records.palette import decode_labels
from rayseg.refine.learned_instances import IRNetInstances
from rayseg.stages import RefineSeeds, enlarge, finds_objects
from rayseg.store import INSTANCES_SCHEMA, pack_maps, rows_to_table, unpack_seeds
from tests.bad_images import picture
from tests.stages.conftest import CLASSES

REFINER = IRNetInstances(precision="fp32", log_steps=4, background_threshold=0.1)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    network = IRNet("mobilenet_v2").eval()
    network.displacement_head.last.weight.data *= 4
    path = tmp_path_factory.mktemp("irnet") / "irnet.safetensors"
    path.write_bytes(to_safetensors(network, irnet_facts(network, CLASSES)))
    return str(path)


def test_a_row_has_the_objects_that_the_refiner_finds(run, weights):
    manifest, rows = run
    made = RefineSeeds(REFINER, manifest, weights=weights, device="cpu")(rows)
    prepared = REFINER.prepare(load_irnet(weights, CLASSES))
    assert finds_objects(REFINER)
    for row, given in zip(made, rows, strict=True):
        seeds = unpack_seeds(given)
        found = prepared.find(picture((18, 22)), enlarge(seeds), seeds.classes)
        columns = found.scored().columns()
        assert row["status"] == "ok"
        assert {name: row[name] for name in columns} == columns
        assert np.array_equal(decode_labels(row["labels"]), found.labels((18, 22)))
    assert sum(len(row["foreground"]) for row in made) > 2
    assert all(place == -1 for row in made for place in row["places"])
    assert rows_to_table(made, INSTANCES_SCHEMA).num_rows == 3


def test_a_row_says_that_its_image_was_resized_for_the_network(run, weights):
    manifest, rows = run
    for max_pixels, note in (
        (396, "grey"),
        (100, "grey; resized from 22x18 to 11x9 for its network"),
    ):
        refiner = replace(REFINER, max_pixels=max_pixels)
        stage = RefineSeeds(refiner, manifest, weights=weights, device="cpu")
        (made,) = stage([rows[0] | {"note": "grey"}])
        assert made["note"].removesuffix(" (max_pixels)") == note


def test_images_without_tags_or_a_value_have_rows_without_an_object(run, weights):
    manifest, rows = run
    flat = rows[0] | {"maps": pack_maps(np.zeros((1, 5, 6), np.float32))}
    given = [flat, rows[1] | {"status": "empty"}, rows[2] | {"status": "error", "error": "cut"}]
    made = RefineSeeds(REFINER, manifest, weights=weights, device="cpu")(given)
    stored = rows_to_table(made, INSTANCES_SCHEMA).to_pylist()
    assert [row["status"] for row in stored] == ["ok", "empty", "error"]
    assert all(row["foreground"] == row["object_status"] == [] for row in stored)
    assert not decode_labels(stored[0]["labels"]).any()
