"""Seeds on Ray are those of a plain loop to the bit, however widely they are made."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

from rayseg.attribution import CAM
from rayseg.config import Compute, MakeSeedsConfig
from rayseg.nets.classifier import CamClassifier
from rayseg.nets.weights import to_safetensors
from rayseg.on_ray.data import Crew, decoded, manifest_rows, write_rows
from rayseg.on_ray.engine import RayEngine
from rayseg.records import Sample
from rayseg.stages import DecodeImages, MakeSeeds, by_size
from rayseg.steps.seeds import make_seeds
from rayseg.store import SEEDS_SCHEMA, Folder, read_manifest, read_rows, write_manifest

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("cluster")]
CLASSES = ("cat", "dog")
METHOD = CAM(scales=(1.0,), precision="fp32")
COMPUTE = Compute(actors=2, threads=1, num_gpus=0, block_rows=4)


@pytest.fixture(scope="module")
def run(cluster, tmp_path_factory):
    """A run of 17 images of two sizes (one bad, one black-cornered, one untagged) and 3 of val."""
    folder = tmp_path_factory.mktemp("run")
    rng = np.random.default_rng(0)
    samples = []
    for n in range(20):
        size_hw = (48, 48) if n % 3 else (48, 64)
        pixels = rng.integers(1, 256, (*size_hw, 3), np.uint8)
        if n == 9:
            pixels[0, 0] = 0
        path = folder / f"i{n:02d}.png"
        Image.fromarray(pixels).save(path)
        if n == 5:
            path.write_bytes(path.read_bytes()[:200])
        tags = ((), (0,), (0, 1), (1,))[n % 4 if n in (4, 1, 2) else n % 3 + 1]
        none = np.zeros((0, 4), np.float32), np.zeros(0, np.int64)
        split = "val" if n >= 17 else "train"
        samples.append(Sample(f"i{n:02d}", str(path), *size_hw, tags, *none, split=split))
    write_manifest(Folder(str(folder / "manifest")), samples, CLASSES)
    torch.manual_seed(0)
    facts = {"trunk": "resnet18", "stride": 16, "classes": list(CLASSES)}
    data = to_safetensors(CamClassifier("resnet18", 2), facts)
    (folder / "classifier").mkdir()
    (folder / "classifier" / "classifier.safetensors").write_bytes(data)
    return folder


@pytest.fixture(scope="module")
def weights(run):
    return str(run / "classifier" / "classifier.safetensors")


@pytest.fixture(scope="module")
def made(run):
    """Seeds of the train images by the job, and what it said."""
    outcome = make_seeds(config(run), RayEngine())
    return Folder(str(run / "seeds" / "cam")), outcome


def config(run, **changed):
    return MakeSeedsConfig(
        **{"run": str(run), "methods": ("cam",), "cam": METHOD, "compute": COMPUTE} | changed
    )


def by_id(rows):
    return {row["id"]: {k: v for k, v in row.items() if k != "seconds"} for row in rows}


def plain_loop(run, weights, rows):
    """The same rows without Ray, in batches of so many rows."""
    table = read_manifest(Folder(str(run / "manifest"))).select("train").table
    waiting = DecodeImages()(table.to_pylist())
    stage = MakeSeeds(METHOD, weights, CLASSES, threads=1)
    waiting = [row for group in by_size(waiting) for row in group]
    for start in range(0, len(waiting), rows):
        yield from stage(waiting[start : start + rows])


def test_ray_stores_what_a_plain_loop_stores_to_the_bit(run, made, weights):
    stored, looped = by_id(read_rows(made[0])), by_id(plain_loop(run, weights, 4))
    for id_, row in looped.items():
        if row["status"] == "ok":
            assert stored[id_]["maps"] == row["maps"], id_
        assert stored[id_]["status"] == row["status"]


def test_order_batch_size_and_number_of_actors_do_not_matter(run, made, weights, tmp_path):
    table = read_manifest(Folder(str(run / "manifest"))).select("train").table
    backwards = table.take(list(range(table.num_rows))[::-1])
    make = partial(MakeSeeds, METHOD, weights, CLASSES, "cpu", 1)
    out = Folder(str(tmp_path))
    source = decoded(manifest_rows(backwards, out / "pending", 3), DecodeImages(), out)
    pool = Crew(make, rows=3, actors=1, cpus=1)
    write_rows(source, table.num_rows, pool, out, SEEDS_SCHEMA, "other")
    stored, other = by_id(read_rows(made[0])), by_id(read_rows(out))
    assert stored.keys() == other.keys()
    for id_, row in stored.items():
        assert other[id_]["maps"] == row["maps"], id_
        assert other[id_]["scores"] == pytest.approx(row["scores"], rel=1e-5)


def test_a_pool_larger_than_the_cluster_is_refused_at_once(run, tmp_path, made):
    with pytest.raises(ValueError, match="seeds gradcam needs 10 CPUs"):
        make_seeds(
            config(run, methods=("gradcam",), compute=replace(COMPUTE, actors=9)), RayEngine()
        )
