"""README and docs are run: their blocks, commands, flags, links, tables and trees.

``python -m tests.test_docs`` writes the table of methods and those of settings into docs/methods.
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
from rayseg.config.files import as_written
from rayseg.config.flags import attribute_texts
from rayseg.datasets import DATASETS
from rayseg.datasets.tally import Tally
from rayseg.export import EXPORTERS
from rayseg.nets.classifier import CamClassifier
from rayseg.nets.published import published_file
from rayseg.nets.weights import to_safetensors
from rayseg.refine import BOX_REFINERS, REFINERS
from rayseg.store import SEEDS_SCHEMA, Folder, pack_maps, rows_to_table, write_shard

ROOT = Path(__file__).resolve().parents[1]
README = "README.md"
FILES = [ROOT / README, *sorted((ROOT / "docs").rglob("*.md"))]
PAGES = {path.relative_to(ROOT).as_posix(): path.read_text() for path in FILES}
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
KINDS = {"python", "bash", "console", "toml", "csv", "text", "bibtex"}
TREES = {
    text.split("/", 1)[0]: text
    for page in PAGES.values()
    for kind, text in BLOCK.findall(page)
    if kind == "text"
}
INSTALLING = ("pip", "uv")


def blocks(*kinds, pages=tuple(PAGES)):
    """Blocks of these kinds, page after page; those that two pages have are there once."""
    found = [text for page in pages for kind, text in BLOCK.findall(PAGES[page]) if kind in kinds]
    return list(dict.fromkeys(found))


def commands(pages=tuple(PAGES)):
    """Every command line of the pages' shell blocks as words, variables in front dropped."""
    text = "".join(blocks("bash", "console", pages=pages)).replace("\\\n", " ")
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


def job_lines(pages=tuple(PAGES)):
    """The commands that are jobs of rayseg, each once."""
    found = {" ".join(words): words for words in commands(pages)}
    return [
        words
        for words in found.values()
        if words[0] in ("rayseg", "ray") or (words[0] == "python" and "jobs/" in words[1])
    ]


