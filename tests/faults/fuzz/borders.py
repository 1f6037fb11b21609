"""The borders that content crosses: what is given there, and the command that takes it."""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, is_dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as codec

from rayseg.config.job_list import JOBS
from rayseg.datasets.voc_names import CLASSES
from tests.faults.chain import CHAIN, Undisturbed
from tests.faults.fuzz import mutations
from tests.faults.fuzz.mutations import Mutate

SIZE_HW = (32, 48)
ENGINE = ("--engine", "plain", "--compute.threads", "1", "--compute.num-gpus", "0")
CAM_ONLY = ("--methods", "cam", "--cam.scales", "1.0", "--cam.precision", "fp32")


@dataclass(frozen=True)
class Border:
    """A place where content comes in.

    Attributes:
        name: in the table.
        make: writes content that is right into a folder.
        mutable: patterns of files in it, and how each is made wrong.
        commands: arguments of rayseg for a folder, one command after the other; several are drawn.
        cases: share of all.
    """

    name: str
    make: Callable[[Path], None]
    mutable: dict[str, Mutate]
    commands: Callable[[Path, Random], list[list[str]]]
    cases: int

    @property
    def of_run(self) -> bool:
        """Whether what is right is taken from a run."""
        return isinstance(self.make, partial)


def save_image(path: Path, number: int, size_hw: tuple[int, int] = SIZE_HW) -> None:
    """Noise of that number."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(number).integers(0, 256, (*size_hw, 3), np.uint8)
    Image.fromarray(pixels).save(path)


def save_mask(path: Path, labels: np.ndarray) -> None:
    """An indexed picture of labels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(labels, "P")
    image.putpalette([value for value in range(256) for _ in range(3)])
    image.save(path)


# COCO


def make_coco(folder: Path) -> None:
    """Three images, two categories, objects of each kind of outline, a crowd."""
    height, width = SIZE_HW
    for number in range(3):
        save_image(folder / "images" / f"{number:012d}.jpg", number)
    mask = np.zeros(SIZE_HW, np.uint8, order="F")
    mask[4:12, 6:20] = 1
    packed = codec.encode(mask)
    outlines = [
        [[6, 4, 20, 4, 20, 12, 6, 12]],
        {"size": list(SIZE_HW), "counts": [4 + 6 * height, 8, height * width - 12 - 6 * height]},
        {"size": list(SIZE_HW), "counts": packed["counts"].decode()},
    ]
    images = [
        {"id": number, "file_name": f"{number:012d}.jpg", "height": height, "width": width}
        for number in range(3)
    ]
    objects = [
        {"id": 10 + number, "image_id": number, "category_id": 3 + 4 * (number % 2), "area": 112,
         "bbox": [6, 4, 14, 8], "iscrowd": int(number == 1), "segmentation": outlines[number]}
        for number in range(3)
    ]  # fmt: skip
    categories = [{"id": 3, "name": "cat", "supercategory": "x"}, {"id": 7, "name": "dog"}]
    content = {"info": {}, "images": images, "annotations": objects, "categories": categories}
    (folder / "instances.json").write_text(json.dumps(content))
    images = [one | {"id": one["id"] + 50} for one in images]
    objects = [one | {"id": one["id"] + 50, "image_id": one["image_id"] + 50} for one in objects]
    content = {"images": images, "annotations": objects, "categories": categories}
    (folder / "val.json").write_text(json.dumps(content))


def prepare_coco(folder: Path, random: Random) -> list[list[str]]:
    flags = ["--data", "coco", "--coco.images", f"{folder}/images"]
    flags += ["--coco.annotations", f"{folder}/instances.json"]
    if random.random() < 0.4:
        flags += ["--coco.val-images", f"{folder}/images"]
        flags += ["--coco.val-annotations", f"{folder}/val.json"]
    flags += random.choice(([], ["--coco.no-masks"], ["--coco.crowd", "class"]))
    return [["prepare", "--run", f"{folder}/run", *ENGINE, *flags]]


# PASCAL VOC


