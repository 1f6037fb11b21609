"""Methods that look at companions give on Ray what they give in a plain loop with the same bank."""

from dataclasses import replace
from functools import partial

import pytest
import ray

from rayseg.config import Compute
from rayseg.learn import Crops
from rayseg.on_ray.data import decoded, manifest_rows, write_rows
from rayseg.on_ray.engine import RayEngine
from rayseg.stages import DecodeImages, MakeSeeds, by_size, fill_bank
from rayseg.steps.engine import Pool
from rayseg.steps.seeds import SharedBank, make_seeds
from rayseg.store import SEEDS_SCHEMA, Folder, read_manifest
from tests import companion_run
from tests.companion_run import BANK, CLASSES, CROPS, TINY_RIB, stored, write_run
from tests.on_ray.fakes import CountedCrops, DeadlyRIB, computed

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("cluster")]
ENGINE = RayEngine()
COMPUTE = Compute(actors=2, threads=1, num_gpus=0, block_rows=2)


@pytest.fixture(scope="module")
def run(cluster, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    write_run(folder)
    return folder


@pytest.fixture(scope="module")
def made(run, tmp_path_factory):
    """RIB, and AdvCAM on its weights, by the job: its outcome and how many crops were cut."""
    marks = tmp_path_factory.mktemp("cut")
    crops = CountedCrops(CROPS.crop, CROPS.long_side, marks=str(marks))
    outcome = make_seeds(config(run, companions=replace(BANK, crops=crops)), ENGINE)
    return outcome, len(list(marks.iterdir()))


config = partial(companion_run.config, compute=COMPUTE)


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
