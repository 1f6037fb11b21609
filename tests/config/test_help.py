"""Help is one screen, true and quick; a typo is told before anything is loaded."""

import resource
import shlex
import subprocess
import sys

import pytest

from rayseg.cli import main, parse, with_flags
from rayseg.config.flags import FILE, as_text, describe, flags_of
from rayseg.config.help import full_help, short_help, wrong_flag
from rayseg.config.job_list import JOBS
from rayseg.config.pages import PAGES


def test_the_file_of_flags_says_what_the_configurations_say():
    assert FILE.read_text() == as_text(describe()), "a flag has changed: run `make flags`"


def test_every_job_has_a_screen_of_help():
    assert list(PAGES) == [name for name in JOBS if name in PAGES]
    assert set(PAGES) == set(JOBS)


@pytest.mark.parametrize("job", JOBS)
def test_help_is_one_screen(job, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    lines = short_help(job).splitlines()
    assert len(lines) <= 60
    assert any("--config" in line for line in lines)
    assert "examples:" in lines
    assert max(map(len, lines[: lines.index("examples:")])) <= 100


@pytest.mark.parametrize("job", JOBS)
def test_help_shows_choices(job):
    shown = " ".join(short_help(job).split())
    for name in PAGES[job].flags:
        choices = flags_of(job)[f"--{name}"].get("choices", [])
        assert all(choice in shown for choice in choices)


@pytest.mark.parametrize(
    ("job", "example"), [(job, one) for job, page in PAGES.items() for one in page.examples]
)
def test_an_example_is_read(job, example, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.toml").write_text("")
    program, name, *flags = shlex.split(example)
    assert (program, name, wrong_flag(job, flags)) == ("rayseg", job, "")
    parse(JOBS[job].config, with_flags(JOBS[job].words, flags), "test")


def test_full_help_groups_flags_by_method():
    shown = full_help("make-seeds")
    begin, end = shown.index("\nadvcam: "), shown.index("\nrib: ")
    assert "--advcam.num-steps" in shown[begin:end]
    assert "--rib.num-steps" not in shown[begin:end]


def test_a_submission_shows_the_help_of_its_job(capsys):
    with pytest.raises(SystemExit) as ending:
        main(["submit", "score", "--help"])
    assert ending.value.code == 0
    assert capsys.readouterr().out == f"{short_help('score')}\n"


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--advcam.num-step", "3"], "unknown flag --advcam.num-step; did you mean --advcam.num-s"),
        (["--qqqq=1"], "unknown flag --qqqq; `rayseg run --help-all` lists all flags"),
        (["--until", "mask"], "--until must be one of seeds, masks, segmenters, got 'mask'; did"),
        (["--methods", "cam", "rip"], "got 'rip'; did you mean 'rib'?"),
        (["--classifier.epochs=few"], "--classifier.epochs must be a whole number, got 'few'"),
        (["--cam.scales", "1", "x"], "--cam.scales must be a number, got 'x'"),
        (["--no-engine"], "unknown flag --no-engine"),
    ],
)
def test_a_typo_names_the_flag_and_the_nearest(flags, said):
    assert said in wrong_flag("run", flags)


@pytest.mark.parametrize(
    "flags",
    [
        [],
        ["--config", "a.toml", "--preset=official"],
        ["--advcam.num_steps", "3", "--advcam.scales", "0.5", "1"],
        ["--crf", "--no-crf", "--compute.no-retry-failed"],
        ["--split=", "--labels", "--until", "masks"],
        ["--synthetic.count", "-1"],
    ],
)
def test_flags_that_are_there_pass(flags):
    assert wrong_flag("run", flags) == ""


@pytest.mark.parametrize(
    "words", ["--help", "--version", "run --help", "run --help-all", "rnu", "run --wrong 3"]
)
def test_help_and_typos_load_no_torch_and_take_half_a_second(words):
    code = (
        "import sys\nfrom rayseg.cli import main\ntry:\n    main()\nfinally:\n"
        "    assert not {'torch', 'ray', 'tyro'} & sys.modules.keys()"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-c", code, *words.split()], capture_output=True, text=True, check=False
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert (done.returncode, done.stderr.count("\n")) in ((0, 0), (2, 1)), done.stderr
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1.0
