"""The README is run: its blocks, its tables, its trees.

``python -m tests.test_docs`` prints the table of methods for the README.
"""

import dataclasses
import inspect
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from rayseg.attribution import BOX_METHODS, COMBINATIONS, METHODS
from rayseg.cli import JOBS, parse, split_flags, with_flags
from rayseg.config import RunConfig, preset, read_toml
from rayseg.datasets import DATASETS
from rayseg.datasets.tally import Tally
from rayseg.export import EXPORTERS
from rayseg.nets.classifier import CamClassifier
from rayseg.nets.published import published_file
from rayseg.nets.weights import to_safetensors
from rayseg.refine import BOX_REFINERS, REFINERS
from rayseg.store import SEEDS_SCHEMA, Folder, pack_maps, rows_to_table, write_shard

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
ARCHITECTURE = (ROOT / "docs/architecture.md").read_text()
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
BLOCKS = BLOCK.findall(README)
DRAWN = [text for kind, text in BLOCKS + BLOCK.findall(ARCHITECTURE) if kind == "text"]
TREES = {text.split("/", 1)[0]: text for text in DRAWN}


def blocks(*kinds):
    return [text for kind, text in BLOCKS if kind in kinds]


def commands():
    """Every command line of the README's shell blocks as words, variables in front dropped."""
    text = "".join(blocks("bash", "console")).replace("\\\n", " ")
    lines = (shlex.split(line.removeprefix("$ "), comments=True) for line in text.splitlines())
    for words in lines:
        while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
            words.pop(0)
        if words:
            yield words


def as_job(words):
    """(job, flags) of ``rayseg <job>``, of ``python jobs/<job>.py``, or of a submission of that."""
    if words[:2] == ["rayseg", "submit"]:
        return words[2], split_flags(words[3:])[1]
    if words[0] == "rayseg":
        return words[1], with_flags(JOBS[words[1]].words, words[2:])
    start = words.index("python")
    script = ROOT / words[start + 1]
    assert script.is_file(), script
    return script.stem.replace("_", "-"), words[start + 2 :]


