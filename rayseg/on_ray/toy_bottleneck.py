"""The job of the toy experiment, which is too short for a cluster and runs in this process."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from rayseg.analyses.bottleneck.figures import draw, table
from rayseg.config import ToyBottleneckConfig, as_plain
from rayseg.steps.outcome import Outcome
from rayseg.store import Folder, claim, read_run, write_run


def toy_bottleneck(config: ToyBottleneckConfig) -> Outcome:
    """Makes the picture and the table of the information bottleneck."""
    folder = Folder(config.run) / "bottleneck"
    claim(folder, {"toy": as_plain(config.toy)})
    if not read_run(folder).get("done"):
        start = time.perf_counter()
        with _one_thread():
            result = config.toy()
        seconds = time.perf_counter() - start
        folder.write("bottleneck.png", draw(result))
        folder.write("bottleneck.json", json.dumps(result.figures(), indent=2).encode())
        write_run(folder, {"table": table(result), "seconds": seconds, "done": True})
    return Outcome([*read_run(folder)["table"], f"picture: {folder.path('bottleneck.png')}"])


@contextmanager
def _one_thread() -> Iterator[None]:
    """Layers so small are slower on several, and round differently on each number of them."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
