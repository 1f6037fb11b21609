"""How a command ends: one line and a status, whatever ends its process."""

import signal
import subprocess
import sys

import pytest

from rayseg.ending import LONGEST, explained, first_cause, first_lines

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="a child of the command's process")


def ended(work):
    """Status and stderr of a program that does this under supervision."""
    code = f"import os, signal, sys\nfrom rayseg.ending import *\ndef work():\n    {work}\n"
    code += "sys.exit(supervised(work))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    return done.returncode, done.stderr


@pytest.mark.parametrize("status", [0, 1, 3])
def test_an_orderly_end_keeps_its_status_and_gets_no_line(status):
    assert ended(f"return {status}") == (status, "")
    assert ended(f"sys.exit({status})") == (status, "")


def test_a_status_that_was_given_holds_whatever_happens_on_the_way_out():
    assert ended("import atexit; atexit.register(os.abort); return 3") == (3, "")


@pytest.mark.parametrize(
    ("work", "status", "said"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", 1, "killed by SIGKILL"),
        ("os.abort()", 1, "died of SIGABRT"),
        ("os._exit(1)", 1, "ended at once with status 1"),
        ("os.kill(os.getpid(), signal.SIGTERM)", 143, "ended by SIGTERM"),
        ("end_at_once('it is over; the same command goes on')", 1, "it is over"),
    ],
)
def test_an_end_without_a_word_gets_a_line(work, status, said):
    code, line = ended(work)
    assert code == status
    assert line.count("\n") == 1
    assert line.startswith("rayseg: ")
    assert said in line
    assert "the same command goes on" in line


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_to_the_command_reaches_the_job_which_unwinds(number):
    code = (
        "import signal, sys\nfrom rayseg.ending import *\n"
        "def work():\n"
        "    raise_at_signals()\n"
        "    try:\n        print('ready', flush=True); signal.pause()\n"
        "    except KeyboardInterrupt as ending:\n        return ending.status\n"
        "    finally:\n        print('released')\n"
        "sys.exit(supervised(work))"
    )
    job = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert job.stdout.readline() == "ready\n"
    job.send_signal(number)
    assert job.communicate()[0] == "released\n"
    assert job.returncode == 128 + number


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a\nb", "a"),
        ("\n a \n", "a"),
        ("Error in loading:\n\tMissing:\n\t'x'\nmore", "Error in loading: Missing: 'x'"),
        ("", ""),
    ],
)
def test_a_long_text_is_said_by_its_first_lines(text, said):
    assert first_lines(text) == said


def test_a_line_has_an_end():
    assert len(first_lines("x" * 5000)) <= LONGEST


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("size must be 1"), "size must be 1"),
        (KeyError("digest"), "KeyError: 'digest' (unforeseen; RAYSEG_TRACEBACK=1 shows where)"),
        (RecursionError(), "RecursionError (unforeseen; RAYSEG_TRACEBACK=1 shows where)"),
    ],
)
def test_an_unforeseen_error_says_its_kind(error, said):
    assert explained(error) == said
    assert "no memory left" in explained(MemoryError())


def test_a_text_of_several_tracebacks_is_said_by_its_first_cause():
    text = (
        'ray::task() (pid=1)\n  File "a.py", line 1, in f\n    g()\n    ^^^\n'
        "ValueError: weights lack:\n\ta.bias\nand a page more\n\n"
        "The above exception was the direct cause of the following exception:\n\nUDF failed"
    )
    assert first_cause(RuntimeError(text)) == "ValueError: weights lack: a.bias"
