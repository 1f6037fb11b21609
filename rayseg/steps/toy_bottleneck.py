"""The job of the toy experiment, which is too short for a cluster and runs in this process."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from rayseg.analyses.bottleneck.figures import draw, table
from rayseg.config import ToyBottleneckConfig, as_plain
from rayseg.steps.engine import Engine
from rayseg.steps.outcome import Outcome
from rayseg.steps.step import Once, Step, carry_out
from rayseg.store import Folder, read_run


def toy_bottleneck(config: ToyBottleneckConfig, engine: Engine) -> Outcome:
    """Makes the picture and the table of the information bottleneck."""
    folder, identity = Folder(config.run) / "bottleneck", {"toy": as_plain(config.toy)}
    work = Once(lambda folder, engine: _draw(config, folder))
    step = Step("bottleneck", folder, identity, work, "toy bottleneck", _tell)
    return carry_out([step], engine, config.compute)


def _draw(config: ToyBottleneckConfig, folder: Folder) -> dict[str, Any]:
    start = time.perf_counter()
    with _one_thread():
        result = config.toy()
    seconds = time.perf_counter() - start
    folder.write("bottleneck.png", draw(result))
    folder.write("bottleneck.json", json.dumps(result.figures(), indent=2).encode())
    return {"table": table(result), "seconds": seconds}


def _tell(folder: Folder) -> Outcome:
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
