"""The job of the toy experiment, which is too short for a cluster and runs in this process."""

from __future__ import annotations

import json
import time

from rayseg.bottleneck import draw, table
from rayseg.config import ToyBottleneckConfig, as_plain
from rayseg.on_ray.bookkeeping import Outcome
from rayseg.store import Folder, claim, read_run, write_run


def toy_bottleneck(config: ToyBottleneckConfig) -> Outcome:
    """Makes the picture and the table of the information bottleneck."""
    folder = Folder(config.run) / "bottleneck"
    claim(folder, {"toy": as_plain(config.toy)})
    if not read_run(folder).get("done"):
        start = time.perf_counter()
        result = config.toy()
        seconds = time.perf_counter() - start
        folder.write("bottleneck.png", draw(result))
        folder.write("bottleneck.json", json.dumps(result.figures(), indent=2).encode())
        write_run(folder, {"table": table(result), "seconds": seconds, "done": True})
    return Outcome([*read_run(folder)["table"], f"picture: {folder.path('bottleneck.png')}"])
