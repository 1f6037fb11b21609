"""Columns of what is stored, all of plain Arrow types."""

import pyarrow as pa

MANIFEST_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("path", pa.string()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("tags", pa.list_(pa.int32())),
        ("boxes_xyxy", pa.list_(pa.list_(pa.float32()))),
        ("box_classes", pa.list_(pa.int32())),
        ("split", pa.string()),
        ("mask_path", pa.string()),
        ("difficult", pa.list_(pa.int32())),
        ("crowds", pa.list_(pa.int32())),
        ("true_masks", pa.list_(pa.binary())),  # COCO's counts, one a box or none at all
        ("source_id", pa.string()),  # in the data set's own file, as JSON
        ("file_name", pa.string()),  # ... as it stands there
        ("image_digest", pa.string()),
        ("image_bytes", pa.int64()),
        ("image_mtime_ns", pa.int64()),
        ("mask_digest", pa.string()),
        ("negative", pa.bool_()),  # known to show nothing of any class
        ("seen_side", pa.int32()),  # of a photo that is turned or made smaller; else 0
        ("photo_hw", pa.list_(pa.int32())),  # ... and its size as a viewer shows it; else 0, 0
    ]
)
"""One image of a dataset a row; the class names are in the file's metadata as JSON."""

_OUTCOME = [
    ("id", pa.string()),
    ("status", pa.string()),  # ok, empty, error or poison
    ("error", pa.string()),  # why there is no result
    ("note", pa.string()),  # what was done to the image, such as "grey converted to RGB"
    ("height", pa.int32()),
    ("width", pa.int32()),
    ("seconds", pa.float32()),
    ("follows", pa.string()),  # digest of what the row was made from; empty where not known
    ("digest", pa.string()),  # of the row itself, but for its seconds
]
OUTCOME_SCHEMA = pa.schema(_OUTCOME)
"""What rows of every kind have."""
SEEDS_SCHEMA = pa.schema(
    [
        *_OUTCOME,
        ("classes", pa.list_(pa.int32())),
        ("maps", pa.list_(pa.binary())),  # one grey PNG a class, at a quarter of the image
        ("scores", pa.list_(pa.float32())),  # logit of each class on the image itself
        ("gains", pa.list_(pa.float32())),  # logit gained by the method
        ("steps", pa.int32()),
    ]
)
MASKS_SCHEMA = pa.schema(
    [
        *_OUTCOME,
        ("labels", pa.binary()),  # indexed PNG: 0, class index + 1, 255
        ("ignored", pa.float32()),  # share of pixels that are 255
    ]
)
WALKED_SCHEMA = pa.schema(
    [
        *MASKS_SCHEMA,
        ("edges", pa.binary()),  # grey PNG, IRNet's edges on cells of four pixels
        ("affinities", pa.binary()),  # ... of AffinityNet's, mean to the eight cells around, of 8
    ]
)
"""Masks by a refiner that walks on a network, which fills one of the columns after labels.

Folders of earlier versions have MASKS_SCHEMA.
"""
_OBJECTS = [
    ("boxes_xyxy", pa.list_(pa.list_(pa.float32()))),
    ("classes", pa.list_(pa.int32())),
    ("object_status", pa.list_(pa.string())),  # ok, missed, or why there is no map
    ("places", pa.list_(pa.int32())),  # in the manifest's lists of the image; -1 for found objects
]
BOX_MAPS_SCHEMA = pa.schema(
    [
        *_OUTCOME,
        *_OBJECTS,  # one entry an object in each of these lists
        ("maps", pa.list_(pa.binary())),  # grey PNG of a grid whose corners are the image's
        ("positives", pa.list_(pa.int32())),  # candidates that predict the object
        ("box_loss", pa.list_(pa.float32())),  # what the map changes in the box head's answer
        ("class_loss", pa.list_(pa.float32())),  # ... in the class head's
        ("steps", pa.int32()),
    ]
)
INSTANCES_SCHEMA = pa.schema(
    [
        *MASKS_SCHEMA,
        *_OBJECTS,
        ("scores", pa.list_(pa.float32())),  # of a network's detections; 1 for given boxes
        ("foreground", pa.list_(pa.binary())),  # COCO's counts: surely of the object
        ("possible", pa.list_(pa.binary())),  # ... and what may be; empty where there is no doubt
    ]
)
ANALYSES_SCHEMA = pa.schema(
    [
        *_OUTCOME,
        ("objects", pa.string()),  # JSON, of each object its box's share and what variants come to
    ]
)
FAILED = ("error", "poison")
"""Statuses of rows that say why there is no result."""
LATER = frozenset({"follows", "digest", "places"})
"""Columns that shards of earlier versions lack."""


def wrong_column(found: pa.Schema, schema: pa.Schema) -> str:
    """What is wrong with the first column that rows of a schema should have otherwise, or nothing.

    Args:
        found: columns as they lie there; there may be more.
    """
    for field in schema:
        there = found.field(field.name).type if field.name in found.names else None
        if there != field.type and not (there is None and field.name in LATER):
            return f"column {field.name} must be {field.type}, got {there or 'none'}"
    return ""
