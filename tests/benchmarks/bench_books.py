"""What the books of a large folder cost: it is resumed, counted, closed and opened again.

Run from the repository root:
``python tests/benchmarks/bench_books.py [images] [images on S3] [images of a shard]``.
The folder holds label masks of random bytes, as many as COCO's train2017 has images, in the shards
that actors write. A job that was killed is resumed without an index, which is the worst case; one
that was not has the index of its receipts. Then the step closes: each row once, small shards put
together, counts. On a store that answers as S3 does, on this machine, requests are counted.
"""

import json
import logging
import os
import sys
import tempfile
import time
from pathlib import Path

import boto3
import numpy as np
from moto.server import ThreadedMotoServer

sys.path.insert(0, str(Path(__file__).parents[2]))

from rayseg.store import (
    MASKS_SCHEMA,
    Folder,
    compact,
    count_status,
    forget_repeats,
    receipt_of_stored,
    receipts_of,
    rows_to_table,
    shard_names,
    store_rows,
    stored_ids,
)

RESULT = Path(__file__).parent / "results" / "books.json"
SIZES = ((480, 640), (640, 480), (427, 640), (640, 427), (612, 612))
MASK_BYTES = 2500
INDEX = "_index.pq"


class Requests(logging.Handler):
    """Counts what the server answers."""

    def __init__(self):
        super().__init__()
        self.number = 0

    def emit(self, record):
        self.number += 1


def fill(folder, images, rows):
    """Shards as actors write them: images of one size beside each other."""
    rng = np.random.default_rng(0)
    ids = rng.permutation(images * 5)[:images]
    sizes = rng.integers(0, len(SIZES), images)
    order = sorted((*SIZES[size], f"{id_:012d}") for size, id_ in zip(sizes, ids, strict=True))
    with receipts_of(folder) as receipts:
        for start in range(0, images, rows):
            made = [
                {
                    "id": id_, "status": "ok", "height": height, "width": width, "seconds": 0.1,
                    "follows": rng.bytes(16).hex(), "digest": rng.bytes(16).hex(),
                    "labels": rng.bytes(MASK_BYTES),
                }
                for height, width, id_ in order[start : start + rows]
            ]  # fmt: skip
            if receipt_of_stored(folder, made) is not None:  # what an actor asks first
                raise AssertionError("a shard is there before it was written")
            receipts.take(store_rows(folder, rows_to_table(made, MASKS_SCHEMA)))


def close(folder):
    """What a step does when its rows are there."""
    forget_repeats(folder)
    compact(folder)
    return count_status(folder)


def measure(folder, images, rows, requests):
    """Seconds and requests of each part of a folder's books."""
    found = {"images": images}

    def timed(name, do):
        before, start, cpu = requests.number, time.perf_counter(), time.process_time()
        done = do()
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        found[name] = {"seconds": round(seconds, 2), "cpu_seconds": round(cpu, 2)}
        if requests.number > before:
            found[name]["requests"] = requests.number - before
            found[name]["requests_a_shard"] = round((requests.number - before) / shards, 3)
        print(folder, name, found[name], flush=True)
        return done

    shards = -(-images // rows)
    timed("written", lambda: fill(folder, images, rows))
    found["shards"] = len(shard_names(folder))
    timed("resumed by the index", lambda: stored_ids(folder))
    folder.delete(INDEX)
    timed("resumed without an index", lambda: stored_ids(folder))
    counts = timed("closed", lambda: close(folder))
    if counts != {"ok": images}:
        raise AssertionError(f"rows are lost or doubled: {counts}")
    found["shards when closed"] = len(shard_names(folder))
    timed("opened again and closed", lambda: (stored_ids(folder), close(folder)))
    return found


def on_s3(images, rows):
    """The same on a store that answers as S3 does."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    os.environ |= {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }  # fmt: skip
    boto3.client("s3").create_bucket(Bucket="bucket")
    requests, log = Requests(), logging.getLogger("werkzeug")
    log.addHandler(requests)
    log.setLevel(logging.INFO)
    log.propagate = False
    try:
        return measure(Folder("s3://bucket/run/masks/large"), images, rows, requests)
    finally:
        server.stop()


def main(images, remote, rows):
    with tempfile.TemporaryDirectory(dir=".") as folder:
        local = measure(Folder(f"{folder}/masks/large"), images, rows, Requests())
    found = {"images_of_a_shard": rows, "mask_bytes": MASK_BYTES, "cores": os.cpu_count()}
    found |= {"local": local} | ({"s3": on_s3(remote, rows)} if remote else {})
    RESULT.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    given = [int(argument) for argument in sys.argv[1:]]
    main(*(given + [118_287, 12_000, 12][len(given) :]))
