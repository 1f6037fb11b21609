"""Each field of a method or refiner, and each key of a tune space, changes what comes out.

A new field fails `test_every_field_is_entered` until CHANGES says what else it may be, or ROUNDING
why no value of it changes more than rounding.
"""

import importlib
import pkgutil
from dataclasses import dataclass, field, fields, replace
from functools import cache

import numpy as np
import pytest
import torch
from torch import nn

import tune_spaces
from rayseg.attribution import BOX_METHODS, METHODS, Companions, Objects
from rayseg.nets.affinity import AffinityNet
from rayseg.nets.ficklenet import FickleClassifier
from rayseg.nets.irnet import IRNet
from rayseg.refine import BOX_REFINERS, REFINERS
from tests.attribution.conftest import TinyClassifier, TinySeam
from tests.attribution.tiny_detector import TinyDetector

PARTS = {**METHODS, **BOX_METHODS, **REFINERS, **BOX_REFINERS}


@dataclass(frozen=True)
class To:
    """Another value of a field, and what else must be so that the field counts."""

    value: object
    given: dict[str, object] = field(default_factory=dict)


def to(value, **given):
    return To(value, given)


SCALES = {"scales": to((1.0, 1.5)), "flip": to(False), "precision": to("bf16")}
POSITIVES = {
    "num_jitters": to(17),
    "jitter": to(0.3),
    "iou_levels": to((0.5,)),
    "max_positives": to(3),
    "iou": to("exact", max_positives=0, iou_levels=(0.75,)),
    "precision": to("bf16"),
    "seed": to(1),
}
GRADIENTS = {**POSITIVES, "use_class": to(False, use_box=True), "use_box": to(True), "cell": to(8)}
KERNELS = {
    "iterations": to(1),
    "gaussian_sxy": to(9),
    "gaussian_compat": to(6),
    "bilateral_sxy": to(5),
    "bilateral_srgb": to(60),
    "bilateral_compat": to(6),
}
WALK = {
    "radius": to(3),
    "beta": to(1.0),
    "log_steps": to(2),
    "max_pixels": to(600),
    "precision": to("bf16"),
}
CLIMB = {
    **SCALES,
    "num_steps": to(5),
    "step_size": to(0.3),
    "restrict_weight": to(70.0),
    "restrict_threshold": to(0.9, restrict_weight=70.0),
    "suppress_weight": to(0.0),
    "normalise_gradient": to(False),
    "clamp": to(False, step_size=2.0),
    "maps": to("cam"),
    "add_last": to(True),
    "halve_small": to(False, scales=(1.0, 0.5)),
}
CHANGES = {
    "cam": SCALES,
    "gradcam": {**SCALES, "pooled": to(False)},
    "advcam": CLIMB,
    "seam": {**SCALES, "compete": to("present")},
    "advcam_seam": {**CLIMB, "compete": to("present")},
    "rib": {
        **SCALES,
        "num_steps": to(2),
        "learning_rate": to(1e-2),
        "head_factor": to(1.0),
        "weight_decay": to(1.0),
        "momentum": to(0.9),
        "power": to(0.0),
        "decay_steps": to(30),
        "loss": to("tanh"),
        "margin": to(0.0),
        "margin_role": to("loss", margin=0.1, explosion_share=1.0),
        "pooling": to("gap"),
        "tau": to(0.9),
        "divide_by": to("kept"),
        "num_companions": to(0),
        "disjoint": to(False),
        "unpooled_scales": to((1.0,), scales=(1.0, 0.5)),
        "explosion_threshold": to(0.9, explosion_share=0.3),
        "explosion_share": to(0.01),
        "maps": to("cam"),
        "add_last": to(True),
        "max_seconds": to(1e-9),
        "seed": to(1),
    },
    "ficklenet": {
        **SCALES,
        "flip": to(True),
        "num_passes": to(9),
        "drop_rate": to(0.2),
        "aggregate": to("mean"),
        "threshold": to(0.8),
        "seed": to(1),
    },
    "bbam": {
        **POSITIVES,
        "use_box": to(False),
        "use_class": to(False),
        "sparsity": to(0.1),
        "tv": to(0.0),
        "tv_power": to(1.0),
        "steps": to(3),
        "lr": to(0.2),
        "stride_base": to(12.0),
        "stride_range": to(30.0),
        "fixed_stride": to(5.0),
        "grid": to("ceil"),
        "reduction": to("sum"),
        "start": to("ones"),
        "region": to("windows", window_margin=0.0, window_pixels=0, start="ones"),
        "window_margin": to(0.1, region="windows", window_pixels=0, start="ones"),
        "window_pixels": to(8, region="windows", window_margin=0.0, start="ones"),
        "early_stop": to(0.9, steps=30),
        "record": to(True),
    },
    "box_simple_grad": GRADIENTS,
    "box_smooth_grad": {**GRADIENTS, "num_copies": to(2), "noise": to(0.4)},
    "box_gradcam": GRADIENTS,
    "threshold": {"threshold": to(0.4)},
    "label_crf": {**KERNELS, "fg_threshold": to(0.6), "bg_threshold": to(0.2), "gt_prob": to(0.9)},
    "soft_crf": {
        **KERNELS,
        "background": to("constant"),
        "alpha": to(20.0),
        "threshold": to(0.5, background="constant"),
    },
    "irnet": {**WALK, "cam_power": to(2.0), "background_threshold": to(0.6), "pad": to(128)},
    "irnet_instances": {
        **WALK,
        "cam_power": to(2.0),
        "background_threshold": to(0.6),
        "pad": to(128),
        "rounds": to(0),
        "weak_displacement": to(4.0, weak_displacement=1.5),
        "fragment_share": to(0.2),
    },
    "psa": {**WALK, "alpha": to(2.0), "borders": to("quirk")},
    "affinity_labels": {**KERNELS, "low_alpha": to(1.0), "high_alpha": to(6.0)},
    "box_crf": {
        **KERNELS,
        "foreground": to(0.5),
        "background": to(0.6),
        "blur": to(9),
        "blur_gain": to(40),
        "sure": to(0.6),
        "small_share": to(0.01),
        "large_box": to(0.01),
        "reseeds": to((0.99,)),
        "reseed_share": to(0.9),
        "priors": to((0.99,)),
        "prior_share": to(0.9, gaussian_compat=3, gaussian_sxy=5, priors=(0.8, 0.95)),
    },
    "box_threshold": {**KERNELS, "foreground": to(0.5), "background": to(0.4), "crf": to(False)},
}
ROUNDING = {
    **{(name, "max_pairs"): "pairs of image and class in one batch" for name in METHODS},
    ("rib", "graph_gb"): "rows whose graphs are made together; the loss is their sum",
    ("rib", "cache_gb"): "features that are kept are those that would be made again",
    **{(name, "max_pixels"): "objects in one batch, each its own mask" for name in BOX_METHODS},
}
SMALL = {
    "cam": {"precision": "fp32", "scales": (1.0,)},
    "gradcam": {"precision": "fp32", "scales": (1.0,)},
    "advcam": {"precision": "fp32", "scales": (1.0,), "num_steps": 4},
    "seam": {"precision": "fp32", "scales": (1.0,)},
    "advcam_seam": {"precision": "fp32", "scales": (1.0,), "num_steps": 4},
    "rib": {
        "precision": "fp32", "scales": (1.0,), "num_steps": 3, "learning_rate": 1e-3,
        "margin": 1e9, "num_companions": 2, "explosion_share": 1.0,
    },
    "ficklenet": {"precision": "fp32", "num_passes": 5, "drop_rate": 0.5},
    **{
        name: {
            "precision": "fp32", "num_jitters": 60, "jitter": 0.15, "max_positives": 8,
            "iou_levels": (0.8, 0.6),
        }
        for name in BOX_METHODS
    },
}  # fmt: skip
LEARNED = {"irnet": IRNet, "irnet_instances": IRNet, "psa": AffinityNet}
SMALL["irnet"] = SMALL["irnet_instances"] = {"precision": "fp32"}
SMALL["psa"] = {"precision": "fp32", "borders": "clipped"}
"""Few cells, all of them near a border."""
WEAK = {"gaussian_compat": 1, "bilateral_compat": 1}
"""Kernels that leave something to the maps."""
SMALL["label_crf"] = {"gaussian_compat": 3, "bilateral_compat": 3, "iterations": 2}
SMALL["soft_crf"] = SMALL["affinity_labels"] = SMALL["box_threshold"] = {**WEAK, "iterations": 2}
SMALL["box_crf"] = {**WEAK, "iterations": 3, "blur": 2, "blur_gain": 4}
SMALL["bbam"] |= {"stride_base": 6.0, "stride_range": 8.0, "steps": 6, "lr": 0.05, "tv": 0.1}
SMALL["box_smooth_grad"] |= {"num_copies": 3}


