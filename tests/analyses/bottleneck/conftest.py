"""A small toy experiment and what belongs to it."""

import pytest
import torch

from rayseg.analyses.bottleneck import ToyBottleneck
from rayseg.analyses.bottleneck.network import ToyNetwork

SMALL = {
    "size": 20,
    "digit_size": 10,
    "mark_size": 3,
    "num_train": 40,
    "epochs": 1,
    "batch_size": 20,
    "num_images": 4,
    "num_iterations": 2,
    "rib_batch": 3,
}


@pytest.fixture
def small():
    return ToyBottleneck(**SMALL)


@pytest.fixture
def network():
    return ToyNetwork(0).double()


@pytest.fixture
def images():
    return torch.rand(2, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def classes():
    return torch.tensor([0, 1])
