"""The kinds of folders that a run has: what their rows are, and who makes and who scores them."""

from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

from rayseg.networks import NETWORKS
from rayseg.store.folder import Folder
from rayseg.store.provenance import kind_of, read_run
from rayseg.store.schemas import (
    ANALYSES_SCHEMA,
    BOX_MAPS_SCHEMA,
    INSTANCES_SCHEMA,
    MASKS_SCHEMA,
    OUTCOME_SCHEMA,
    SEEDS_SCHEMA,
)

QUALITY = "quality"
"""Key of scores.json that is no folder: what is known of masks without truth."""


@dataclass(frozen=True)
class Kind:
    """What folders of a kind hold.

    Attributes:
        folder: of the run, in which they lie under their names; one that has no name lies there.
        schema: of the rows; None for what holds none.
        scored: how its rows are counted against the truth: maps at every threshold, labels,
            objects one by one, or instances by average precision.
        predicted: its rows are of the images that networks are judged on.
        holds_objects: a row has an entry for each object.
        shown: its rows are on the report's page.
    """

    folder: str
    schema: pa.Schema | None = None
    scored: Literal["", "maps", "labels", "objects", "instances"] = ""
    predicted: bool = False
    holds_objects: bool = False
    shown: bool = True


KINDS = {
    "manifest": Kind("manifest"),
    **{kind: Kind(network.place) for kind, network in NETWORKS.items()},
    "seeds": Kind("seeds", SEEDS_SCHEMA, "maps"),
    "box_maps": Kind("box_maps", BOX_MAPS_SCHEMA, holds_objects=True),
    "masks": Kind("masks", MASKS_SCHEMA, "labels"),
    "object_masks": Kind("masks", INSTANCES_SCHEMA, "objects", holds_objects=True),
    "tag_instances": Kind("masks", INSTANCES_SCHEMA, "instances", holds_objects=True),
    "predictions": Kind("predictions", MASKS_SCHEMA, "labels", predicted=True),
    "instances": Kind(
        "instances", INSTANCES_SCHEMA, "instances", predicted=True, holds_objects=True
    ),
    "analyses": Kind("analyses", ANALYSES_SCHEMA, shown=False),
    "bottleneck": Kind("bottleneck"),
    "tuning": Kind("tuning"),
}
"""By name; those of rows in the order in which a run makes them."""


def schema_of(folder: Folder) -> pa.Schema:
    """What every row of a folder has: the schema of its kind, or the least that rows have.

    A folder of an earlier version, whose run.json does not name its kind, has the least.
    """
    kind = KINDS.get(read_run(folder).get("kind", ""))
    return kind.schema if kind and kind.schema else OUTCOME_SCHEMA


def holds_objects(folder: Folder) -> bool:
    """Whether the rows of a folder have an entry for each object."""
    kind = KINDS.get(kind_of(folder))
    return kind is not None and kind.holds_objects