def make_voc(folder: Path) -> None:
    """Two images in the layout of VOCdevkit, with lists, XML and both kinds of masks."""
    height, width = SIZE_HW
    names = ("2007_000001", "2007_000002")
    for place in ("Annotations", "ImageSets/Main", "ImageSets/Segmentation"):
        (folder / place).mkdir(parents=True)
    for number, name in enumerate(names):
        save_image(folder / "JPEGImages" / f"{name}.jpg", number)
        labels = np.zeros(SIZE_HW, np.uint8)
        labels[4:12, 6:20] = 8 if number else 12
        save_mask(folder / "SegmentationClass" / f"{name}.png", labels)
        save_mask(folder / "SegmentationObject" / f"{name}.png", (labels > 0).astype(np.uint8))
        (folder / "Annotations" / f"{name}.xml").write_text(
            f"<annotation><folder>VOC2012</folder><filename>{name}.jpg</filename><size><width>"
            f"{width}</width><height>{height}</height><depth>3</depth></size><segmented>1"
            f"</segmented><object><name>{'cat' if number else 'dog'}</name><pose>Left</pose>"
            "<truncated>0</truncated><difficult>0</difficult><bndbox><xmin>7</xmin><ymin>5</ymin>"
            "<xmax>20</xmax><ymax>12</ymax></bndbox></object></annotation>"
        )
    lists = folder / "ImageSets"
    for kind in ("Main", "Segmentation"):
        (lists / kind / "train.txt").write_text("\n".join(names) + "\n")
    for name in CLASSES:
        has = {"dog": (1, -1), "cat": (-1, 1)}.get(name, (-1, -1))
        lines = [f"{image} {one:2d}" for image, one in zip(names, has, strict=True)]
        (lists / "Main" / f"{name}_train.txt").write_text("\n".join(lines) + "\n")


def prepare_voc(folder: Path, random: Random) -> list[list[str]]:
    flags = ["--data", "voc", "--voc.root", str(folder), "--voc.splits", "train"]
    flags += random.choice(([], ["--voc.tags-from", "annotations"]))
    if random.random() < 0.2:
        flags += ["--voc.list-file", f"{folder}/ImageSets/Main/train.txt"]
    return [["prepare", "--run", f"{folder}/run", *ENGINE, *flags]]


# A folder with tables


def make_folder(folder: Path) -> None:
    """Four images of several formats, tags, boxes, true masks, a list of ids, a classifier."""
    for number, suffix in enumerate(("png", "jpg", "bmp", "gif")):
        save_image(folder / "images" / f"i{number}.{suffix}", number)
        labels = np.zeros(SIZE_HW, np.uint8)
        labels[4:12, 6:20] = 1 + number % 2
        save_mask(folder / "masks" / f"i{number}.png", labels)
    files = ("i0.png", "i1.jpg", "i2.bmp", "i3.gif")
    tags = [f"{name},{('green', 'red')[n % 2]}" for n, name in enumerate(files)]
    (folder / "tags.csv").write_text("\n".join(["image,tags", *tags]) + "\n")
    boxes = [f"{name},{('green', 'red')[n % 2]},6,4,20,12" for n, name in enumerate(files)]
    (folder / "boxes.csv").write_text("\n".join(["image,class,x1,y1,x2,y2", *boxes]) + "\n")
    (folder / "ids.txt").write_text("i0\ni1\ni2\n")


def folder_flags(folder: Path, random: Random) -> list[str]:
    flags = ["--data", "folder", "--folder.images", f"{folder}/images"]
    kinds = random.choice(("tags", "boxes", "both"))
    flags += ["--folder.tags", f"{folder}/tags.csv"] if kinds != "boxes" else []
    flags += ["--folder.boxes", f"{folder}/boxes.csv"] if kinds != "tags" else []
    flags += random.choice(([], ["--folder.masks", f"{folder}/masks"]))
    return flags + random.choice(([], [], ["--folder.class-names", "green", "red"]))


def prepare_folder(folder: Path, random: Random) -> list[list[str]]:
    return [["prepare", "--run", f"{folder}/run", *ENGINE, *folder_flags(folder, random)]]


def tagged(folder: Path) -> list[str]:
    flags = ["--folder.images", f"{folder}/images", "--folder.tags", f"{folder}/tags.csv"]
    flags += ["--folder.masks", f"{folder}/masks"]
    return ["prepare", "--run", f"{folder}/run", *ENGINE, "--data", "folder", *flags]


def through_seeds(folder: Path, random: Random) -> list[list[str]]:
    seeds = ["make-seeds", "--run", f"{folder}/run", *ENGINE, *CAM_ONLY]
    weights = ["--weights", f"{folder}/classifier.safetensors"]
    return [tagged(folder), [*seeds, *weights]]


def through_truth(folder: Path, random: Random) -> list[list[str]]:
    sweep = ["tune", "--run", f"{folder}/run", *ENGINE, "--space", "cam", "--grid", "flip=false"]
    weights = ["--weights", f"{folder}/classifier.safetensors", "--cam.scales", "1.0"]
    return [tagged(folder), [*sweep, *weights]]


def through_ids(folder: Path, random: Random) -> list[list[str]]:
    first, second = through_seeds(folder, random)
    return [first, [*second, "--ids", f"{folder}/ids.txt"]]


