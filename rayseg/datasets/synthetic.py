"""Drawn scenes with exact truth, built so that plain CAM shows its known faults.

Each object is a large body and a small part that alone tells its class: cats and dogs wear the same
coats and differ in the head; hulls and buses share their paint, plumage has any colour. Water lies
under nine boats in ten and sky behind nine birds in ten, and both also occur with nothing in front:
as out-of-distribution images. A classifier therefore looks at the part and the background, and its
map misses the body and bleeds into the water.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, UInt8
from numpy import ndarray
from PIL import Image

from rayseg.datasets.base import Dataset, DatasetError, box_arrays, write_mask
from rayseg.datasets.drawing import BACKGROUNDS, OBJECTS, Rng, Sketch, pick, ramp
from rayseg.datasets.tally import Tally
from rayseg.records import InstanceMasks, Sample
from rayseg.records.rle import encode_mask

CLASSES = ("bird", "boat", "bus", "cat", "dog")
CORRELATED = {"bird": "sky", "boat": "water"}  # class: the background that gives it away
CORRELATION = 0.9  # P(background | class) of these
_NEUTRAL = ("grass", "road", "room", "sand")
_SIZE_RANGE = (0.2, 0.8)  # width of an object over the side of the image: a factor of four
_MIN_VISIBLE = 0.55  # of each object and of its part, so that a tag can always be seen
_TRIES = 8
_PNG_COMPRESSION = 1  # noise does not shrink; 3 times faster than PIL's default
# Far apart, so that more training images never change the validation set.
_FIRST_INDEX = {"train": 0, "val": 1_000_000, "ood": 2_000_000}


@dataclass(frozen=True)
class Scene:
    """One drawn image with everything that is known of it.

    Attributes:
        image: uint8 (h, w, 3) RGB.
        labels: uint8 (h, w), 0 or class index + 1.
        instances: visible pixels of each object, in the order in which they were painted.
        parts: bool (o, h, w) the visible pixels of each object's discriminative part.
        boxes_xyxy: float32 (o, 4) tight boxes of the visible pixels, end exclusive.
        tags: class indices present, ascending.
        background: one of the names of drawing.BACKGROUNDS.
    """

    image: UInt8[ndarray, "h w 3"]
    labels: UInt8[ndarray, "h w"]
    instances: InstanceMasks
    parts: Bool[ndarray, "o h w"]
    boxes_xyxy: Float32[ndarray, "o 4"]
    tags: tuple[int, ...]
    background: str


@dataclass(frozen=True)
class Synthetic(Dataset):
    """Synthetic scenes; each is a function of the seed and its number only.

    Attributes:
        count: Number of training scenes.
        val_count: Scenes of the split val.
        ood_count: Backgrounds without an object or tags, which make the split ood.
        size: Height and width in pixels, at least 32.
        seed: Seed of the whole set, 0 or more.
    """

    count: int = 200
    val_count: int = 0
    ood_count: int = 0
    size: int = 128
    seed: int = 0

    def __post_init__(self) -> None:
        counts = (self.count, self.val_count, self.ood_count)
        if min(counts) < 0 or max(counts) > _FIRST_INDEX["val"] or not sum(counts):
            raise DatasetError(
                f"counts of scenes must be 0 to 1,000,000 and not all 0, got {counts}"
            )
        if self.size < 32 or self.seed < 0:
            raise DatasetError(
                f"size must be at least 32 and seed not negative, got {self.size} and {self.seed}"
            )

    @property
    def classes(self) -> tuple[str, ...]:
        """The five names in alphabetical order."""
        return CLASSES

    def read(self, workspace: Path, tally: Tally) -> Iterator[Sample]:
        """Draws the scenes; writes ``workspace/images/ID.png`` and ``workspace/masks/ID.png``."""
        images, masks = workspace.absolute() / "images", workspace.absolute() / "masks"
        images.mkdir(parents=True, exist_ok=True)
        masks.mkdir(parents=True, exist_ok=True)
        counts = {"train": self.count, "val": self.val_count, "ood": self.ood_count}
        for split, count in counts.items():
            for number in range(count):
                name = f"{split}_{number:06d}"
                index = _FIRST_INDEX[split] + number
                scene = make_scene(self.seed, index, self.size, ood=split == "ood")
                image, mask = images / f"{name}.png", masks / f"{name}.png"
                Image.fromarray(scene.image).save(image, compress_level=_PNG_COMPRESSION)
                write_mask(mask, scene.labels)
                yield tally.take_sample(
                    Sample(
                        id=name,
                        path=str(image),
                        height=self.size,
                        width=self.size,
                        tags=scene.tags,
                        boxes_xyxy=scene.boxes_xyxy,
                        box_classes=scene.instances.classes,
                        split=split,
                        mask_path=str(mask),
                        true_masks=tuple(map(encode_mask, scene.instances.masks)),
                    )
                )

    def files(self) -> Iterator[Path]:
        """Yields nothing: the scenes follow from the settings."""
        yield from ()


def make_scene(seed: int, index: int, size: int = 128, ood: bool = False) -> Scene:
    """Draws scene number ``index`` of the set ``seed``: one to three objects of one or two classes.

    Args:
        ood: a background alone, with water and sky as often as all others together.
    """
    rng = np.random.default_rng([seed, index])
    names = [] if ood else _draw_classes(rng)
    background = _draw_background(rng, names, ood)
    canvas = BACKGROUNDS[background](rng, size)
    placed = _place(rng, names, size)
    for item in placed:
        _paste(canvas, item, shadow=background != "sky")
    placed = _paint_stalk(rng, canvas, placed)
    return _scene(f"{seed}_{index}", _photograph(rng, canvas), placed, background)


# ------------------------------------------------------------------------------- what is in it


def _draw_classes(rng: Rng) -> list[str]:
    """Returns the class of each object; a bird and a boat never meet, for one background each."""
    count = int(rng.choice([1, 2, 3], p=[0.45, 0.35, 0.2]))
    first, second = (CLASSES[i] for i in rng.permutation(len(CLASSES))[:2])
    if count == 1 or {first, second} == set(CORRELATED) or rng.random() < 0.25:
        return [first] * count
    return [first, second, str(rng.choice([first, second]))][:count]


def _draw_background(rng: Rng, names: list[str], ood: bool) -> str:
    telling = sorted({CORRELATED[name] for name in names if name in CORRELATED})
    if ood:
        return str(rng.choice(list(BACKGROUNDS), p=[0.125] * 4 + [0.25] * 2))
    if telling and rng.random() < CORRELATION:
        return telling[0]
    if not telling and rng.random() < 1 - CORRELATION:
        return str(rng.choice(sorted(CORRELATED.values())))
    return str(rng.choice(_NEUTRAL))


@dataclass(frozen=True)
class _Placed:
    """A painted object, where its window lies in the image, and its pixels that are seen."""

    name: str
    sketch: Sketch
    window: tuple[slice, slice]
    visible: Bool[ndarray, "h w"]

    def remains(self, visible: Bool[ndarray, "h w"]) -> bool:
        """Whether enough of the object and of its part would still be seen."""
        seen = visible[self.window]
        return all(
            np.count_nonzero(seen & mask) >= _MIN_VISIBLE * np.count_nonzero(mask)
            for mask in (self.sketch.whole, self.sketch.part)
        )


def _place(rng: Rng, names: list[str], size: int) -> list[_Placed]:
    """Draws the objects, larger ones first, each where all before it stay recognisable.

    One that finds no such place is left out; the first always has one.
    """
    sides = [round(side * size) for side in rng.uniform(*_SIZE_RANGE, len(names))]
    placed: list[_Placed] = []
    for name, side in sorted(zip(names, sides, strict=True), key=lambda pair: -pair[1]):
        sketch = OBJECTS[name](rng, side)
        for top, left in rng.integers(0, size - side + 1, (_TRIES, 2)).tolist():
            window = slice(top, top + side), slice(left, left + side)
            whole = np.zeros((size, size), dtype=bool)
            whole[window] = sketch.whole
            behind = _hide(placed, whole)
            if behind is not None:
                placed = [*behind, _Placed(name, sketch, window, whole)]
                break
    return placed


def _hide(placed: list[_Placed], over: Bool[ndarray, "h w"]) -> list[_Placed] | None:
    """Returns the objects less the pixels that ``over`` hides, None if that is too much of one."""
    hidden = [replace(item, visible=item.visible & ~over) for item in placed]
    return hidden if all(item.remains(item.visible) for item in hidden) else None


# ------------------------------------------------------------------------------ how it is painted


def _paste(canvas: Float32[ndarray, "h w 3"], item: _Placed, shadow: bool) -> None:
    sketch, under = item.sketch, canvas[item.window]
    if shadow:
        depth = 0.45 * ramp(-sketch.ellipse(0, sketch.foot, 0.9, 0.16), 0, 0.12)
        under *= 1 - depth[..., None]
    under += (sketch.colours - under) * sketch.coverage[..., None]


def _paint_stalk(
    rng: Rng, canvas: Float32[ndarray, "h w 3"], placed: list[_Placed]
) -> list[_Placed]:
    """Sometimes paints a leaning post in front, which belongs to the background."""
    size = len(canvas)
    wanted, foot, lean, half = rng.random() < 0.3, *rng.uniform((0, -0.1, 0.01), (1, 0.1, 0.022))
    top, colour = rng.uniform(0, 0.5), pick(rng, ((0.30, 0.24, 0.16), (0.24, 0.34, 0.14)))
    if not wanted:
        return placed
    axis = (np.arange(size, dtype=np.float32) + 0.5) / size
    away = np.abs(axis[None, :] - foot - lean * axis[:, None])
    alpha = np.clip(0.5 - (away - half) * size, 0, 1) * (axis[:, None] > top)
    behind = _hide(placed, alpha >= 0.5)
    if behind is None:
        return placed
    light = 1.25 - ramp(away, 0, half)[..., None] * np.float32(0.5)
    canvas += (np.array(colour, dtype=np.float32) * light - canvas) * alpha[..., None]
    return behind


def _photograph(rng: Rng, canvas: Float32[ndarray, "h w 3"]) -> UInt8[ndarray, "h w 3"]:
    """Returns the canvas under light of a random strength and tint, with the grain of a sensor."""
    light = (rng.uniform(0.8, 1.12) * rng.uniform(0.95, 1.05, 3)).astype(np.float32)
    grain = rng.standard_normal(canvas.shape[:2], dtype=np.float32) * np.float32(0.02)
    return (np.clip(canvas * light + grain[..., None], 0, 1) * 255 + 0.5).astype(np.uint8)


def _scene(
    name: str, image: UInt8[ndarray, "h w 3"], placed: list[_Placed], background: str
) -> Scene:
    size_hw = image.shape[:2]
    masks = np.zeros((len(placed), *size_hw), dtype=bool)
    parts = np.zeros_like(masks)
    labels = np.zeros(size_hw, dtype=np.uint8)
    classes = [CLASSES.index(item.name) for item in placed]
    for i, item in enumerate(placed):
        masks[i] = item.visible
        parts[i][item.window] = item.visible[item.window] & item.sketch.part
        labels[item.visible] = classes[i] + 1
    boxes_xyxy, box_classes = box_arrays([_tight_box(mask) for mask in masks], classes)
    return Scene(
        image=image,
        labels=labels,
        instances=InstanceMasks(name, masks, box_classes),
        parts=parts,
        boxes_xyxy=boxes_xyxy,
        tags=tuple(sorted(set(classes))),
        background=background,
    )


def _tight_box(mask: Bool[ndarray, "h w"]) -> tuple[float, float, float, float]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)
