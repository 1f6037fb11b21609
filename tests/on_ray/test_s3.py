"""A run folder that is a URI: from tags to maps on a store that answers as S3."""

import csv
import os
import subprocess
import sys

import boto3
import numpy as np
import pytest
from moto.server import ThreadedMotoServer
from PIL import Image

FLAGS = (
    "--classifier.batch-size", "4",
    "--data", "folder", "--folder.images", "photos", "--folder.tags", "tags.csv", "--methods",
    "cam", "--cam.scales", "1.0", "--classifier.trunk", "resnet18", "--classifier.weights", "none",
    "--classifier.epochs", "1", "--classifier.crops.crop", "64", "--classifier.crops.long-side",
    "64", "64", "--until", "seeds",
)  # fmt: skip


@pytest.fixture
def store(monkeypatch):
    """A bucket named bucket; the address of its store is in the environment."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    settings = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }  # fmt: skip
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3")
    client.create_bucket(Bucket="bucket")
    yield client
    server.stop()


@pytest.mark.ray
@pytest.mark.slow
def test_a_run_on_s3_goes_from_tags_to_maps_and_again(store, tmp_path):
    (tmp_path / "photos").mkdir()
    rng = np.random.default_rng(0)
    with (tmp_path / "tags.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "tags"])
        for n in range(4):
            pixels = rng.integers(0, 256, (64, 64, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / f"photos/i{n}.png")
            writer.writerow([f"i{n}.png", "cow" if n % 2 else "cat"])
    command = [sys.executable, "-m", "rayseg.cli", "run", "--run", "s3://bucket/runs/mine", *FLAGS]
    command += ["--engine", "plain"]
    options = {"cwd": tmp_path, "capture_output": True, "text": True}
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    environment |= {"PYTHONPATH": os.getcwd(), "RAY_AUTH_MODE": "disabled"}
    first = subprocess.run(command, env=environment, check=False, **options)
    assert first.returncode == 0, first.stdout[-1000:] + first.stderr[-2000:]
    listed = store.list_objects_v2(Bucket="bucket", Prefix="runs/mine/")["Contents"]
    keys = {one["Key"].removeprefix("runs/mine/") for one in listed}
    assert {"run.toml", "report.html", "manifest/manifest.parquet"} <= keys
    assert any(key.startswith("seeds/cam/") and key.endswith(".parquet") for key in keys)
    before = {one["Key"]: one["LastModified"] for one in listed if one["Key"].endswith(".parquet")}
    seeds = ["make-seeds", *command[4:6], "--methods", "cam", "gradcam", "--cam.scales", "1.0"]
    seeds += ["--gradcam.scales", "1.0", "--engine", "ray"]
    again = subprocess.run([*command[:3], *seeds], env=environment, check=False, **options)
    assert again.returncode == 0, again.stderr[-2000:]
    listed = store.list_objects_v2(Bucket="bucket", Prefix="runs/mine/")["Contents"]
    after = {one["Key"]: one["LastModified"] for one in listed if one["Key"].endswith(".parquet")}
    made = {key for key in after.keys() - before.keys() if "/seeds/gradcam/" in key}
    assert {key: time for key, time in after.items() if key not in made} == before
    assert made
