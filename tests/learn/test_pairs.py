"""What is special of IRNet's and AffinityNet's trainings: crops, judging, mean displacement."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from rayseg.learn import AffinityTraining, IRNetTraining, PairCrops, PolySGD, Work, Worker
from rayseg.nets import inputs
from rayseg.nets.affinity import affinity_facts
from rayseg.nets.irnet import load_irnet
from rayseg.nets.weights import to_safetensors
from rayseg.refine import IRNetRefinement
from rayseg.store import Folder, read_manifest, read_run
from tests.learn.tiny import CLASSES, folder_of, scenes, store, tiny, trained
from tests.reference import pair_training_literal as literal


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    run = tmp_path_factory.mktemp("run")
    store(run, scenes(run / "images"))
    return run


def picture(height, width):
    rng = np.random.default_rng(0)
    labels = rng.choice([0, 3, 255], (height, width)).astype(np.uint8)
    return rng.integers(0, 256, (height, width, 3)).astype(np.uint8), labels


def levels_of(crop):
    """What was normalised, as levels; zeros come out as the mean colour."""
    deviation, mean = (
        np.array(one)[:, None, None] for one in (inputs.DEVIATION_RGB, inputs.MEAN_RGB)
    )
    return ((crop * deviation + mean) * 255).round().astype(np.uint8).transpose(1, 2, 0)


class TestCrops:
    plain = PairCrops(32, (1.0, 1.0), flip=False)

    @pytest.mark.parametrize("size", [(40, 50), (20, 24), (20, 50)])
    def test_labels_lie_over_their_pixels(self, size):
        pixels, labels = picture(*size)
        pixels[..., 0] = labels  # so that each pixel says its label
        crops = replace(self.plain, flip=True)
        for seed in range(8):
            crop, target = crops.cut(pixels, labels, np.random.default_rng(seed))
            assert crop.shape == (3, 32, 32)
            inside = np.abs(crop).max(0) > 0
            assert np.array_equal(levels_of(crop)[inside, 0], target[inside])
            assert (target[~inside] == 255).all()
            assert inside.sum() == min(size[0], 32) * min(size[1], 32)

    def test_half_are_mirrored_and_places_are_drawn(self):
        pixels, labels = np.zeros((20, 64, 3), np.uint8), np.zeros((20, 64), np.uint8)
        labels[:, :40] = 1
        crops, left, places = PairCrops(64, (1.0, 1.0)), 0, set()
        for seed in range(60):
            _, target = crops.cut(pixels, labels, np.random.default_rng(seed))
            rows = np.flatnonzero((target != 255).any(1))
            places.add(rows[0])
            left += target[rows[0], 0] == 1
        assert 18 < left < 42
        assert len(places) > 10
        assert max(places) <= 44

    def test_images_are_resized_by_cubics_and_labels_by_nearest(self):
        pixels, labels = picture(20, 30)
        crops = PairCrops(64, (1.5, 1.5), flip=False)
        crop, target = crops.cut(pixels, labels, np.random.default_rng(1))
        rows, columns = (np.flatnonzero(np.abs(crop).max((0, axis)) > 0) for axis in (2, 1))
        assert (len(rows), len(columns)) == (30, 45)
        window = np.ix_(rows, columns)
        resized = Image.fromarray(pixels).resize((45, 30), Image.Resampling.BICUBIC)
        assert np.array_equal(levels_of(crop)[window], np.asarray(resized))
        # the pixel in which the centre of each new one lies; PIL rounds ties now up, now down
        nearest = [[(2 * i + 1) * old // (2 * new) for i in range(new)] for old, new in
                   ((20, 30), (30, 45))]  # fmt: skip
        assert np.array_equal(target[window], labels[np.ix_(*nearest)])

    def test_jitter_changes_colours_alone(self):
        pixels, labels = picture(32, 32)
        crops = replace(self.plain, jitter=(0.3, 0.3, 0.3, 0.1))
        plain, target = self.plain.cut(pixels, labels, np.random.default_rng(0))
        found = [crops.cut(pixels, labels, np.random.default_rng(seed)) for seed in (0, 0, 1)]
        assert np.array_equal(found[0][0], found[1][0])
        assert not np.array_equal(found[0][0], found[2][0])
        assert not np.array_equal(found[0][0], plain)
        assert all(np.array_equal(one[1], target) for one in found)

    @pytest.mark.parametrize("place", range(4))
    def test_each_part_of_the_jitter_counts(self, place):
        pixels, labels = picture(32, 32)
        jitter = tuple(0.3 * (k == place) for k in range(4))
        plain, changed = (
            one.cut(pixels, labels, np.random.default_rng(3))[0]
            for one in (self.plain, replace(self.plain, jitter=jitter))
        )
        assert not np.array_equal(plain, changed)

    def test_the_corner_is_the_upper_left(self):
        pixels, _ = picture(20, 50)
        levels = levels_of(self.plain.corner(pixels))
        assert np.array_equal(levels[:20], pixels[:, :32])
        assert not self.plain.corner(pixels)[:, 20:].any()

    @pytest.mark.parametrize(
        ("changed", "message"),
        [
            ({"crop": 20}, "divide by 8"),
            ({"scales": (2.0, 1.0)}, "ascend"),
            ({"jitter": (0.3, 0.3, -0.1, 0.1)}, "must be 0 or more"),
            ({"jitter": (0.3, 0.3, 0.3, 0.6)}, r"hue lie in \[0, 0.5\]"),
        ],
    )
    def test_what_makes_no_crop_is_refused(self, changed, message):
        with pytest.raises(ValueError, match=message):
            PairCrops(**changed)


def test_the_defaults_are_the_authors():
    irnet, affinity = IRNetTraining(), AffinityTraining()
    assert (irnet.radius, irnet.epochs, irnet.batch_size) == (10, 3, 32)
    assert irnet.crops == PairCrops(512, (0.5, 1.5), True, (0, 0, 0, 0))
    assert (irnet.schedule, irnet.trunk, irnet.stride) == (PolySGD(), "resnet50", 16)
    assert (affinity.radius, affinity.epochs, affinity.batch_size) == (5, 8, 8)
    assert affinity.crops == PairCrops(448, (1, 1), True, (0.3, 0.3, 0.3, 0.1))
    assert affinity.schedule == PolySGD(lr=0.1, momentum=5e-4, weight_decay=5e-4)
    assert affinity.freeze == "stage1"
    assert AffinityTraining.as_written().distance == "sum"
    # 10,582 images of VOC: 990 and 10,576 steps
    assert (irnet.steps(10_582), affinity.steps(10_582)) == (990, 10_576)


@pytest.mark.parametrize(
    ("kind", "changed", "message"),
    [
        ("irnet", {"batch_norm": "trained"}, "whose trunk is frozen"),
        ("irnet", {"radius": 8}, "radius 8 asks for crops of 15 cells or more, got 12"),
        ("affinity", {"radius": 1}, "radius must be 2 or more"),
        ("affinity", {"epochs": 0}, "epochs must be 1 or more"),
        ("affinity", {"trunk": "wide_resnet38", "stride": 16}, "stride must be 8"),
    ],
)
def test_settings_that_make_no_sense_are_refused(kind, changed, message):
    with pytest.raises(ValueError, match=message):
        tiny(kind, **changed)


def test_displacements_learn_ten_times_as_fast_as_edges():
    training = tiny("irnet")
    network = training.build(CLASSES)
    groups = training.schedule.optimizer(network).param_groups
    rates = {id(p): group["base_lr"] for group in groups for p in group["params"]}
    for name, parameter in network.named_parameters():
        part = name.partition(".")[0]
        expected = {"trunk": None, "edge": 0.01, "displacement_head": pytest.approx(0.1)}[part]
        assert rates.get(id(parameter)) == expected


def test_only_psas_stages_train(tmp_path):
    """Neither the first two nor any normalisation, where there are weights to start from."""
    own = tiny("affinity").build(CLASSES)
    weights = tmp_path / "trunk.safetensors"
    weights.write_bytes(to_safetensors(own, affinity_facts(own, CLASSES)))
    network = tiny("affinity", weights=str(weights)).build(CLASSES)
    for name, module in network.named_modules():
        for parameter in module.parameters(recurse=False):
            early = name.startswith(("trunk.stem", "trunk.stage1"))
            normal = isinstance(module, nn.BatchNorm2d)
            assert parameter.requires_grad != (early or normal), name


@pytest.fixture(scope="module")
def network(run):
    trained(run, "irnet", training=tiny("irnet", judge_images=3))
    return load_irnet(folder_of(run, "irnet").path("irnet.safetensors"), CLASSES)


class TestTrained:
    def test_the_mean_displacement_of_training_images_is_kept(self, run, network):
        crops, means = tiny("irnet").crops, []
        network.train()  # displacements are not shifted there
        for sample in read_manifest(Folder(str(run)) / "manifest").select("train").samples():
            pixels = np.asarray(Image.open(sample.path))
            with torch.no_grad():
                _, field = network(torch.from_numpy(crops.corner(pixels))[None])
            means.append(field.mean((0, 2, 3)))
        network.eval()
        assert len(means) == 10
        assert torch.allclose(network.mean_displacement, torch.stack(means).mean(0), atol=1e-6)
        assert network.mean_displacement.abs().min() > 0

    def test_several_workers_average_over_the_same_images(self, run, network):
        work = Work(str(run), "", tiny("irnet"), None, [f"i{n:02d}" for n in range(4)], CLASSES)
        expected = means_of(work, network, Worker())
        shares = []

        class Recording(Worker):
            def add(self, tensor):
                shares.append(tensor)
                return tensor

        for rank in (0, 1):
            means_of(work, network, Recording(rank, 2))
        together = shares[0] + shares[1]
        assert together[2] == 4
        assert torch.allclose((together[:2] / 4).float(), expected, atol=1e-6)
        few = replace(work, training=replace(work.training, mean_images=2))
        shares.clear()
        means_of(few, network, Recording())
        assert shares[0][2] == 2

    def test_alike_and_different_pairs_weigh_the_same(self, run, network):
        right, number = {}, {}
        for sample in read_manifest(Folder(str(run)) / "manifest").select("val").samples():
            pixels, truth = (
                np.asarray(Image.open(path))[:48, :48] for path in (sample.path, sample.mask_path)
            )
            planes = inputs.normalise(torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None])
            with torch.no_grad():
                edges = network(planes)[0][0, 0].double().sigmoid().numpy()
            for pair, kind in literal.kinds_of(literal.shrunk_by_nearest(truth, 4), 3).items():
                alike = literal.edge_affinity(edges, pair) > 0.5
                number[kind] = number.get(kind, 0) + 1
                right[kind] = right.get(kind, 0) + (alike == (kind != "different"))
        alike = (
            right["background"] / number["background"] + right["foreground"] / number["foreground"]
        ) / 2
        different = right["different"] / number["different"]
        judged = read_run(folder_of(run, "irnet"))["judged"][-1]
        assert judged["images"] == 3
        assert judged["accuracy"] == pytest.approx((alike + different) / 2, abs=2e-3)

    @pytest.mark.parametrize("value", [0.0, 1.0])
    def test_a_network_that_says_the_same_of_all_pairs_has_a_half(self, run, network, value):
        training = tiny("irnet", judge_images=3)
        work = Work(str(run), "", training, None, [f"i{n:02d}" for n in range(4)], CLASSES)
        one_answer = copy.deepcopy(network)
        with torch.no_grad():
            one_answer.edge.last.weight.zero_()
            one_answer.edge.last.bias.fill_(40 * value - 20)
        assert training.judge(one_answer, work, Worker(), True) == {"accuracy": 0.5, "images": 3}


def means_of(work, network, worker):
    network.train()
    work.training.finish(network, work, worker)
    network.eval()
    return network.mean_displacement.clone()


def test_masks_that_are_all_unsure_are_left_out(tmp_path):
    samples = scenes(tmp_path / "images")
    Image.fromarray(np.full((64, 64), 255, np.uint8)).save(samples[0].mask_path)
    store(tmp_path, samples)
    outcome = trained(tmp_path, "irnet", training=tiny("irnet", iterations=2, judge_images=0))
    assert read_run(folder_of(tmp_path, "irnet"))["images"] == 9
    assert "not trained on: 1 masks of which no pixel counts" in "\n".join(outcome.lines)


def squares(seed):
    """A light square on a dark ground, and its labels."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((64, 64), np.uint8)
    top, left = rng.integers(8, 28, 2)
    labels[top : top + 28, left : left + 28] = 1
    pixels = rng.integers(60, 90, (64, 64, 3)).astype(np.uint8)
    pixels[labels == 1] += 120
    return pixels, labels