def cases():
    for name, part in PARTS.items():
        yield from ((name, one.name) for one in fields(part) if (name, one.name) not in ROUNDING)


def space_keys():
    """Each key of each space, by the part that it is a field of."""
    for found in pkgutil.iter_modules(tune_spaces.__path__):
        space = importlib.import_module(f"tune_spaces.{found.name}")
        for key in {**space.SPACE, **space.GRID, **space.READ_OFF}:
            owner, _, name = key.rpartition(".")
            yield found.name, key, owner or found.name, name


class Curved(TinyClassifier):
    """Its logit is no linear function of its features: pooling counts."""

    def classify(self, features):
        return torch.logsumexp(self.head(features.square() / 4 + features).flatten(2), 2)


class TinyFickle(FickleClassifier):
    def __init__(self):
        nn.Module.__init__(self)
        plain = TinyClassifier()
        self.trunk, self.stride, self.frozen_statistics = plain.trunk, plain.stride, True
        self.head = nn.Conv2d(plain.head.in_channels, 3, 3, padding=1, bias=False)
        nn.init.normal_(self.head.weight, 0, 0.3)
        self.drop_rate, self.dilated, self.selection, self._seed = 0.5, False, "closed", None


class Rounded(TinyDetector):
    """Half precision rounds its weights."""

    feature_layer = "trunk"

    def lean(self, device, precision):
        made = super().lean(device, precision)
        return made.bfloat16().double() if precision == "bf16" else made


