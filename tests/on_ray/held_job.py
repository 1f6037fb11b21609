"""A job of 24 rows by the command line's own way of ending: ``held_job.py FOLDER HELD_AFTER``."""

import sys
from functools import partial
from pathlib import Path

from rayseg.cli import JOBS, run_script
from rayseg.config import JobConfig
from rayseg.on_ray.data import Crew, decoded, manifest_rows, write_rows
from rayseg.on_ray.session import session
from rayseg.steps.outcome import Outcome
from rayseg.store import SEEDS_SCHEMA, Folder, lease, stored_ids
from tests.on_ray.fakes import Counting, Undecoded, manifest_table


class HeldJob:
    """Stands in for a job of the list."""

    config = JobConfig
    words = ()

    def run(self, config):
        """Fills a folder with what is missing."""
        out, table = Folder(f"{config.run}/seeds"), manifest_table(24)
        pool = Crew(partial(Counting, f"{config.run}/marks", int(sys.argv[2])), 2, 1)
        with session(), lease(out, "held"):
            done = stored_ids(out)
            left = table.filter([id_ not in done for id_ in table.column("id").to_pylist()])
            source = decoded(manifest_rows(left, out / "pending", 2), Undecoded(), out)
            write_rows(source, left.num_rows, pool, out, SEEDS_SCHEMA, "held")
        return Outcome(["done"])


if __name__ == "__main__":
    Path(sys.argv[1], "marks").mkdir(exist_ok=True)
    JOBS["held"] = HeldJob()
    sys.exit(run_script("held", ["--run", sys.argv[1]]))
