"""The one place for files: folders of Parquet shards, maps and labels as PNG bytes, run.json.

Everything here is plain Arrow types, so that pyarrow, pandas or DuckDB read it without rayseg. A
folder is a local path or a URI that pyarrow knows (``s3://bucket/run``); a file appears whole or
not at all. A shard is named after the ids in it: writing the same rows twice leaves one file, so a
task that is retried repeats nothing.
"""

from rayseg.store.checking import CheckedShards, check_shards
from rayseg.store.compaction import compact
from rayseg.store.copies import local_copy, read_file, read_pixels
from rayseg.store.damage import DamagedError, in_one_line
from rayseg.store.fingerprints import (
    MISSING,
    SOURCES,
    FileFacts,
    changed_source,
    content_digest,
    file_facts,
    listing_digest,
    write_sources,
)
from rayseg.store.folder import Folder
from rayseg.store.index import (
    Pending,
    Stale,
    count_status,
    digests_of,
    failed_ids,
    find_pending,
    find_stale,
    forget,
    forget_failed,
    forget_repeats,
    parts_of,
    peek_index,
    read_index,
    read_rows,
    stored_ids,
)
from rayseg.store.kinds import KINDS, QUALITY, Kind, holds_objects
from rayseg.store.lock import FolderLockedError, dead_holder, lease, live_holder
from rayseg.store.manifest import Manifest, manifest_rows_by_id, read_manifest, write_manifest
from rayseg.store.maps import MAP_STRIDE, VIEW_STRIDES, pack_maps, unpack_grid, unpack_seeds
from rayseg.store.mending import Lost, mend, set_shard_aside, tidy
from rayseg.store.names import hash_ids
from rayseg.store.progress_file import (
    ProgressFile,
    forget_progress,
    noted,
    read_progress_file,
    seconds_between,
)
from rayseg.store.provenance import (
    COPY,
    REMAKE,
    StaleError,
    claim,
    empty,
    kind_of,
    read_facts,
    read_run,
    rebind,
    write_run,
)
from rayseg.store.receipts import receipt_of_stored, receipts_of, store_rows
from rayseg.store.schemas import (
    ANALYSES_SCHEMA,
    BOX_MAPS_SCHEMA,
    FAILED,
    INSTANCES_SCHEMA,
    MANIFEST_SCHEMA,
    MASKS_SCHEMA,
    SEEDS_SCHEMA,
    WALKED_SCHEMA,
)
from rayseg.store.shards import (
    RowsById,
    read_rows_about,
    read_shard,
    row_digest,
    rows_to_table,
    shard_columns,
    shard_names,
    shard_sizes,
    sign_rows,
    write_shard,
)
