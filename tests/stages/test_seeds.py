import weakref
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from rayseg.attribution import CAM, COMBINATIONS, METHODS, RIB, Companions
from rayseg.attribution.classes.ficklenet import FickleNet
from rayseg.nets import classifier
from rayseg.nets.classifier import CamClassifier
from rayseg.nets.ficklenet import FickleClassifier, fickle_facts
from rayseg.nets.weights import to_safetensors
from rayseg.networks import NETWORKS
from rayseg.records import Seeds
from rayseg.stages import MakeSeeds, by_size, enlarge
from rayseg.store import SEEDS_SCHEMA, pack_maps, rows_to_table, unpack_seeds

CLASSES = ("cat", "dog", "emu")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    network = CamClassifier("resnet18", 3, 16)
    path = tmp_path_factory.mktemp("weights") / "classifier.safetensors"
    facts = {"trunk": "resnet18", "stride": 16, "classes": list(CLASSES)}
    path.write_bytes(to_safetensors(network, facts))
    return str(path)


def decoded_row(id_, classes=(0,), size_hw=(32, 48), seed=0):
    pixels = np.random.default_rng(seed).integers(1, 256, (*size_hw, 3), np.uint8)
    return {
        "id": id_, "classes": list(classes), "pixels": pixels.tobytes(), "height": size_hw[0],
        "width": size_hw[1], "status": "" if classes else "empty", "error": "", "note": "",
    }  # fmt: skip


def test_images_of_one_size_form_a_batch():
    sizes = [(4, 5), (5, 4), (4, 5), (4, 5), (5, 4)]
    rows = [{"id": i, "height": h, "width": w} for i, (h, w) in enumerate(sizes)]
    assert [[row["id"] for row in group] for group in by_size(rows)] == [[0, 2, 3], [1, 4]]


def test_rows_come_back_in_their_order_whatever_their_size(weights):
    stage = MakeSeeds(CAM(scales=(1.0,)), weights, CLASSES)
    sizes = {"a": (48, 32), "b": (32, 48), "c": (48, 32), "d": (32, 32)}
    rows = [decoded_row(id_, size_hw=size) for id_, size in sizes.items()]
    made = stage(rows)
    assert [row["id"] for row in made] == list("abcd")
    assert [unpack_seeds(row).maps.shape for row in made] == [
        (1, 12, 8), (1, 8, 12), (1, 12, 8), (1, 8, 8),
    ]  # fmt: skip


def test_seeds_are_those_of_the_method_alone(weights):
    method = CAM(scales=(1.0, 0.5), precision="fp32")
    stage = MakeSeeds(method, weights, CLASSES)
    row = decoded_row("a", (2, 0))
    pixels = np.frombuffer(row["pixels"], np.uint8).reshape(1, 32, 48, 3).copy()
    alone = method.run(stage.network, torch.from_numpy(pixels), [[2, 0]], 4)[0]
    (made,) = stage([row])
    assert made["maps"] == pack_maps(alone.maps.numpy())
    assert made["scores"] == alone.scores.tolist()


def test_an_image_without_tags_is_empty_and_says_no_error(weights):
    (made,) = MakeSeeds(CAM(), weights, CLASSES)([decoded_row("a", ())])
    assert (made["status"], made["error"]) == ("empty", "")


def test_an_image_that_was_not_decoded_keeps_its_reason(weights):
    reason = {"status": "error", "error": "a.jpg: file has zero bytes"}
    row = decoded_row("a") | {"pixels": b""} | reason
    (made,) = MakeSeeds(CAM(), weights, CLASSES)([row])
    assert (made["status"], made["error"]) == ("error", "a.jpg: file has zero bytes")


def test_rows_of_every_status_fit_the_schema(weights):
    rows = [decoded_row("a", ()), decoded_row("b", (0, 1)), decoded_row("c", (7,))]
    table = rows_to_table(MakeSeeds(CAM(scales=(1.0,)), weights, CLASSES)(rows), SEEDS_SCHEMA)
    assert table.column("status").to_pylist() == ["empty", "ok", "error"]
    assert list(map(len, table.column("maps").to_pylist())) == [0, 2, 0]


@dataclass(frozen=True)
class Failing(CAM):
    """CAM that fails on every batch with more images than it bears, or with a black one."""

    bears: int = 100
    error: type[Exception] = RuntimeError

    def run(self, network, images, classes, map_stride=1, ids=None):
        sizes.append(len(images))
        heavy = images.float()  # held by the traceback of what is raised here
        assert not any(ref() is not None for ref in alive)
        alive.append(weakref.ref(heavy))
        if len(images) > self.bears or (images == 0).flatten(1).all(1).any():
            raise self.error(f"{len(images)} images")
        return super().run(network, images, classes, map_stride, ids)


sizes: list[int] = []
alive: list[weakref.ref] = []


