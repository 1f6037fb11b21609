"""The images with a true mask on which trainings are judged."""

from collections.abc import Iterator

from jaxtyping import UInt8
from numpy import ndarray

from rayseg.labels import Truths
from rayseg.learn.training import Work
from rayseg.learn.worker import Worker
from rayseg.records.images import ImageError
from rayseg.store import read_manifest, read_pixels


def judged_images(
    work: Work, worker: Worker
) -> Iterator[tuple[UInt8[ndarray, "h w 3"], UInt8[ndarray, "h w"]]]:
    """A worker's share of the val split's images, evenly spread, and their true masks.

    Those that cannot be read are left out: the scores name what is wrong with them.
    """
    manifest = read_manifest(work.manifest)
    wanted = work.training.judge_images
    if not wanted or work.val_split not in manifest.table.column("split").to_pylist():
        return
    truths = Truths(manifest, work.val_split)
    samples = [s for s in manifest.select(work.val_split).samples() if s.id in truths.ids]
    every = -(-len(samples) // wanted) or 1
    for sample in samples[::every][worker.rank :: worker.world]:
        try:
            pixels = read_pixels(sample)
            yield pixels, truths.read(sample.id, (pixels.shape[0], pixels.shape[1]))
        except (ImageError, ValueError):
            continue