def test_edges_are_learnt_and_found_on_the_canvas_of_training():
    """On squares that it has not seen, over a trunk that starts at random."""
    training = tiny(
        "irnet", trunk="resnet18", crops=PairCrops(96, (0.8, 1.2)), radius=5,
        schedule=PolySGD(lr=0.1, head_factor=1.0),
    )  # fmt: skip
    network, rng = training.build(CLASSES).train(), np.random.default_rng(0)
    optimizer = training.schedule.optimizer(network)
    for step in range(40):
        training.schedule.set_step(optimizer, step, 40, 10)
        cut = [training.crops.cut(*squares(seed), rng) for seed in rng.integers(0, 10, 4)]
        images, labels = (torch.from_numpy(np.stack(one)) for one in zip(*cut, strict=True))
        terms = training.terms(network(images), labels)
        optimizer.zero_grad()
        sum(total / number for total, number in terms.values()).backward()
        optimizer.step()
    found = {"border": [], "elsewhere": []}
    for seed in range(100, 106):
        pixels, labels = squares(seed)
        image = inputs.normalise(torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None])
        with torch.no_grad():
            edges = IRNetRefinement(precision="fp32").edges(network.eval(), image)[0].numpy()
        small = literal.shrunk_by_nearest(labels, 4).astype(int)
        changes = sum(np.abs(np.diff(small, axis=axis, prepend=0)) for axis in (0, 1))
        found["border"].append(edges[changes > 0].mean())
        found["elsewhere"].append(edges[changes == 0].mean())
    assert np.mean(found["border"]) > 0.3 + np.mean(found["elsewhere"])


def test_a_trunk_at_random_is_told_of_and_one_with_weights_is_not():
    assert "--irnet-network.weights classifier" in IRNetTraining(weights="none").remark
    assert IRNetTraining(weights="trunk.pth").remark == ""
