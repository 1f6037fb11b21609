"""What Ray costs: the same AdvCAM seeds by a plain loop and by Ray Data with one actor.

Run from the repository root: ``python tests/benchmarks/bench_ray_overhead.py [images] [rounds]``.
Both decode the same files, use one thread for torch, and write the same shards. Two ratios are
given: ``whole`` divides the wall time of the job by that of the loop including the loading of the
network (an actor's start-up with its imports is in it), ``steady`` leaves out what comes before
the first finished block on both sides. The loop and the job take turns.
"""

import json
import os
import statistics
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[2]))

from rayseg.attribution import AdvCAM
from rayseg.nets.classifier import CamClassifier
from rayseg.nets.weights import to_safetensors
from rayseg.on_ray.data import Crew, decoded, manifest_rows, write_rows
from rayseg.on_ray.session import session
from rayseg.stages import DecodeImages, MakeSeeds
from rayseg.store import (
    MANIFEST_SCHEMA,
    SEEDS_SCHEMA,
    Folder,
    read_rows,
    rows_to_table,
    write_shard,
)

RESULT = Path(__file__).parent / "results" / "ray-overhead.json"
METHOD = AdvCAM(scales=(1.0,), num_steps=10, precision="fp32")
SIZE, ROWS, CLASSES = 224, 4, ("cat", "dog")


def prepare(folder, images):
    """The manifest of random images and the path of random weights."""
    rng, rows = np.random.default_rng(0), []
    for n in range(images):
        path = f"{folder}/{n:03d}.png"
        Image.fromarray(rng.integers(0, 256, (SIZE, SIZE, 3), np.uint8)).save(path)
        rows.append(
            {"id": f"{n:03d}", "path": path, "height": SIZE, "width": SIZE, "tags": [n % 2]}
        )
    torch.manual_seed(0)
    facts = {"trunk": "mobilenet_v2", "stride": 16, "classes": list(CLASSES)}
    data = to_safetensors(CamClassifier("mobilenet_v2", 2), facts)
    Path(f"{folder}/w.safetensors").write_bytes(data)
    return rows_to_table(rows, MANIFEST_SCHEMA), f"{folder}/w.safetensors"


def plain_loop(table, make, out):
    stage, decode = make(), DecodeImages()
    rows = table.to_pylist()
    for start in range(0, len(rows), ROWS):
        made = stage(decode(rows[start : start + ROWS]))
        write_shard(out, rows_to_table(made, SEEDS_SCHEMA))


def on_ray(table, make, out):
    source = decoded(manifest_rows(table, out / "pending", ROWS), DecodeImages(), out)
    pool = Crew(make, rows=ROWS, actors=1, cpus=1)
    write_rows(source, table.num_rows, pool, out, SEEDS_SCHEMA, "on Ray")


def measure(run, table, make, folder):
    """Seconds of all, and of all but the first block."""
    out = Folder(folder)
    start = time.time()
    run(table, make, out)
    end = time.time()
    shards = [Path(out.path(name)).stat().st_mtime for name in out.names(".parquet")]
    maps = {row["id"]: row["maps"] for row in read_rows(out)}
    return {"whole": end - start, "first": min(shards) - start, "steady": end - min(shards)}, maps


def main(images, rounds):
    torch.set_num_threads(1)
    found = {"plain": [], "ray": []}
    with tempfile.TemporaryDirectory() as folder, session():
        table, weights = prepare(folder, images)
        make = partial(MakeSeeds, METHOD, weights, CLASSES, "cpu", 1)
        for turn in range(rounds):
            seconds, expected = measure(plain_loop, table, make, f"{folder}/plain{turn}")
            found["plain"].append(seconds)
            seconds, maps = measure(on_ray, table, make, f"{folder}/ray{turn}")
            found["ray"].append(seconds)
            if maps != expected:
                raise AssertionError("Ray and the plain loop made different maps")
            print(f"round {turn + 1}: plain {found['plain'][-1]}, ray {found['ray'][-1]}")
    median = {
        kind: {name: statistics.median(one[name] for one in runs) for name in runs[0]}
        for kind, runs in found.items()
    }
    result = {
        "images": images,
        "rounds": rounds,
        "seconds_an_image": median["plain"]["steady"] / (images - ROWS),
        "whole_ratio": median["ray"]["whole"] / median["plain"]["whole"],
        "steady_ratio": median["ray"]["steady"] / median["plain"]["steady"],
        "first_block_seconds": {kind: median[kind]["first"] for kind in median},
        "median": median,
        "cores": os.cpu_count(),
    }
    print(json.dumps(result, indent=1))
    RESULT.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    given = [int(argument) for argument in sys.argv[1:]]
    main(*(given + [60, 3][len(given) :]))