JOB_LINES = job_lines()


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """A folder with all that the blocks read, in small, as the working directory."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "jobs/presets", tmp_path / "jobs/presets")
    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for name in ("photo.jpg", "photos/meadow.jpg", "photos/stable.jpg", "photos/fog.jpg"):
        Image.fromarray(rng.integers(0, 256, (40, 56, 3), dtype=np.uint8)).save(name)
    for text in blocks("csv"):
        Path("boxes.csv" if "x1" in text else "tags.csv").write_text(text)
    Path("mine.toml").write_text(*blocks("toml"))
    network = CamClassifier("mobilenet_v2", 5)
    facts = {"trunk": "mobilenet_v2", "stride": 16, "classes": ["a", "b", "c", "d", "e"]}
    Folder("runs/demo/classifier").write("classifier.safetensors", to_safetensors(network, facts))
    row = {"id": "scene", "status": "ok", "height": 40, "width": 56, "classes": [0, 3]}
    row["maps"] = pack_maps(rng.random((2, 10, 14)).astype(np.float32))
    write_shard(Folder("runs/demo/seeds/advcam"), rows_to_table([row], SEEDS_SCHEMA))
    return tmp_path


def python_block(part):
    """The one example that has this in it."""
    (found,) = [text for text in blocks("python") if part in text]
    return found


def execute(text):
    Path("block.py").write_text(text)
    return runpy.run_path("block.py")


def test_every_block_is_of_a_kind_that_is_tested():
    assert {kind for page in PAGES.values() for kind, _ in BLOCK.findall(page)} <= KINDS
    assert {len(text.split("```")) % 2 for text in PAGES.values()} == {1}
    assert [len(blocks(kind)) for kind in ("python", "csv", "toml", "text")] == [3, 2, 1, 2]
    assert all(text.startswith(("rayseg/", "runs/")) for text in blocks("text"))


def test_the_readme_is_short():
    assert len(PAGES[README].splitlines()) <= 130


AWKWARD = re.compile(
    r"\b(comes to|stands|wants an?|for ever|the whole road|what it must do without|said|told)\b"
)


@pytest.mark.parametrize("page", sorted(set(PAGES) - {"docs/faults.md", "docs/fuzz.md"}))
def test_a_page_is_in_plain_english(page):
    assert AWKWARD.findall(PAGES[page]) == []


def test_every_page_is_reached_from_the_readme():
    reached, new = set(), {README}
    while new:
        reached |= new
        linked = {
            (ROOT / page).parent.joinpath(name).resolve().relative_to(ROOT).as_posix()
            for page in new
            for name, _ in links(PAGES[page])
            if name.endswith(".md")
        }
        new = {page for page in linked if page in PAGES} - reached
    assert set(PAGES) - reached == set()


def links(text):
    """File and heading of every link that does not leave the repository."""
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", text):
        name, _, heading = target.partition("#")
        yield name, heading


def headings(text):
    """The headings of a page as links name them."""
    titles = re.findall(r"^#+ (.+)$", re.sub(BLOCK, "", text), re.M)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES)
def test_a_link_leads_to_a_file_and_a_heading(page):
    for name, heading in links(PAGES[page]):
        path = (ROOT / page).parent.joinpath(name).resolve() if name else ROOT / page
        assert path.exists(), name
        if heading:
            assert heading in headings(path.read_text()), f"{name}#{heading}"


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
    found = execute(python_block("rayseg.label("))
    assert found["labels"].classes == ("cow", "horse", "person")
    assert found["mask"].shape == (40, 56)
    assert not found["labels"].masks["fog"].any()  # which shows none of them
    with Image.open("meadow.png") as picture:
        assert picture.size == (56, 40)


def test_the_example_of_one_image_is_eight_lines_and_gives_maps(workplace):
    block = python_block("AdvCAM()")
    assert len(block.splitlines()) == 8
    maps = execute(block)["maps"]
    assert maps.shape == (2, 40, 56)
    assert 0 <= maps.min() <= maps.max() <= 1


def test_the_example_that_reads_seeds_prints_one_line_a_map(workplace, capsys):
    execute(python_block("read_table"))
    assert capsys.readouterr().out == "scene 0 (14, 10)\nscene 3 (14, 10)\n"


@pytest.mark.parametrize("words", JOB_LINES, ids=" ".join)
def test_a_command_has_flags_that_exist(words, workplace):
    name, flags = as_job(words)
    parse(JOBS[name].config, flags, f"rayseg {name}")


def test_a_script_that_a_command_runs_exists():
    given = [words for words in commands() if words[0] == "python" and words not in JOB_LINES]
    modules = [ROOT / words[2].replace(".", "/") for words in given if words[1] == "-m"]
    assert all(path.with_suffix(".py").exists() or path.is_dir() for path in modules)
    assert all((ROOT / words[1]).is_file() for words in given if words[1] != "-m")


def test_other_commands_install():
    known = ("rayseg", "ray", "python", "make", *INSTALLING)
    assert {words[0] for words in commands()} <= set(known)


def test_the_boxes_of_the_readme_are_read_by_its_command(workplace):
    (flags,) = [words[2:] for words in job_lines([README]) if "boxes.csv" in words]
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
    named += re.findall(r"`make (\w+)`", "".join(PAGES.values()))
    assert set(named) <= set(targets)
    assert {"demo", "test"} <= set(named)


def test_flags_in_the_text_exist():
    known = {"--config", "--preset", "--help", "--help-all", "--version", "--working-dir"}
    known |= {"--no-follow", "--torch-backend"}
    known |= {f"--{name}" for job in JOBS.values() for name in flag_names(job.config())}
    assert set(re.findall(r"`(--[\w.-]+)", "".join(PAGES.values()))) - known == set()


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
    "path",
    [*sorted((ROOT / "jobs/presets").glob("*.toml")), *sorted(preset.FOLDER.glob("*.toml"))],
    ids=lambda p: p.stem,
)
def test_a_shipped_configuration_is_read(path):
    assert read_toml(str(path), RunConfig()) != RunConfig()


def test_each_file_of_a_preset_has_a_name_and_the_other_way_round():
    files = {path.stem for path in preset.FOLDER.glob("*.toml")}
    assert files == set(preset.PRESETS) - {"official", "as_written"}
    text = "".join(PAGES.values())
    assert [name for name in preset.PRESETS if f"`{name}`" not in text] == []


def test_files_that_the_text_names_exist():
    text = "".join(PAGES.values())
    named = re.findall(r"`((?:tests|jobs|rayseg|docs)/[\w./]+)`", text)
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_lists_of_data_sets_refiners_and_exporters_are_complete():
    refiners = [*REFINERS, *BOX_REFINERS]
    lists = {"Data sets": DATASETS, "Refiners": refiners, "Exporters": EXPORTERS}
    for title, names in lists.items():
        said = re.search(rf"{title}: ([^.]+)\.", "".join(PAGES.values()))
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


METHODS_PAGE = "docs/methods/index.md"
METHODS_TABLE = re.compile(r"(<!-- methods -->\n)(.*?)(<!-- /methods -->)", re.S)
SETTINGS_TABLE = re.compile(r"(<!-- settings (\w+) -->\n)(.*?)(<!-- /settings -->)", re.S)


def test_the_table_of_methods_is_that_of_the_code():
    there = METHODS_TABLE.search(PAGES[METHODS_PAGE])
    assert there[2] == methods_table()  # python -m tests.test_docs writes it


# The tables of settings

WITHOUT_A_TABLE = {"compute", "voc", "coco", "folder", "synthetic"}
"""Parts that the help of flags is enough for."""


def settings_of(official, written, prefix=""):
    """Name, value by each preset and text of every setting, those of inner parts with a dot."""
    for field in dataclasses.fields(official):
        one, other = getattr(official, field.name), getattr(written, field.name)
        if dataclasses.is_dataclass(one):
            yield from settings_of(one, other, f"{prefix}{field.name}.")
            continue
        texts = [attribute_texts(base).get(field.name) for base in type(official).__mro__]
        text = next((one for one in texts if one), "").replace("``", "`").replace("|", "\\|")
        yield prefix + field.name, plain(one), "" if one == other else plain(other), text


def settings_table(name):
    """Markdown of the settings of one part of a run; flags are ``--<part>.<setting>``."""
    config = RunConfig()
    rows = list(settings_of(getattr(config, name), getattr(as_written(config), name)))
    if not any(written for _, _, written, _ in rows):
        lines = ["| setting | value | meaning |", "|---|---|---|"]
        return "\n".join(lines + [f"| `{a}` | {b} | {d} |" for a, b, _, d in rows]) + "\n"
    lines = ["| setting | `official` | `as_written` | meaning |", "|---|---|---|---|"]
    lines += [f"| `{a}` | {b} | {c or 'the same'} | {d} |" for a, b, c, d in rows]
    return "\n".join(lines) + "\n"


def test_every_part_of_a_run_has_a_table_of_its_settings_that_is_the_codes():
    found = [one for page in PAGES.values() for one in SETTINGS_TABLE.findall(page)]
    config = RunConfig()
    parts = {one.name for one in dataclasses.fields(config)}
    parts = {name for name in parts if dataclasses.is_dataclass(getattr(config, name))}
    assert sorted(name for _, name, _, _ in found) == sorted(parts - WITHOUT_A_TABLE)
    for _, name, there, _ in found:
        assert there == settings_table(name), name  # python -m tests.test_docs writes it


def write_tables():
    """Writes the table of methods and those of settings where their marks are."""
    for path in FILES:
        text = METHODS_TABLE.sub(
            lambda found: found[1] + methods_table() + found[3], path.read_text()
        )
        fresh = SETTINGS_TABLE.sub(
            lambda found: found[1] + settings_table(found[2]) + found[4], text
        )
        if fresh != path.read_text():
            path.write_text(fresh)


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
    own = [words[1:] for words in job_lines([README]) if "runs/mine" in words]
    run, *others = [words for words in own if words[0] != "view"]
    run = [*run[: run.index("--preset")], *run[run.index("--preset") + 2 :]]
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
    write_tables()