@pytest.fixture(scope="module")
def bank():
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randint(0, 256, (8, 40, 40, 3), generator=generator).byte()
    tags = torch.eye(3).bool()[torch.arange(8) % 3]
    return Companions(tuple("abcdefgh"), pixels, torch.tensor([[0, 0, 40, 40]] * 8), tags)


def localized(method, name, image, bank):
    plain = Curved if name == "gradcam" else TinyClassifier
    kinds = {"classifier": plain, "ficklenet": TinyFickle, "seam": TinySeam}
    network = method.prepare(kinds[method.network_kind]().eval(), companions=bank)
    (found,) = method.run(network, torch.from_numpy(image)[None], [[2, 0]], ids=["a"])
    return vars(found)


def explained(method, image):
    boxes = torch.tensor([[5.0, 6.0, 35.0, 30.0], [28.0, 18.0, 53.0, 39.0]])
    objects = Objects(boxes, torch.tensor([2, 0]))
    (found,) = method.run(Rounded(), torch.from_numpy(image)[None], [objects], ["a"])
    assert {one.status for one in found} == {"ok"}
    return [vars(one) for one in found]


@cache
def learned(name):
    """What a refiner works on, before any training."""
    torch.manual_seed(0)
    made = LEARNED[name]("mobilenet_v2", 16)
    if name == "irnet_instances":  # some of its displacements are weak, some not
        made.displacement_head.last.weight.data *= 4
    return made


