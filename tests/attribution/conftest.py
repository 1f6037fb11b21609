"""Tiny networks and images for the attribution methods."""

import copy
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from rayseg.attribution import LeanNetwork
from rayseg.attribution.classes.lean import suit_cpu
from rayseg.attribution.classes.views import _resize_bicubic
from rayseg.nets.classifier import CamClassifier
from rayseg.nets.seam import PixelCorrelation, SeamClassifier
from rayseg.nets.trunks import levels_by_stage
from tests.attribution.tiny_detector import TinyDetector


class TinyClassifier(CamClassifier):
    """A CAM classifier of a few thousand weights, with batch statistics worth folding."""

    def __init__(self, num_classes=3, stride=16, seed=5):
        nn.Module.__init__(self)
        torch.manual_seed(seed)
        widths = [3, 8, 12, 16, 16, 24]
        blocks = []
        for number, (before, after) in enumerate(pairwise(widths)):
            step = 2 if 2 ** (number + 1) <= stride else 1
            convolution = nn.Conv2d(before, after, 3, step, 1, bias=False)
            norm = nn.BatchNorm2d(after)
            nn.init.normal_(norm.running_mean, 0, 0.2)
            nn.init.uniform_(norm.running_var, 0.05, 0.3)
            nn.init.uniform_(norm.weight, 0.7, 1.3)
            nn.init.normal_(norm.bias, 0, 0.3)
            blocks.append(nn.Sequential(convolution, norm, nn.ReLU()))
        self.trunk = nn.Sequential(*blocks)
        self.head = nn.Conv2d(widths[-1], num_classes, 1, bias=False)
        nn.init.normal_(self.head.weight, 0, 0.3)
        self.stride, self.adapts_from = stride, 3
        self.frozen_statistics = True


class TinySeam(SeamClassifier):
    """The tiny classifier with a pixel correlation module."""

    def __init__(self, num_classes=3, stride=16, seed=21):
        nn.Module.__init__(self)
        plain = TinyClassifier(num_classes, stride, seed)
        self.trunk, self.head, self.stride = plain.trunk, plain.head, stride
        self.adapts_from, self.frozen_statistics = plain.adapts_from, True
        self.reads, self.dropout, self._seed = levels_by_stage, 0.5, None
        self.correlation_head = PixelCorrelation(16, 16)


class DoubleNetwork(LeanNetwork):
    """The lean network in float64: nothing folded, convolutions put as for the CPU."""

    def __init__(self, network):
        super().__init__(network, "fp32")
        self.dtype = torch.float64
        self.classifier = copy.deepcopy(network).eval().requires_grad_(False).double()
        suit_cpu(self.classifier, self.dtype)
        self.weight = self.classifier.head.weight.flatten(1)

    def features(self, images):
        return self.classifier.features(images)

    def classify(self, features):
        return self.classifier.classify(features)


@pytest.fixture(scope="session")
def tiny_classifier():
    """The class, for networks of other sizes and for subclasses."""
    return TinyClassifier


@pytest.fixture
def network():
    return TinyClassifier().eval()


@pytest.fixture
def double_network(network):
    return DoubleNetwork(network)


@pytest.fixture
def as_double():
    return DoubleNetwork


@pytest.fixture(scope="session")
def draw_image():
    """Draws a uint8 (h, w, 3) image with smooth structure; another one for each seed."""

    def draw(size_hw=(48, 64), seed=0):
        rng = np.random.default_rng(seed)
        rows, columns = np.mgrid[: size_hw[0], : size_hw[1]]
        waves = [
            np.sin(rows * rng.uniform(0.05, 0.4) + columns * rng.uniform(0.05, 0.4) + phase)
            for phase in rng.uniform(0, 6, 3)
        ]
        noise = rng.normal(0, 0.3, (*size_hw, 3))
        return ((np.stack(waves, -1) + noise) * 50 + 120).clip(0, 255).astype(np.uint8)

    return draw


@pytest.fixture(scope="session")
def our_resize():
    """Our resize on arrays: it differs from Pillow's by single levels, which maps show at 1e-3."""

    def resize(image, size_hw):
        planes = torch.from_numpy(image).permute(2, 0, 1)[None].contiguous()
        return _resize_bicubic(planes, size_hw)[0].permute(1, 2, 0).numpy()

    return resize


@pytest.fixture
def image(draw_image):
    return draw_image()


@pytest.fixture
def images(draw_image):
    """Two of one size, for detectors."""
    return torch.from_numpy(np.stack([draw_image((40, 56), seed) for seed in (1, 2)]))


@pytest.fixture
def detector():
    return TinyDetector()
