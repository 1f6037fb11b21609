"""Waiting is shown: a line at once, then one a minute, or one that is rewritten on a terminal."""

import io
import time

import pytest

from rayseg import progress
from rayseg.progress import Activity, activity, announce, in_words, speaking, tell_results


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def quick(monkeypatch):
    """A second of the watch lasts a fiftieth, a minute a fifth."""
    monkeypatch.setattr(progress, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.2)


def wait_for(holds):
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_without_a_terminal_a_silent_job_has_a_line_again_and_again(quick, capsys):
    said = ""
    with speaking("run"), activity("manifest"):
        while said.count("manifest: 0 s so far\n") < 2:
            time.sleep(0.05)
            said += capsys.readouterr().err
    assert "\r" not in said


def test_the_first_block_says_at_once_how_long_the_rest_takes(monkeypatch, capsys):
    monkeypatch.setattr(progress, "LINE_SECONDS", 1000)
    with speaking("run"), activity("seeds cam", 437, "image") as shown:
        shown.began -= 16
        shown.update(8)
    first = capsys.readouterr().err.splitlines()[0]
    assert first == "seeds cam: 8 of 437 images, 0.5 images/s, 14 min left"


def test_on_a_terminal_one_line_is_rewritten_and_taken_away_for_others(quick, monkeypatch):
    shown = Terminal()
    monkeypatch.setattr("sys.stderr", shown)
    with speaking("run"), activity("classifier", 9, "step", lambda one: setattr(one, "done", 3)):
        wait_for(lambda: shown.getvalue().count("\r\x1b[2Kclassifier: 3 of 9 steps") > 1)
        announce("plan")
    assert "\r\x1b[2Kplan\n" in shown.getvalue()
    assert shown.getvalue().endswith(("\r\x1b[2K", "plan\n"))


def test_what_is_looked_at_is_shown_when_it_begins_to_move(monkeypatch, capsys):
    monkeypatch.setattr(progress, "LOOK_SECONDS", 0.02)

    def look(one):
        one.done, one.rate, one.note = 120, 2.0, "loss 0.5"

    said = ""
    with speaking("run"), activity("classifier", 240, "step", look):
        while "classifier" not in said:
            time.sleep(0.01)
            said += capsys.readouterr().err
    assert said == "classifier: 120 of 240 steps, 2 steps/s, 60 s left, loss 0.5\n"


def test_nothing_is_shown_where_nobody_speaks(capsys):
    with activity("seeds cam", 4, "image") as shown:
        shown.update(4)
    announce("plan")
    assert tell_results(["seeds cam: 4 ok"]) == 0
    assert capsys.readouterr() == ("", "")


def test_results_go_to_stdout_and_progress_to_stderr(capsys):
    with speaking("run"):
        announce("plan")
        assert tell_results(["a: 1 ok", "b: 2 ok"]) == 2
    assert capsys.readouterr() == ("a: 1 ok\nb: 2 ok\n", "plan\n")


def test_a_slow_pace_is_seconds_a_unit():
    slow = Activity("x", 10, "image", done=1, rate=0.025)
    assert slow.line == "x: 1 of 10 images, 40 s an image, 6 min left"


@pytest.mark.parametrize(
    ("seconds", "words"), [(119, "119 s"), (121, "2 min"), (7300, "2 h 2 min")]
)
def test_durations_are_said_in_words(seconds, words):
    assert in_words(seconds) == words
