"""Submitting a job to a cluster: the code travels, the data does not."""

import asyncio
import contextlib
import hashlib
import os
import re
import shlex
import sys
import time
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from ray.job_submission import JobStatus, JobSubmissionClient

from rayseg.config.secrets import refuse_secrets
from rayseg.ending import Terminated, say
from rayseg.on_ray.access import join
from rayseg.on_ray.parcel import Parcel, pack

POLL_SECONDS = 1.0
PATIENCE_SECONDS = 60.0
"""A cluster that has just been started answers before it takes jobs."""


@dataclass(frozen=True)
class Submission:
    """A job for a cluster.

    Attributes:
        job: name of it, as ``rayseg <job>`` has it.
        arguments: its flags.
        run: folder of its run, as the cluster's machines call it.
        address: of the cluster's job server, such as http://ray-head:8265.
        working_dir: what travels; rayseg must lie in it or be installed on the cluster.
    """

    job: str
    arguments: tuple[str, ...]
    run: str
    address: str
    working_dir: str = "."

    def __post_init__(self) -> None:
        refuse_secrets(self)
        if not self.address.startswith(("http://", "https://", "ray://")):
            raise ValueError(
                "address must be that of the cluster's job server, such as http://ray-head:8265, "
                f"got {self.address!r}"
            )
        if "://" not in self.run and not Path(self.run).is_absolute():
            raise ValueError(
                "run must be an absolute path that the cluster's machines share, or a URI, since "
                f"the job runs elsewhere, got {self.run!r}"
            )
        for file in self._files():
            if os.path.normpath(file) not in self.parcel.sizes:
                raise FileNotFoundError(
                    f"configuration file {file} must lie in the working directory "
                    f"{self.working_dir} among what travels, which is no data, result, image, "
                    "secret, nor what .gitignore or .rayignore names, and be named from there"
                )
        self.parcel.check_size()

    @cached_property
    def parcel(self) -> Parcel:
        """What travels."""
        return pack(self.working_dir)

    @property
    def entrypoint(self) -> str:
        """What the cluster runs."""
        return shlex.join(["python", "-m", "rayseg.cli", self.job, *self.arguments])

    @property
    def prefix(self) -> str:
        """What ids of submissions of this job on this run begin with."""
        place = self.run if "://" in self.run else os.path.normpath(self.run)
        run = hashlib.sha256(place.rstrip("/").encode()).hexdigest()[:10]
        return f"rayseg-{self.job}-{run}"

    @property
    def runtime_env(self) -> dict[str, Any]:
        """Code and settings that the job runs with."""
        kept = ("RAY_AUTH_MODE", "RAYSEG_TRACEBACK")
        settings = {name: os.environ[name] for name in kept if name in os.environ}
        return {
            "working_dir": str(Path(self.working_dir).resolve()),
            "excludes": list(self.parcel.excludes),
            "env_vars": {"PYTHONUNBUFFERED": "1", **settings},
        }

    def _files(self) -> list[str]:
        """The configuration files that the flags name."""
        given = list(self.arguments)
        pairs = zip(given, [*given[1:], ""], strict=True)
        spaced = [value for flag, value in pairs if flag == "--config"]
        return spaced + [one.partition("=")[2] for one in given if one.startswith("--config=")]


def submit(submission: Submission, follow: bool = True) -> int:
    """Submits a job and follows its logs to its end.

    Args:
        follow: False returns once the cluster has taken it.

    Returns:
        The exit status of the job; 0 where it is not followed.

    Raises:
        ConnectionError: no cluster answers there, it does not let us in, or it has gone since.
        ValueError: the same job runs on that run already.
    """
    ask = partial(_jobs, submission.address)
    try:
        client, known = join(submission.address, ask, _asks_token)
    except Exception as error:  # Ray's, requests', aiohttp's
        raise ConnectionError(_refusal(submission.address, error)) from None
    own = [id_ for id_ in known if id_ and re.fullmatch(rf"{submission.prefix}-\d+", id_)]
    for id_ in own:
        if not known[id_].is_terminal():
            raise ValueError(_already(id_, submission, known[id_]))
    numbers = [int(id_.rpartition("-")[2]) for id_ in own]  # of which some may be deleted
    id_ = f"{submission.prefix}-{max(numbers, default=0) + 1}"
    print(f"sending {submission.parcel}", flush=True)
    _submit(client, submission, id_)
    print(f"submitted {id_}", flush=True)
    if not follow:
        return 0
    try:
        with contextlib.suppress(Exception):  # a log that breaks off ends no job
            asyncio.run(_follow(client, id_))
        return _exit_status(client, id_)
    except Exception as error:  # as above
        raise ConnectionError(
            f"{id_} goes on, but the cluster at {submission.address} stopped answering ({error}); "
            f"`ray job logs --address {submission.address} --follow {id_}` shows it"
        ) from None
    except KeyboardInterrupt as ending:
        say(f"{id_} goes on; `ray job stop {id_}` ends it")
        return ending.status if isinstance(ending, Terminated) else 130


def _jobs(address: str) -> tuple[JobSubmissionClient, dict[str | None, JobStatus]]:
    """Who speaks to the job server, and the jobs that it knows."""
    client = JobSubmissionClient(address)
    return client, {job.submission_id: job.status for job in client.list_jobs()}


def _submit(client: JobSubmissionClient, submission: Submission, id_: str) -> None:
    """Hands the job over, again and again to a cluster that has just been started.

    Raises:
        ConnectionError: the cluster does not take it.
        ValueError: somebody else has submitted it at the same moment.
    """
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            client.submit_job(
                entrypoint=submission.entrypoint,
                submission_id=id_,
                runtime_env=submission.runtime_env,
                metadata={"rayseg_job": submission.job, "rayseg_run": submission.run},
            )
        except RuntimeError as error:
            if "already exists" in str(error):
                raise ValueError(_already(id_, submission, JobStatus.PENDING)) from None
            if "No available agent" not in str(error) or time.monotonic() > deadline:
                raise ConnectionError(_refusal(submission.address, error)) from None
            time.sleep(POLL_SECONDS)
        else:
            return


async def _follow(client: JobSubmissionClient, id_: str) -> None:
    async for lines in client.tail_job_logs(id_):
        print(lines, end="", flush=True)


def _exit_status(client: JobSubmissionClient, id_: str) -> int:
    """Of the job's process, once it has ended; 1 where it never had one."""
    while not (info := client.get_job_info(id_)).status.is_terminal():
        time.sleep(POLL_SECONDS)
    if info.status == JobStatus.SUCCEEDED:
        return 0
    if info.driver_exit_code is None and info.message:
        print(f"rayseg: {info.message.strip().splitlines()[0]}", file=sys.stderr)
    return info.driver_exit_code or 1


def _already(id_: str, submission: Submission, status: JobStatus) -> str:
    return (
        f"{submission.job} on {submission.run} is submitted already, as {id_} ({status}); "
        f"`ray job logs --address {submission.address} --follow {id_}` shows it"
    )


def _asks_token(error: Exception) -> bool:
    first = (str(error).strip().splitlines() or [""])[0]
    return type(error).__name__ == "AuthenticationError" or "401" in first or "403" in first


def _refusal(address: str, error: Exception) -> str:
    first = (str(error).strip().splitlines() or [type(error).__name__])[0]
    if _asks_token(error):
        return (
            f"the cluster at {address} needs a token: set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN "
            f"or RAY_AUTH_TOKEN_PATH ({first})"
        )
    return f"no job server answers at {address}: {first}"
