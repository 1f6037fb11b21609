"""Whether a process runs."""

import os

from rayseg.store.processes import runs


def test_a_process_that_has_ended_and_is_not_buried_runs_no_more():
    child = os.fork()
    if not child:
        os._exit(0)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    try:
        assert not runs(child)
    finally:
        os.waitpid(child, 0)
    assert runs(os.getpid())
