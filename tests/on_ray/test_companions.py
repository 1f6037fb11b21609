"""Methods that look at companions give on Ray what they give in a plain loop with the same bank."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import ray
import torch
from PIL import Image

from rayseg.attribution import RIB, AdvCAM
from rayseg.config import Compute, MakeSeedsConfig
from rayseg.learn import Crops
from rayseg.nets.classifier import CamClassifier
from rayseg.nets.weights import to_safetensors
from rayseg.on_ray.data import decoded, manifest_rows, write_rows
from rayseg.on_ray.engine import RayEngine
from rayseg.records import Sample
from rayseg.stages import CompanionBank, DecodeImages, MakeSeeds, by_size, fill_bank
from rayseg.steps.engine import Pool
from rayseg.steps.seeds import SharedBank, make_seeds
from rayseg.store import SEEDS_SCHEMA, Folder, read_manifest, read_rows, write_manifest
from tests.on_ray.fakes import CountedCrops, DeadlyRIB, computed

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("cluster")]
ENGINE = RayEngine()
CLASSES = ("cat", "dog", "emu")
TINY_RIB = RIB(
    scales=(1.0,), unpooled_scales=(), num_steps=3, num_companions=2, precision="fp32",
    learning_rate=1e-3, explosion_share=1.0, margin=float("inf"),
)  # fmt: skip
TINY_ADVCAM = AdvCAM(scales=(1.0,), num_steps=1, precision="fp32")
CROPS = Crops(crop=32, long_side=(24, 40))
BANK = CompanionBank(images=6, crops=CROPS)
COMPUTE = Compute(actors=2, threads=1, num_gpus=0, block_rows=2)


@pytest.fixture(scope="module")
def run(cluster, tmp_path_factory):
    """Nine train images of two sizes, one of them bad; two of val; a classifier."""
    folder = tmp_path_factory.mktemp("run")
    rng = np.random.default_rng(0)
    none = np.zeros((0, 4), np.float32), np.zeros(0, np.int64)
    samples = []
    for n in range(11):
        size_hw = (32, 32) if n % 2 else (32, 48)
        path = folder / f"i{n:02d}.png"
        Image.fromarray(rng.integers(0, 256, (*size_hw, 3), np.uint8)).save(path)
        if n == 4:
            path.write_bytes(b"no image")
        split = "train" if n < 9 else "val"
        tags = (0, 1, 2) if n == 8 else (n % 3,)
        samples.append(Sample(f"i{n:02d}", str(path), *size_hw, tags, *none, split=split))
    write_manifest(Folder(str(folder / "manifest")), samples, CLASSES)
    torch.manual_seed(0)
    facts = {"trunk": "resnet18", "stride": 16, "classes": list(CLASSES)}
    data = to_safetensors(CamClassifier("resnet18", 3), facts)
    Folder(str(folder / "classifier")).write("classifier.safetensors", data)
    return folder


@pytest.fixture(scope="module")
def made(run, tmp_path_factory):
    """RIB, and AdvCAM on its weights, by the job: its outcome and how many crops were cut."""
    marks = tmp_path_factory.mktemp("cut")
    crops = CountedCrops(CROPS.crop, CROPS.long_side, marks=str(marks))
    outcome = make_seeds(config(run, companions=replace(BANK, crops=crops)), ENGINE)
    return outcome, len(list(marks.iterdir()))


def config(run, **changed):
    given = {
        "run": str(run), "methods": ("rib", "advcam+rib"), "rib": TINY_RIB, "advcam": TINY_ADVCAM,
        "compute": COMPUTE, "companions": BANK,
    }  # fmt: skip
    return MakeSeedsConfig(**given | changed)


def stored(folder):
    return {row["id"]: row for row in read_rows(Folder(str(folder)))}


def plain_loop(run, name):
    """The rows of a method without Ray, image by image."""
    manifest = read_manifest(Folder(str(run / "manifest"))).select("train")
    bank = fill_bank(manifest.samples(), len(CLASSES), BANK)
    waiting = DecodeImages()(manifest.table.to_pylist())
    weights = str(run / "classifier" / "classifier.safetensors")
    stage = MakeSeeds(
        config(run).method(name), weights, CLASSES, threads=1, companions=lambda: bank
    )
    return {row["id"]: stage([row])[0] for group in by_size(waiting) for row in group}


def assert_same_rows(found, expected):
    assert found.keys() == expected.keys()
    for id_, row in expected.items():
        assert found[id_]["status"] == row["status"], id_
        assert found[id_]["note"] == row["note"], id_
        assert found[id_].get("maps") == row.get("maps", []), id_


@pytest.mark.parametrize("name", ["rib", "advcam+rib"])
def test_ray_stores_what_a_plain_loop_stores_with_the_same_bank(run, made, name):
    rows = stored(run / "seeds" / name)
    assert len(rows) == 9
    assert_same_rows(rows, plain_loop(run, name))


def test_the_bank_is_cut_once_for_all_methods_and_actors(made):
    assert made[1] == BANK.images


def test_a_killed_actor_repeats_at_most_its_block_and_changes_nothing(run, made, tmp_path):
    """One actor, larger blocks, and a death: the bank is read again, the rows are the same."""
    marks = tmp_path / "marks"
    marks.mkdir()
    method = DeadlyRIB(**vars(TINY_RIB), marks=str(marks), id_="i03")
    location = Folder(str(run))
    table = read_manifest(location / "manifest").select("train").table
    weights = str(run / "classifier" / "classifier.safetensors")
    out = Folder(str(tmp_path / "out"))
    compute = replace(COMPUTE, actors=1, block_rows=3)
    make = partial(
        MakeSeeds, method, weights, CLASSES, "cpu", 1, SharedBank(location, BANK, ENGINE).reader
    )
    source = decoded(manifest_rows(table, out / "pending", 3), DecodeImages(), out)
    write_rows(
        source, 9, ENGINE.crew(Pool(make, keeps_network=True), compute), out, SEEDS_SCHEMA, "deadly"
    )
    assert_same_rows(stored(out.location), stored(run / "seeds" / "rib"))
    times = computed(marks)
    assert times["i03"] == 2
    assert sum(times.values()) - 8 <= 3


# The bank in the object store


@ray.remote(num_cpus=0)
class Reader:
    """An actor that holds the bank as a stage does."""

    def __init__(self, read):
        self.bank = read()

    def where(self):
        """The files in which the bank's tensors lie, and the bank's ids."""
        parts = (self.bank.pixels, self.bank.boxes_yxyx, self.bank.tags)
        return {mapped_file(part.data_ptr()) for part in parts}, self.bank.ids


def mapped_file(address):
    """What the memory at an address is mapped to."""
    with open("/proc/self/maps") as maps:
        for line in maps:
            span, *_, name = line.split(maxsplit=5)
            start, stop = (int(one, 16) for one in span.split("-"))
            if start <= address < stop:
                return name.strip().removesuffix(" (deleted)")
    return ""


def test_actors_look_at_one_bank_in_shared_memory(run):
    # a small object would travel in the message itself
    bank = replace(BANK, crops=Crops(crop=256, long_side=(24, 40)))
    reader = SharedBank(Folder(str(run)), bank, ENGINE).reader
    actors = [Reader.remote(reader) for _ in range(2)]
    (files, ids), (others, _) = ray.get([actor.where.remote() for actor in actors])
    manifest = read_manifest(Folder(str(run / "manifest"))).select("train")
    assert ids == fill_bank(manifest.samples(), len(CLASSES), bank).ids
    assert files == others
    assert all("plasma" in file for file in files)


def test_a_bank_that_cannot_be_cut_is_one_line(run):
    with pytest.raises(OSError, match="cutting companions failed: ValueError: no image is left of"):
        SharedBank(Folder(str(run)), replace(BANK, split="test"), ENGINE).reader  # noqa: B018