JOB_LINES = [words for words in commands() if words[0] != "make"]


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """A folder with all that the README's blocks read, in small, as the working directory."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "jobs/presets", tmp_path / "jobs/presets")
    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for name in ("photo.jpg", "photos/meadow.jpg", "photos/stable.jpg", "photos/fog.jpg"):
        Image.fromarray(rng.integers(0, 256, (40, 56, 3), dtype=np.uint8)).save(name)
    for name, text in zip(("tags.csv", "boxes.csv"), blocks("csv"), strict=True):
        Path(name).write_text(text)
    Path("mine.toml").write_text(blocks("toml")[0])
    network = CamClassifier("mobilenet_v2", 5)
    facts = {"trunk": "mobilenet_v2", "stride": 16, "classes": ["a", "b", "c", "d", "e"]}
    Folder("runs/demo/classifier").write("classifier.safetensors", to_safetensors(network, facts))
    row = {"id": "scene", "status": "ok", "height": 40, "width": 56, "classes": [0, 3]}
    row["maps"] = pack_maps(rng.random((2, 10, 14)).astype(np.float32))
    write_shard(Folder("runs/demo/seeds/advcam"), rows_to_table([row], SEEDS_SCHEMA))
    return tmp_path


def execute(text):
    Path("block.py").write_text(text)
    return runpy.run_path("block.py")


def test_every_block_is_of_a_kind_that_is_tested():
    assert {kind for kind, _ in BLOCKS} <= {"python", "bash", "console", "toml", "csv", "text"}
    assert [len(blocks(kind)) for kind in ("python", "csv", "text")] == [3, 2, 1]
    assert [kind for kind, _ in BLOCK.findall(ARCHITECTURE)] == ["text"]


@pytest.fixture
def cut_laptop(tmp_path, monkeypatch):
    """The preset for a laptop with two steps of small crops, on a trunk that nobody trained."""
    (tmp_path / "presets").mkdir()
    text = (preset.FOLDER / "laptop.toml").read_text()
    for whole, cut in (("least_steps = 100", "iterations = 2"), ("crop = 288", "crop = 48")):
        assert whole in text
        text = text.replace(whole, cut)
    (tmp_path / "presets" / "laptop.toml").write_text(text)
    monkeypatch.setattr(preset, "FOLDER", tmp_path / "presets")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    file = published_file("mobilenet_v2", "IMAGENET1K_V1")
    file.cache.mkdir(parents=True)
    torch.save(torchvision.models.mobilenet_v2().state_dict(), file.cache / file.name)


def test_the_first_example_labels_photos(workplace, cut_laptop):
    found = execute(blocks("python")[0])
    assert found["labels"].classes == ("cow", "horse", "person")
    assert found["mask"].shape == (40, 56)
    assert not found["labels"].masks["fog"].any()  # which shows none of them
    with Image.open("meadow.png") as picture:
        assert picture.size == (56, 40)


def test_the_example_of_one_image_is_eight_lines_and_gives_maps(workplace):
    assert len(blocks("python")[1].splitlines()) == 8
    maps = execute(blocks("python")[1])["maps"]
    assert maps.shape == (2, 40, 56)
    assert 0 <= maps.min() <= maps.max() <= 1


def test_the_example_that_reads_seeds_prints_one_line_a_map(workplace, capsys):
    execute(blocks("python")[2])
    assert capsys.readouterr().out == "scene 0 (14, 10)\nscene 3 (14, 10)\n"


@pytest.mark.parametrize("words", JOB_LINES, ids=" ".join)
def test_a_command_has_flags_that_exist(words, workplace):
    name, flags = as_job(words)
    parse(JOBS[name].config, flags, f"rayseg {name}")


def test_the_boxes_of_the_readme_are_read_by_its_command(workplace):
    (flags,) = [words[2:] for words in JOB_LINES if "boxes.csv" in words]
    config = parse(RunConfig, flags, "rayseg run")
    assert config.supervision == "boxes"
    Image.new("RGB", (270, 190)).save("photos/meadow.jpg")  # of a size that its boxes fit
    (meadow,) = config.dataset().samples(workplace, Tally())
    assert config.dataset().classes == ("cow", "person")
    assert meadow.boxes_xyxy.tolist() == [[34, 60, 210, 180], [220, 40, 260, 170]]
    assert meadow.box_classes.tolist() == [0, 1]


def test_targets_of_make_exist():
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.M)
    named = [words[1] for words in commands() if words[0] == "make"]
    assert set(named) <= set(targets)
    assert {"demo", "test"} <= set(named)


def test_flags_in_the_text_exist():
    known = {"--config", "--preset", "--help", "--help-all", "--version"}
    known |= {f"--{name}" for job in JOBS.values() for name in flag_names(job.config())}
    assert set(re.findall(r"`(--[\w.-]+)", README)) <= known


def flag_names(config, prefix=""):
    for field in dataclasses.fields(config):
        value, name = getattr(config, field.name), prefix + field.name.replace("_", "-")
        yield name
        if dataclasses.is_dataclass(value):
            yield from flag_names(value, f"{name}.")


def test_a_configuration_file_is_read_and_flags_go_before_it(workplace):
    config = read_toml("mine.toml", RunConfig())
    assert (config.folder.images, config.advcam.num_steps) == (Path("photos"), 10)
    flags = ["--config", "mine.toml", "--preset", "as_written", "--advcam.num-steps", "27"]
    given = parse(RunConfig, flags, "rayseg run")
    assert (given.advcam.num_steps, given.advcam.scales) == (27, (0.5, 1.0, 1.5))
    assert given.advcam.step_size == 0.008


@pytest.mark.parametrize(
    "path", sorted((ROOT / "jobs/presets").glob("*.toml")), ids=lambda p: p.stem
)
def test_a_shipped_configuration_is_read(path):
    assert read_toml(str(path), RunConfig()) != RunConfig()


def test_files_that_the_text_names_exist():
    linked = re.findall(r"\]\((?!http)([^)#]+)\)", README)
    named = re.findall(r"`((?:tests|jobs|rayseg|docs)/[\w./]+)`", README + ARCHITECTURE)
    assert [name for name in linked + named if not (ROOT / name).exists()] == []


def test_lists_of_data_sets_refiners_and_exporters_are_complete():
    refiners = [*REFINERS, *BOX_REFINERS]
    lists = {"Data sets": DATASETS, "Refiners": refiners, "Exporters": EXPORTERS}
    for title, names in lists.items():
        said = re.search(rf"{title}: ([^.]+)\.", README)
        assert re.findall(r"`(\w+)`", said[1]) == list(names)


def test_the_tree_of_the_code_is_what_is_there():
    names = re.findall(r"^  ([\w.]+/?) ", TREES["rayseg"], re.M)
    inside = [path for path in (ROOT / "rayseg").iterdir() if not path.name.startswith("__")]
    parts = [path.name + "/" * path.is_dir() for path in inside if path.name != "py.typed"]
    assert sorted(names) == sorted(parts)
    assert re.findall(r"^([\w.]+)/ ", TREES["rayseg"], re.M) == ["jobs", "tune_spaces"]


# The table of methods


def methods_table():
    """Markdown of all methods, from their docstrings and presets."""
    lines = ["| method | what it is | paper | `as_written` differs in |", "|---|---|---|---|"]
    for name, method in (METHODS | BOX_METHODS).items():
        what = inspect.getdoc(method).splitlines()[0].rstrip(".")
        lines.append(f"| `{name}` | {what} | {paper(method)} | {differing(method)} |")
    for name, (looking, changing) in COMBINATIONS.items():
        what = f"`{looking}` on the weights that `{changing}` reaches, and both maps added"
        papers = "; ".join(paper(METHODS[part]) for part in (looking, changing))
        lines.append(f"| `{name}` | {what} | {papers} | what its parts differ in |")
    return "\n".join(lines) + "\n"


def paper(method):
    """The first citation of the method, or of its file."""
    text = " ".join(f"{method.__doc__} {inspect.getmodule(method).__doc__}".split())
    found = re.search(r"[\w-]+ et al\., \*[^*]+\*, [A-Za-z]+ \d{4}", text)
    assert found, f"{method.__module__} must cite `Name et al., *Title*, VENUE YEAR`"
    return found[0]


def differing(method):
    official, written = method.official(), method.as_written()
    names = [field.name for field in dataclasses.fields(method)]
    changed = [name for name in names if getattr(official, name) != getattr(written, name)]
    return ", ".join(f"{name} {plain(getattr(written, name))}" for name in changed) or "nothing"


def plain(value):
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def test_the_table_of_methods_is_that_of_the_code():
    there = README.partition("<!-- methods -->\n")[2].partition("<!-- /methods -->")[0]
    assert there == methods_table()  # python -m tests.test_docs prints it


# The whole chain on own images

TINY = [
    "--methods=advcam",
    "--classifier.trunk=mobilenet_v2",
    "--classifier.weights=none",
    "--classifier.epochs=1",
    "--classifier.batch-size=2",
    "--classifier.crops.crop=64",
    "--advcam.num-steps=1",
    "--labels=advcam+label_crf",
    "--segmenter.trunk=mobilenet_v2",
    "--segmenter.weights=classifier",
    "--segmenter.iterations=2",
    "--segmenter.batch-size=2",
    "--segmenter.crops.crop=48",
    "--compute.actors=1",
]


BOXES = ("detector", "box_maps", "mask_rcnn", "instances", "analyses")
NETWORKS_ASKED_FOR = ("ficklenet", "seam", "irnet", "affinity")
NOT_OF_OWN_IMAGES = ("images", "predictions", "bottleneck", "tuning", *NETWORKS_ASKED_FOR, *BOXES)


@pytest.mark.slow
def test_own_images_become_masks_by_the_commands_of_the_readme(workplace):
    run, *others = [words[1:] for words in JOB_LINES if "runs/mine" in words]
    command = [sys.executable, "-c", "from rayseg.cli import main; main()"]
    environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    for arguments in ([*run, *TINY], *others):
        given = [*command, *arguments, "--engine=plain"]  # what Ray does follows in its own tests
        subprocess.run(given, env=environment, check=True)
    with Image.open("meadow.overlay.png") as picture:
        assert picture.size == (2 * 56 + 8, 40)  # the photo and its one mask
    masks = {path.stem for path in Path("masks").rglob("*.png")}
    assert masks == {"meadow", "stable"}
    assert {np.array(Image.open(path)).shape for path in Path("masks").rglob("*.png")} == {(40, 56)}
    for name in re.findall(r"^  ([\w.<>+/]+)", TREES["runs"], re.M):
        # folders of one's own stay where they are, no image of them is of a split val, nothing asks
        # for a network of its own, and nobody for the toy experiment, a sweep or boxes
        if name.split("/")[0] not in NOT_OF_OWN_IMAGES:
            assert list(Path("runs/mine").glob(re.sub(r"<\w+>", "*", name))), name


if __name__ == "__main__":
    sys.stdout.write(methods_table())