@pytest.fixture(autouse=True)
def _forget_calls():
    sizes.clear()
    alive.clear()


def test_a_failing_batch_is_halved_until_only_the_bad_image_fails(weights):
    rows = [decoded_row(f"i{n}", seed=n) for n in range(8)]
    rows[5]["pixels"] = bytes(len(rows[5]["pixels"]))
    made = MakeSeeds(Failing(scales=(1.0,)), weights, CLASSES)(rows)
    assert [row["id"] for row in made] == [f"i{n}" for n in range(8)]
    assert [row["status"] for row in made] == ["ok"] * 5 + ["error"] + ["ok"] * 2
    assert made[5]["error"] == "RuntimeError: 1 images"
    assert sizes == [8, 4, 4, 2, 1, 1, 2]


def test_a_lost_device_is_no_fault_of_an_image(weights):
    method = Failing(scales=(1.0,), bears=0, error=torch.AcceleratorError)
    with pytest.raises(torch.AcceleratorError):
        MakeSeeds(method, weights, CLASSES)([decoded_row("a")])


def test_a_batch_that_does_not_fit_into_memory_is_run_in_parts(weights):
    rows = [decoded_row(f"i{n}", seed=n) for n in range(4)]
    method = Failing(scales=(1.0,), bears=1, error=torch.OutOfMemoryError)
    made = MakeSeeds(method, weights, CLASSES)(rows)
    assert [row["status"] for row in made] == ["ok"] * 4
    assert sizes == [4, 2, 1, 1, 2, 1, 1]


def test_memory_of_a_failed_batch_is_free_when_its_halves_run(weights):
    method = Failing(scales=(1.0,), bears=1, error=torch.OutOfMemoryError)
    MakeSeeds(method, weights, CLASSES)([decoded_row("a"), decoded_row("b")])
    assert len(alive) == 3  # the method itself asserts that none of the earlier is left


def test_an_image_too_large_for_the_memory_costs_its_own_row(weights):
    method = Failing(scales=(1.0,), bears=0, error=torch.OutOfMemoryError)
    (made,) = MakeSeeds(method, weights, CLASSES)([decoded_row("a")])
    assert (made["status"], made["error"]) == ("error", "OutOfMemoryError: 1 images")


def test_maps_that_are_not_finite_are_an_error_of_their_image(weights, tmp_path):
    network = CamClassifier("resnet18", 3, 16)
    with torch.no_grad():
        network.head.weight.fill_(float("nan"))
    path = tmp_path / "nan.safetensors"
    facts = {"trunk": "resnet18", "stride": 16, "classes": list(CLASSES)}
    path.write_bytes(to_safetensors(network, facts))
    (made,) = MakeSeeds(CAM(scales=(1.0,)), str(path), CLASSES)([decoded_row("a")])
    assert made["status"] == "error"
    assert "finite" in made["error"]


def test_weights_of_other_classes_are_refused(weights):
    with pytest.raises(ValueError, match=r"trained on 3 classes \(cat, dog.*the manifest has 1"):
        MakeSeeds(CAM(), weights, ("cat",))


# Other images, other networks

TINY_RIB = RIB(
    scales=(1.0,), unpooled_scales=(), num_steps=3, num_companions=3, precision="fp32",
    learning_rate=1e-3, explosion_share=1.0, margin=float("inf"),
)  # fmt: skip


@pytest.fixture(scope="module")
def bank():
    rng = np.random.default_rng(9)
    pixels = torch.from_numpy(rng.integers(0, 256, (6, 32, 32, 3)).astype(np.uint8))
    boxes_yxyx = torch.tensor([[0, 0, 32, 32]] * 6)
    tags = torch.eye(3, dtype=torch.bool).repeat(2, 1)
    return Companions(tuple(f"c{n}" for n in range(6)), pixels, boxes_yxyx, tags)


@pytest.fixture(scope="module")
def fickle_weights(tmp_path_factory):
    torch.manual_seed(0)
    network = FickleClassifier("resnet18", 3, 16, kernel=3)
    path = tmp_path_factory.mktemp("weights") / "ficklenet.safetensors"
    path.write_bytes(to_safetensors(network, fickle_facts(network, "resnet18", CLASSES)))
    return str(path)


def pixels_of(row):
    pixels = np.frombuffer(row["pixels"], np.uint8)
    return torch.from_numpy(pixels.reshape(1, row["height"], row["width"], 3).copy())


@pytest.fixture(scope="module")
def rib_stage(weights, bank):
    return MakeSeeds(TINY_RIB, weights, CLASSES, companions=lambda: bank)