def settings(folder: Path, random: Random) -> list[list[str]]:
    job = random.choice(("prepare", "make-seeds", "refine-seeds", "train-classifier", "predict",
                         "export", "train-segmenter", "score", "make-box-maps"))  # fmt: skip
    flags = ["--data", "folder", "--folder.images", f"{folder}/images", "--folder.tags",
             f"{folder}/tags.csv"] if job == "prepare" else []  # fmt: skip
    config = ["--config", f"{folder}/tiny.toml"]
    return [[job, *config, "--run", f"{folder}/run", "--engine", "plain", *flags]]


# The command line

QUICK = ("prepare", "make-seeds", "refine-seeds", "predict", "score", "export", "train-classifier",
         "train-detector", "make-box-maps", "check")  # fmt: skip
"""Jobs whose flags are parsed in no time; without a run they end there."""
OWN = ("run", "engine", "address", "out", "data")
"""Flags that say where results go, or which Ray is started."""


def flags(folder: Path, random: Random) -> list[list[str]]:
    """Strange values of flags that are there, and flags that are not."""
    job = random.choice(QUICK)
    given = []
    for _ in range(random.choice((1, 1, 1, 2))):
        name = random.choice([one for one in flags_of(JOBS[job].config()) if one not in OWN])
        if random.random() < 0.1:
            name = name[:-1] if random.random() < 0.5 else f"{name}s"
        value = mutations.text_of(mutations.strange(random)).replace("\0", "")
        given += random.choice(([f"--{name}", value], [f"--{name}={value}"], [f"--{name}"]))
    more = ["--data", "folder"] if job == "prepare" else []
    return [[job, "--run", f"{folder}/run", "--engine", "plain", *more, *given]]


def flags_of(config: Any, prefix: str = "") -> Iterator[str]:
    """Names of the flags of a configuration."""
    for one in fields(config):
        value, name = getattr(config, one.name), f"{prefix}{one.name}".replace("_", "-")
        if is_dataclass(value):
            yield from flags_of(value, f"{name}.")
        else:
            yield name


# A run


def run_commands(folder: Path, random: Random) -> list[list[str]]:
    command = random.choice([one for one in CHAIN for _ in range(one.weight)])
    return [command.line(folder / "run", folder / "tiny.toml")]


def make_more(undisturbed: Undisturbed, folder: Path) -> None:
    """The folder with tables, a classifier and a file of settings."""
    make_folder(folder)
    run = undisturbed.after(len(CHAIN) - 1)
    shutil.copy(run / "classifier" / "classifier.safetensors", folder)
    shutil.copy(undisturbed.settings, folder / "tiny.toml")


def make_run(undisturbed: Undisturbed, folder: Path) -> None:
    """A finished run."""
    shutil.copytree(undisturbed.after(len(CHAIN) - 1), folder / "run")
    shutil.copy(undisturbed.settings, folder / "tiny.toml")


def borders(undisturbed: Undisturbed | None) -> dict[str, Border]:
    """All of them by name; without a run, those that take none can be used."""
    with_weights, finished = partial(make_more, undisturbed), partial(make_run, undisturbed)
    own = mutations
    return {
        one.name: one
        for one in (
            Border("COCO's JSON", make_coco, {"*.json": own.json_file}, prepare_coco, 34),
            Border("VOC's lists", make_voc, {"ImageSets/*/*.txt": own.lines_file}, prepare_voc, 8),
            Border("VOC's XML", make_voc, {"Annotations/*.xml": own.xml_file}, prepare_voc, 12),
            Border("VOC's masks", make_voc, {"Segmentation*/*.png": own.raw}, prepare_voc, 3),
            Border("tables", make_folder, {"*.csv": own.csv_file}, prepare_folder, 14),
            Border("images", with_weights, {"images/*": own.raw}, through_seeds, 6),
            Border("true masks", with_weights, {"masks/*": own.raw}, through_truth, 2),
            Border("lists of ids", with_weights, {"ids.txt": own.lines_file}, through_ids, 3),
            Border("settings", with_weights, {"tiny.toml": own.toml_file}, settings, 6),
            Border("weights", with_weights, {"*.safetensors": own.safetensors_file},
                   through_seeds, 4),
            Border("flags", with_weights, {}, flags, 6),
            Border("a run's JSON", finished, {"run/**/*.json": own.json_file}, run_commands, 3),
            Border("a run's tables", finished, {
                "run/**/*.parquet": own.parquet_file, "run/**/_index.pq": own.parquet_file,
            }, run_commands, 3),
            Border("a run's other files", finished, {
                "run/**/*.npz": own.npz_file, "run/**/*.safetensors": own.safetensors_file,
            }, run_commands, 1),
        )
    }  # fmt: skip
