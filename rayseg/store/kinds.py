"""The kinds of folders that a run has: what their rows are, and who makes and who scores them."""

from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

from rayseg.networks import NETWORKS
from rayseg.store.schemas import (
    ANALYSES_SCHEMA,
    BOX_MAPS_SCHEMA,
    INSTANCES_SCHEMA,
    MASKS_SCHEMA,
    SEEDS_SCHEMA,
)


@dataclass(frozen=True)
class Kind:
    """What folders of a kind hold.

    Attributes:
        folder: of the run, in which they lie under their names; one that has no name lies there.
        noun: what a row holds.
        schema: of the rows; None for what holds none.
        scored: how its rows are counted against the truth: maps at every threshold, labels,
            objects one by one, or instances by average precision.
        predicted: its rows are of the images that networks are judged on.
        by_network: its rows are made by a network, in processes that keep it.
        holds_objects: a row has an entry for each object.
        shown: its rows are on the report's page.
    """

    folder: str
    noun: str = ""
    schema: pa.Schema | None = None
    scored: Literal["", "maps", "labels", "objects", "instances"] = ""
    predicted: bool = False
    by_network: bool = True
    holds_objects: bool = False
    shown: bool = True


KINDS = {
    "manifest": Kind("manifest"),
    **{kind: Kind(network.place) for kind, network in NETWORKS.items()},
    "seeds": Kind("seeds", "map", SEEDS_SCHEMA, "maps"),
    "box_maps": Kind("box_maps", "map", BOX_MAPS_SCHEMA, holds_objects=True),
    "masks": Kind("masks", "mask", MASKS_SCHEMA, "labels", by_network=False),
    "object_masks": Kind(
        "masks", "object mask", INSTANCES_SCHEMA, "objects", by_network=False, holds_objects=True
    ),
    "predictions": Kind("predictions", "mask", MASKS_SCHEMA, "labels", predicted=True),
    "instances": Kind(
        "instances", "instance", INSTANCES_SCHEMA, "instances", predicted=True, holds_objects=True
    ),
    "analyses": Kind("analyses", "count", ANALYSES_SCHEMA, shown=False),
    "bottleneck": Kind("bottleneck"),
    "tuning": Kind("tuning"),
}
"""By name; those of rows in the order in which a run makes them."""