def test_a_stage_gives_its_method_the_companions_and_the_ids(rib_stage, bank):
    row = decoded_row("a", (0, 1))
    (made,) = rib_stage([row])
    assert rib_stage.network.companions is bank
    alone, other = (
        TINY_RIB.run(rib_stage.network, pixels_of(row), [[0, 1]], 4, [id_])[0]
        for id_ in ("a", "another")
    )
    assert made["maps"] == pack_maps(alone.maps.numpy())
    assert made["steps"] == 2
    assert not torch.equal(other.maps, alone.maps)


@dataclass
class Recording:
    """Stands in for a method; keeps what it is prepared with."""

    uses_companions: bool
    network_kind: str = "classifier"
    given: object = "nothing"

    def prepare(self, network, device=None, companions=None):
        self.given = companions


@pytest.mark.parametrize(("uses", "asked"), [(True, ["bank"]), (False, [])])
def test_only_a_method_that_uses_companions_asks_for_them(monkeypatch, uses, asked):
    monkeypatch.setattr(classifier, "load_classifier", lambda *given: torch.nn.Identity())
    calls = []

    def give():
        calls.append("bank")
        return "the bank"

    method = Recording(uses)
    MakeSeeds(method, "nowhere", CLASSES, companions=give)
    assert calls == asked
    assert method.given == ("the bank" if uses else None)


def test_what_a_method_remarks_follows_what_was_done_to_the_image(rib_stage):
    rows = [decoded_row("a", (0, 1, 2)) | {"note": "grey converted to RGB"}, decoded_row("b", (0,))]
    made = rib_stage(rows)
    assert made[0]["note"] == "grey converted to RGB; 3 companions share a class with it"
    assert made[1]["note"] == ""


@dataclass(frozen=True)
class Exploding(RIB):
    """RIB that learns far too fast from the image of one id, and fails outright at another's."""

    def localize(self, network, batch):
        if "broken" in batch.ids:
            with network.adapting():
                network.moving.fill_(torch.nan)
                raise RuntimeError("amid a step")
        wild = replace(self, learning_rate=1e30) if "wild" in batch.ids else self
        return RIB.localize(wild, network, batch)


def test_an_image_whose_loss_is_no_number_costs_its_own_row_only(weights, bank, rib_stage):
    names = ["first", "wild", "broken", "last"]
    rows = [decoded_row(name, (n % 3,), seed=n) for n, name in enumerate(names)]
    made = MakeSeeds(Exploding(**vars(TINY_RIB)), weights, CLASSES, companions=lambda: bank)(rows)
    expected = rib_stage([rows[0], rows[3]])
    assert [row["status"] for row in made] == ["ok", "error", "error", "ok"]
    assert made[1]["error"].startswith("FloatingPointError: loss must be finite, got ")
    assert made[2]["error"] == "RuntimeError: amid a step"
    assert [row["maps"] for row in (made[0], made[3])] == [row["maps"] for row in expected]


def test_every_kind_of_network_that_a_method_works_on_can_be_loaded():
    assert {method.network_kind for method in METHODS.values()} <= set(NETWORKS)
    for pair in COMBINATIONS.values():
        assert {METHODS[name].network_kind for name in pair} == {"classifier"}


def test_a_method_works_on_the_network_of_its_kind(fickle_weights):
    method = FickleNet(num_passes=3)
    (made,) = MakeSeeds(method, fickle_weights, CLASSES)([decoded_row("a", (1, 2))])
    network = NETWORKS["ficklenet"].load(fickle_weights, CLASSES)
    (alone,) = method.run(network, pixels_of(decoded_row("a")), [[1, 2]], 4, ["a"])
    assert made["maps"] == pack_maps(alone.maps.numpy())


def test_weights_of_another_kind_of_network_are_refused(weights, fickle_weights):
    with pytest.raises(ValueError, match="holds a ficklenet, not a classifier"):
        MakeSeeds(CAM(), fickle_weights, CLASSES)
    with pytest.raises(ValueError, match="holds a classifier, not a ficklenet"):
        MakeSeeds(FickleNet(), weights, CLASSES)


# Enlarging


def test_enlarged_maps_have_the_images_size():
    seeds = Seeds("a", (0,), np.zeros((1, 5, 7), np.float32), (19, 27))
    assert enlarge(seeds).shape == (1, 19, 27)


def test_an_enlarged_cell_lies_over_its_own_pixels():
    maps = np.zeros((1, 5, 5), np.float32)
    maps[0, 2, 3] = 1
    weight = enlarge(Seeds("a", (0,), maps, (20, 20)))[0]
    rows, columns = np.mgrid[:20, :20]
    assert (weight * rows).sum() / weight.sum() == pytest.approx(2 * 4 + 1.5)
    assert (weight * columns).sum() / weight.sum() == pytest.approx(3 * 4 + 1.5)


def test_an_image_without_maps_enlarges_to_none():
    seeds = Seeds("a", (), np.zeros((0, 5, 7), np.float32), (19, 27))
    assert enlarge(seeds).shape == (0, 19, 27)
