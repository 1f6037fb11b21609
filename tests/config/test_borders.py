"""What a configuration refuses: names that lead out of the run, secrets in addresses."""

import subprocess
import sys

import pytest

from rayseg.cli import parse
from rayseg.config.job_list import JOBS
from rayseg.config.secrets import masked
from rayseg.records.bounds import check_folder_name

OUT = ["..", ".", ".hidden", "a/b", "/etc", "../x", "a\\b", "a\0b", "a\nb", " a", ""]
FLAGS = [
    ("tune", "--sweep"), ("tune", "--split"), ("tune", "--seeds-of"), ("make-seeds", "--split"),
    ("make-seeds", "--methods"), ("refine-seeds", "--refiners"), ("make-box-maps", "--box-methods"),
    ("train-segmenter", "--labels"), ("train-segmenter", "--val-split"), ("run", "--train-split"),
    ("predict", "--labels"), ("score", "--split"), ("export", "--masks"), ("export", "--split"),
    ("export", "--format"), ("run", "--until"), ("prepare", "--coco.split"),
    ("prepare", "--folder.split"),
]  # fmt: skip


@pytest.mark.parametrize("name", OUT)
def test_a_name_that_leads_elsewhere_is_no_plain_name(name):
    with pytest.raises(ValueError, match="sweep must be a plain name") as caught:
        check_folder_name("sweep", name)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("name", ["voc", "advcam+label_crf", "train 2014", "köln", "a.b", "a..b"])
def test_other_names_are_taken(name):
    check_folder_name("sweep", name)


@pytest.mark.parametrize(("job", "flag"), FLAGS)
@pytest.mark.parametrize("name", ["..", "../../x", "/etc"])
def test_no_flag_leads_out_of_the_run(job, flag, name):
    """A ValueError becomes one line and status 1, a wrong choice status 2."""
    with pytest.raises((ValueError, SystemExit)) as caught:
        parse(JOBS[job].config, [flag, name], "rayseg")
    assert getattr(caught.value, "code", 1) != 0


@pytest.mark.parametrize("masks", ["../a", "predictions/..", "seeds/advcam", "predictions/a/b"])
def test_masks_are_a_folder_of_masks_predictions_or_instances(masks):
    with pytest.raises(ValueError, match="masks must be"):
        JOBS["export"].config(masks=masks)
    for name in ("advcam+label_crf", "predictions/advcam", "instances/truth"):
        JOBS["export"].config(masks=name)


SECRET = [
    "s3://AKIAKEY:hunter2@bucket/run", "s3://AKIAKEY:hunt/er2@bucket/run",
    "s3://bucket/run?access_key=AKIAKEY&secret_key=hunter2", "http://user:hunter2@head:8265",
    "s3://bucket/run?region=eu&session_token=hunter2", "gs://bucket/run?X-Amz-Signature=hunter2",
    "s3://AKIAKEY:123456/hunter@bucket/run", "s3://AKIAKEY%3Ahunter2@bucket/run",
    "https://hunter2@head/x", "s3://bucket/run?account_key=hunter2", "s3://bucket/run?sas=hunter2",
    "s3://bucket/run?auth=hunter2&region=eu", "s3://bucket/run?passphrase=hunter2",
]  # fmt: skip


@pytest.mark.parametrize("address", SECRET)
def test_a_secret_is_masked(address):
    for text in (address, f"cannot write {address!r}: no", f"got {address}"):
        assert "hunt" not in masked(text)
        assert "bucket" in masked(text) or "head" in masked(text)


@pytest.mark.parametrize(
    "address",
    ["s3://bucket/run?scheme=http&endpoint_override=127.0.0.1:9", "http://head:8265/a@b",
     "/mnt/a:b/c@d", "ray-head:6379", "s3://bucket/a:b@c", "s3://bucket/run?region=eu-west-1",
     "abfs://box@account.dfs.core.windows.net/run", "s3://bucket/run?author=me&keyword=a"],
)  # fmt: skip
def test_an_address_without_a_secret_stays_as_it_is(address):
    assert masked(address) == address
    JOBS["score"].config(run=address)


@pytest.mark.parametrize("flag", ["--run", "--address", "--weights", "--ids", "--voc.root"])
@pytest.mark.parametrize("address", SECRET)
def test_a_secret_in_a_flag_is_refused_and_not_repeated(flag, address, capsys):
    with pytest.raises(SystemExit) as caught:
        parse(JOBS["run"].config, [flag, address], "rayseg")
    said = capsys.readouterr().err
    assert caught.value.code == 2
    assert f"{flag[2:]} must hold no password or key, got " in said
    assert "AWS_ACCESS_KEY_ID" in said
    assert "hunt" not in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize("line", ["run = '{}'", "run = ['{}']", "space = '{}'", "nonsense = '{}'"])
def test_a_secret_in_a_file_reaches_no_message(tmp_path, line):
    """Of another job's key, of a value of a wrong type, of a key that no job knows."""
    (tmp_path / "a.toml").write_text(line.format(SECRET[0]) + "\n")
    done = subprocess.run(
        [sys.executable, "-m", "rayseg.cli", "score", "--config", tmp_path / "a.toml"],
        capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 1
    assert "hunt" not in done.stdout + done.stderr
    assert len(done.stderr.splitlines()) == 1
