"""A local store that answers as S3, behind a line that can be cut."""

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import boto3

from tests.faults.commands import Ended, run_command
from tests.faults.compare import Differences, compare
from tests.faults.kinds import Scene
from tests.faults.processes import die_with_parent

BUCKET = "bucket"
ACCESS = {
    "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}  # fmt: skip


def free_port() -> int:
    """That nobody listens at."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@contextmanager
def store() -> Iterator[int]:
    """Gives the port of a store with one bucket."""
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    nowhere = subprocess.DEVNULL
    options = {"stdout": nowhere, "stderr": nowhere, "preexec_fn": die_with_parent}
    process = subprocess.Popen(command, **options)
    try:
        _wait_for(port)
        _client(port).create_bucket(Bucket=BUCKET)
        yield port
    finally:
        process.kill()
        process.wait()


def _wait_for(port: int) -> None:
    while True:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)


def _client(port: int) -> "boto3.client":
    names = {name.lower(): text for name, text in ACCESS.items()}
    keys = ("aws_access_key_id", "aws_secret_access_key")
    return boto3.client(
        "s3", endpoint_url=f"http://127.0.0.1:{port}", region_name="us-east-1",
        **{name: names[name] for name in keys},
    )  # fmt: skip


class _Line:
    """Passes bytes on, until so many have passed; then nothing for so long."""

    def __init__(self, to: int, after: int, seconds: float):
        self.to, self.left, self.seconds = to, after, seconds
        self.until, self.writers = 0.0, set()

    async def serve(self, reader, writer) -> None:
        if time.monotonic() < self.until:
            writer.transport.abort()
            return
        there = await asyncio.open_connection("127.0.0.1", self.to)
        self.writers |= {writer, there[1]}
        await asyncio.gather(self._pass(reader, there[1]), self._pass(there[0], writer))

    async def _pass(self, reader, writer) -> None:
        with suppress(OSError):
            while data := await reader.read(4096):
                self.left -= len(data)
                if self.left < 0 and self.seconds:
                    self._cut()
                    return
                writer.write(data)
                await writer.drain()
            writer.close()

    def _cut(self) -> None:
        self.until = time.monotonic() + self.seconds
        self.seconds = 0.0
        for one in self.writers:
            one.transport.abort()
        self.writers = set()


@contextmanager
def line(to: int, after: int, seconds: float) -> Iterator[int]:
    """Gives the port of a line to the store that is cut after so many bytes, for so long."""
    port = free_port()
    child = os.fork()
    if not child:
        cut = _Line(to, after, seconds)

        async def serve() -> None:
            server = await asyncio.start_server(cut.serve, "127.0.0.1", port)
            await server.serve_forever()

        try:
            asyncio.run(serve())
        finally:
            os._exit(0)
    try:
        _wait_for(port)
        yield port
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def play(scene: Scene, port: int, tries: int) -> tuple[list[Ended], Differences]:
    """The command on a run in the store, with a cut; the same command until it is done."""
    client, name = _client(port), scene.run.parent.name
    for path in scene.run.rglob("*"):
        if path.is_file():
            key = f"{name}/{path.relative_to(scene.run)}"
            client.put_object(Bucket=BUCKET, Key=key, Body=path.read_bytes())
    settings, uri = scene.undisturbed.settings, f"s3://{BUCKET}/{name}"
    command = scene.command.line(scene.run, settings)
    command[command.index("--run") + 1] = uri
    ended = []
    after, seconds = scene.random.randrange(1000, 60_000), scene.random.choice((0.3, 2.0, 30.0))
    with line(port, after, seconds) as through:
        ended.append(run_command(command, scene.run, lambda: _enter(through)))
    while not ended[-1].fine and len(ended) <= tries:
        ended.append(run_command(command, scene.run, lambda: _enter(port)))
    there = scene.run.with_name("fetched")
    if out := scene.command.out:  # which lies on this machine
        shutil.copytree(scene.run / out, there / out)
    listed = client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=f"{name}/")
    for one in (entry for page in listed for entry in page.get("Contents", [])):
        path = there / one["Key"].removeprefix(f"{name}/")
        if not one["Key"].endswith("/"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(client.get_object(Bucket=BUCKET, Key=one["Key"])["Body"].read())
    return ended, compare(there, scene.undisturbed.after(scene.number))


def _enter(port: int) -> None:
    os.environ.update(ACCESS | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"})
