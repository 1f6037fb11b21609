"""The jobs that train networks, one for each entry of TRAININGS."""

from __future__ import annotations

from dataclasses import field, make_dataclass
from typing import Any

from rayseg.config.base import JobConfig, SegmentersConfig
from rayseg.learn import TRAININGS

_ON = {
    "tags": "the tags of one split",
    "boxes": "the boxes of one split",
    "masks": "masks of one split, pseudo or true",
    "objects": "masks of objects of one split, pseudo or true",
}
"""What trainings learn from, in words."""


def training_config(kind: str, name: str) -> Any:
    """The configuration of the job that makes a kind of network.

    Args:
        kind: a key of TRAININGS.
        name: of the class, by which pickle finds it in this module.
    """
    training = TRAININGS[kind]
    named = training.learns_from in ("masks", "objects")
    made = make_dataclass(
        name,
        [
            ("train_split", str, field(default="train")),
            ("val_split", str, field(default="val")),
            (training.field, training, field(default_factory=training)),
        ],
        bases=(SegmentersConfig if named else JobConfig,),
        frozen=True,
        kw_only=True,
    )
    made.__module__ = __name__
    made.__doc__ = f"""Trains {training.noun} on {_ON[training.learns_from]}.

    Attributes:
        train_split: the images to train on.
        val_split: the images that checkpoints are judged on.
        {training.field}: network and training.
    """
    return made


TrainClassifierConfig = training_config("classifier", "TrainClassifierConfig")
TrainFickleNetConfig = training_config("ficklenet", "TrainFickleNetConfig")
TrainDetectorConfig = training_config("detector", "TrainDetectorConfig")
TrainSegmenterConfig = training_config("segmenter", "TrainSegmenterConfig")
TrainMaskRCNNConfig = training_config("mask_rcnn", "TrainMaskRCNNConfig")
