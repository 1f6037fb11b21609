"""The training of IRNet on masks with ignored pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
import torch
from jaxtyping import Float, Integer
from numpy import ndarray
from torch import Tensor, nn

from rayseg.learn.pairs import PairTraining
from rayseg.learn.training import Work
from rayseg.learn.worker import Worker
from rayseg.nets.irnet import CELL, IRNet, irnet_facts
from rayseg.nets.pair_losses import (
    PairLabels,
    Terms,
    affinities_of_edges,
    affinity_terms,
    displacement_terms,
    small_labels,
)
from rayseg.records import Sample
from rayseg.records.images import ImageError
from rayseg.store import local_copy, read_pixels


@dataclass(frozen=True)
class IRNetTraining(PairTraining):
    """IRNet and its training.

    Source: Ahn et al., CVPR 2019 (IRN); step/train_irn.py (METHODS 1.6). The trunk does not train.
    The edges learn at the schedule's rate, the displacements `head_factor` times as fast.

    Attributes:
        trunk: Network that makes the features, named as one of the classifiers.
        stride: Image pixels of each cell of the trunk's features: 8, 16 or 32; some have 8 only.
        weights: The trunk's start: none, a torchvision weight set such as IMAGENET1K_V1, a path, or
            classifier for the trunk of the run's own. The authors' are ImageNet's.
        batch_norm: Batch normalisation of the trunk: auto or frozen, as the trunk does not train.
        radius: Distance in cells of four pixels that no pair reaches.
        epochs: Passes over the images.
        iterations: Steps after which the training ends before its epochs do; 0 is no limit.
        batch_size: Images in each step, over all workers.
        crops: How images are cut.
        mean_images: Images over which displacements are averaged after the last step, evenly
            spread; 0 for all, as the authors have it.
        schedule: Settings of the optimiser.
        precision: Number format of the activations; auto is bf16 where the device is fast in it.
        log_every: Steps between two entries of the loss curve.
        save_every: Steps between two checkpoints, the most that a lost worker costs.
        judge_images: Images of the val split on which it is judged every save_every steps and at
            the end; 0 for none.
        seed: Seed of the branches, the order and the crops.
    """

    radius: int = 10
    batch_size: int = 32
    mean_images: int = 0

    makes: ClassVar[str] = "irnet"
    field: ClassVar[str] = "irnet_network"
    cell: ClassVar[int] = CELL

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_least(mean_images=0)
        if self.batch_norm == "trained":
            raise ValueError("batch_norm must be auto or frozen for IRNet, whose trunk is frozen")

    @property
    def frozen_statistics(self) -> bool:
        """Always: the trunk does not train."""
        return True

    @property
    def remark(self) -> str:
        """A trunk that neither starts from weights nor trains is told of."""
        if self.weights != "none":
            return ""
        return (
            "the trunk does not train and starts at random: name its weights, or give "
            "--irnet-network.weights classifier for those of the run's own classifier"
        )

    def shortened(self, steps: int, num_images: int) -> Self:
        """Few images to average displacements over, besides."""
        return replace(super().shortened(steps, num_images), mean_images=2)

    def build(self, classes: Sequence[str]) -> IRNet:
        """IRNet before its first step."""
        torch.manual_seed(self.seed)  # the branches' random start
        return IRNet(self.trunk, self.stride, local_copy(self.weights), self.crops.crop)

    def terms(self, outputs: tuple[Tensor, Tensor], labels: Integer[Tensor, "n h w"]) -> Terms:
        """Losses of edges and displacements."""
        known = PairLabels.of(small_labels(labels, CELL, "nearest"), self.radius)
        return {
            **affinity_terms(self.affinities(outputs), known),
            **displacement_terms(outputs[1].float(), known, self.radius),
        }

    def affinities(self, outputs: tuple[Tensor, Tensor]) -> Float[Tensor, "n p s"]:
        """1 minus the strongest edge between two cells."""
        return affinities_of_edges(outputs[0].float().sigmoid()[:, 0], self.radius)

    @torch.no_grad()
    def finish(self, network: nn.Module, work: Work, worker: Worker) -> None:
        """Keeps the mean displacement of training images, each at its upper left."""
        assert isinstance(network, IRNet)
        samples = work.samples()
        every = -(-len(samples) // self.mean_images) if self.mean_images else 1
        total = torch.zeros(3, dtype=torch.float64)
        mine = samples[::every][worker.rank :: worker.world]
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            for start in range(0, len(mine), self.batch_size):
                read = pool.map(self._corner, mine[start : start + self.batch_size])
                if corners := [one for one in read if one is not None]:
                    images = torch.from_numpy(np.stack(corners)).to(worker.device)
                    # in training mode, where displacements are not shifted
                    means = network(images)[1].double().mean((2, 3)).sum(0).cpu()
                    total += torch.cat([means, torch.tensor([len(corners)])])
        *sums, number = worker.add(total.to(worker.device)).unbind()
        network.mean_displacement.copy_(torch.stack(sums) / number.clamp(min=1))

    def _corner(self, sample: Sample) -> Float[ndarray, "3 s s"] | None:
        """The upper left of an image; none of one that cannot be read."""
        try:
            return self.crops.corner(read_pixels(sample))
        except ImageError:
            return None

    def facts(self, network: nn.Module, classes: Sequence[str]) -> Mapping[str, Any]:
        """What `load_irnet` needs beside the tensors."""
        assert isinstance(network, IRNet)
        return irnet_facts(network, classes)
