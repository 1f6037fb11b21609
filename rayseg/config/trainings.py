"""The jobs that train networks, one for each entry of TRAININGS."""

from dataclasses import field, make_dataclass
from typing import Any

from rayseg.config.base import JobConfig, SegmentersConfig
from rayseg.config.seeds import Thresholds
from rayseg.learn import TRAININGS
from rayseg.networks import NETWORKS


def _config_of(kind: str) -> Any:
    """The configuration of the job that makes a kind of network."""
    training, network = TRAININGS[kind], NETWORKS[kind]
    reads_maps = training.learns_from == "cues"
    thresholds = ("thresholds", Thresholds, field(default=Thresholds()))
    made = make_dataclass(
        f"Train{kind.title().replace('_', '')}Config",
        [
            ("train_split", str, field(default="train")),
            ("val_split", str, field(default="val")),
            (training.field, training, field(default_factory=training)),
            *([thresholds] if reads_maps else []),
        ],
        bases=(SegmentersConfig if network.by_labels else JobConfig,),
        frozen=True,
        kw_only=True,
    )
    made.__module__ = __name__
    made.__doc__ = f"""{network.job_in_words}

    Attributes:
        train_split: Split to train on.
        val_split: Split that checkpoints are judged on.
        {training.field}: Network and training.
    """
    if reads_maps:
        words = "Background thresholds of each method's maps, at which these are read."
        made.__doc__ = made.__doc__.rstrip() + f"\n        thresholds: {words}\n    "
    globals()[made.__name__] = made  # where pickle finds it again
    return made


TRAIN_CONFIGS: dict[str, Any] = {kind: _config_of(kind) for kind in TRAININGS}
"""By the kind of network that is trained."""