def scene():
    """Two discs in noise, maps that are sure of their middles, and boxes around them."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:40, :60]
    image = rng.integers(60, 90, (40, 60, 3))
    maps = np.zeros((2, 40, 60), np.float32)
    for i, (row, column, radius) in enumerate([(14, 16, 12), (28, 46, 5)]):
        distance = np.hypot(rows - row, columns - column)
        image[distance < radius] = 130 + 60 * i
        maps[i] = (1.2 - distance / radius).clip(0, 1) * rng.uniform(0.3, 1, (40, 60))
    boxes = np.array([[3, 2, 29, 27], [40, 22, 52, 34], [30, 2, 58, 20]], np.float32)
    return image.astype(np.uint8), maps, boxes


def refined(refiner, name):
    image, maps, boxes = scene()
    if name == "irnet_instances":
        found = refiner.prepare(learned(name)).find(image, maps, [1, 0])
        return [found.columns(), found.labels(image.shape[:2])]
    if name in LEARNED:
        return refiner.prepare(learned(name)).scores(image, maps)
    if name in REFINERS:
        if name == "soft_crf":
            return refiner.probabilities(image, maps, [1, 0])
        return refiner(image, maps, [1, 0])
    empty = np.zeros((1, 40, 60), np.float32)  # of an object that the detector misses
    return [vars(one) for one in refiner(image, np.concatenate([maps, empty]), boxes)]


def picture(size_hw, seed=0):
    """Waves in noise, uint8 (h, w, 3)."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[: size_hw[0], : size_hw[1]]
    waves = [
        np.sin(rows * rng.uniform(0.05, 0.4) + columns * rng.uniform(0.05, 0.4) + phase)
        for phase in rng.uniform(0, 6, 3)
    ]
    noise = rng.normal(0, 0.3, (*size_hw, 3))
    return ((np.stack(waves, -1) + noise) * 50 + 120).clip(0, 255).astype(np.uint8)


@pytest.fixture
def output(bank):
    """What a method or refiner says of a tiny input."""

    def said(name, part):
        if name in METHODS:
            return localized(part, name, picture((48, 64)), bank)
        if name in BOX_METHODS:
            return explained(part, picture((40, 56), 1))
        return refined(part, name)

    return said


def same(one, other):
    if isinstance(one, dict):
        return all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return all(map(same, one, other))
    if isinstance(one, torch.Tensor | np.ndarray):
        return np.array_equal(one, other)
    return one == other


def assert_changes(output, name, key, value):
    base = replace(PARTS[name](), **SMALL.get(name, {}) | CHANGES[name][key].given)
    changed = replace(base, **{key: value})
    assert changed != base, f"{name}.{key} must be entered with another value"
    assert not same(output(name, base), output(name, changed))


@pytest.mark.parametrize("name", PARTS)
def test_nothing_changed_changes_nothing(output, name):
    made = replace(PARTS[name](), **SMALL.get(name, {}))
    assert same(output(name, made), output(name, made))


@pytest.mark.parametrize("name", PARTS)
def test_every_field_is_entered(name):
    own = {one.name for one in fields(PARTS[name])}
    rounding = {key for part, key in ROUNDING if part == name}
    assert set(CHANGES[name]) == own - rounding
    assert set(getattr(PARTS[name], "rounding_only", ())) == rounding
    assert PARTS[name].__dataclass_params__.frozen


@pytest.mark.parametrize(("name", "key"), [*cases()])
def test_each_field_changes_the_output(output, name, key):
    assert_changes(output, name, key, CHANGES[name][key].value)


@pytest.mark.parametrize(("file", "key", "name", "own"), [*space_keys()])
def test_each_key_of_a_space_changes_the_output(output, file, key, name, own):
    """From one end of what is looked through to the other, or to its first value."""
    space = importlib.import_module(f"tune_spaces.{file}")
    known = {**space.SPACE, **space.GRID, **space.READ_OFF}[key]
    values = known if isinstance(known, list) else getattr(known, "categories", None)
    ends = (values[0], values[-1]) if values else (known.lower, known.upper)
    # as many take long, and so large a margin is never reached
    few = {"num_passes": (2, 9), "num_copies": (2, 4), "num_steps": (1, 4), "margin": (0.0, 1e9)}
    low, high = few.get(own, ends)
    change = CHANGES[name][own]
    base = replace(PARTS[name](), **SMALL.get(name, {}) | change.given | {own: low})
    assert not same(output(name, base), output(name, replace(base, **{own: high})))
