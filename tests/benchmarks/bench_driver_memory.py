"""Peak memory of the driver with 500 and with 5,000 rows of a method that costs nothing.

Run from the repository root: ``python tests/benchmarks/bench_driver_memory.py``. Each number of
rows runs in a fresh process, through the real path: manifest, decoding in tasks, an actor pool,
shards; all rows share one small image file. The aim is a difference under 100 MB.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
RESULT = Path(__file__).parent / "results" / "driver-memory.json"
ROWS = (500, 5000)


class Grey:
    """One map a class, half grey, for any image."""

    def __call__(self, rows):
        from rayseg.store import MAP_STRIDE, pack_maps

        kept = ("id", "height", "width", "note", "classes")
        return [
            {name: row[name] for name in kept}
            | {
                "status": "ok",
                "maps": pack_maps(
                    np.full(
                        (
                            len(row["classes"]),
                            row["height"] // MAP_STRIDE,
                            row["width"] // MAP_STRIDE,
                        ),
                        0.5,
                        np.float32,
                    )
                ),
            }
            for row in rows
        ]


def measure(number):
    """Peak resident MB of this process after a job of so many rows, and before it."""
    from rayseg.config import Compute
    from rayseg.on_ray.data import decoded, manifest_rows, write_rows
    from rayseg.on_ray.engine import RayEngine
    from rayseg.on_ray.session import session
    from rayseg.stages import DecodeImages
    from rayseg.steps.engine import Pool
    from rayseg.store import (
        MANIFEST_SCHEMA,
        SEEDS_SCHEMA,
        Folder,
        count_status,
        rows_to_table,
        stored_ids,
    )

    with tempfile.TemporaryDirectory() as folder, session():
        Image.effect_noise((64, 64), 50).convert("RGB").save(f"{folder}/image.png")
        row = {"path": f"{folder}/image.png", "height": 64, "width": 64, "tags": [0, 1]}
        table = rows_to_table([row | {"id": f"{n:06d}"} for n in range(number)], MANIFEST_SCHEMA)
        out = Folder(f"{folder}/seeds")
        one = Compute(actors=1, threads=1, num_gpus=0)
        pool = RayEngine().crew(Pool(Grey, keeps_network=True), one)
        source = decoded(manifest_rows(table, out / "pending", pool.rows), DecodeImages(), out)
        before, start = peak_mb(), time.perf_counter()
        write_rows(source, number, pool, out, SEEDS_SCHEMA, f"{number} rows")
        seconds = time.perf_counter() - start
        if count_status(out) != {"ok": number} or len(stored_ids(out)) != number:
            raise AssertionError(f"{count_status(out)} of {number} rows")
        return {"rows": number, "before_mb": before, "peak_mb": peak_mb(), "seconds": seconds}


def peak_mb():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main():
    found = []
    for number in ROWS:
        command = [sys.executable, __file__, str(number)]
        ended = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True)
        found.append(json.loads(ended.stdout.splitlines()[-1]))
        print(
            "{rows} rows: peak {peak_mb:.0f} MB ({before_mb:.0f} before), {seconds:.0f} s".format(
                **found[-1]
            )
        )
    difference = found[1]["peak_mb"] - found[0]["peak_mb"]
    print(f"difference: {difference:.1f} MB")
    result = {"runs": found, "difference_mb": difference, "cores": os.cpu_count()}
    RESULT.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(measure(int(sys.argv[1]))))
    else:
        main()
