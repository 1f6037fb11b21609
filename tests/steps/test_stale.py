"""What was made from something that has changed since is made again, and nothing else is."""

import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from rayseg.attribution import CAM
from rayseg.config import Compute, ExportConfig, RunConfig
from rayseg.datasets import FolderDataset
from rayseg.nets.classifier import CamClassifier
from rayseg.nets.weights import to_safetensors
from rayseg.plain import PlainEngine
from rayseg.steps.exporting import export as write_export
from rayseg.steps.masks import refine_seeds
from rayseg.steps.preparing import prepare
from rayseg.steps.recipe import run
from rayseg.steps.score import score
from rayseg.steps.seeds import make_seeds
from rayseg.steps.training import train
from rayseg.store import MASKS_SCHEMA, Folder, StaleError, read_rows, rows_to_table, write_shard
from tests.learn.tiny import tiny

ENGINE = PlainEngine()
COMPUTE = Compute(threads=1, num_gpus=0, block_rows=4)
TAGS = {f"i{n:02d}": "dog" if n % 2 else "cat" for n in range(10)}


@pytest.fixture
def data(tmp_path):
    """Ten images with a tag each, their true masks, and a drawn classifier."""
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    for id_, tag in TAGS.items():
        Image.fromarray(rng.integers(0, 256, (48, 64, 3), np.uint8)).save(image(tmp_path, id_))
        labels = np.zeros((48, 64), np.uint8)
        labels[10:30, 10:30] = 1 + (tag == "dog")
        Image.fromarray(labels).save(tmp_path / "masks" / f"{id_}.png")
    write_tags(tmp_path, TAGS)
    torch.manual_seed(0)
    facts = {"trunk": "resnet18", "stride": 16, "classes": ["cat", "dog"]}
    weights = to_safetensors(CamClassifier("resnet18", 2), facts)
    (tmp_path / "drawn.safetensors").write_bytes(weights)
    return tmp_path


def image(data: Path, id_: str) -> Path:
    return data / "images" / f"{id_}.png"


def write_tags(data: Path, tags: dict[str, str]) -> None:
    lines = ["image,tags", *(f"{id_}.png,{tag}" for id_, tag in tags.items())]
    (data / "tags.csv").write_text("\n".join(lines) + "\n")


def config(data: Path, name: str = "run", **more) -> RunConfig:
    folder = FolderDataset(images=data / "images", tags=data / "tags.csv", masks=data / "masks")
    given = {
        "run": str(data / name), "data": "folder", "folder": folder, "methods": ("cam",),
        "refiners": ("threshold",), "until": "masks", "engine": "plain", "compute": COMPUTE,
        "cam": CAM(scales=(1.0,), precision="fp32"), "weights": str(data / "drawn.safetensors"),
    }  # fmt: skip
    return RunConfig(**(given | more))


def rows(data: Path, folder: str, name: str = "run") -> dict[str, dict]:
    found = {row["id"]: row for row in read_rows(Folder(str(data / name)) / folder)}
    for row in found.values():
        del row["seconds"]
    return found


MASKS = "masks/cam+threshold"


def test_a_corrected_tag_makes_the_rows_of_that_image_again_and_no_others(data):
    run(config(data), ENGINE)
    before = {name: rows(data, name) for name in ("seeds/cam", MASKS)}
    write_tags(data, TAGS | {"i03": "cat"})
    outcome = run(config(data), ENGINE)
    for name, was in before.items():
        now = rows(data, name)
        assert {id_ for id_ in now if now[id_] != was[id_]} == {"i03"}
    told = "\n".join(outcome.lines)
    assert "manifest: 1 image with other tags (i03)" in told
    assert "seeds cam: made again after a change: 1 image (i03)" in told


def test_after_a_correction_all_rows_and_scores_are_those_of_a_fresh_run(data):
    run(config(data), ENGINE)
    write_tags(data, TAGS | {"i03": "cat"})
    run(config(data), ENGINE)
    run(config(data, "fresh"), ENGINE)
    for name in ("seeds/cam", MASKS):
        assert rows(data, name) == rows(data, name, "fresh")
    scores = [(data / name / "scores.json").read_text() for name in ("run", "fresh")]
    assert scores[0] == scores[1]


def test_an_image_that_is_replaced_is_made_again(data):
    run(config(data), ENGINE)
    before = rows(data, MASKS)
    Image.new("RGB", (64, 48), (200, 10, 10)).save(image(data, "i04"))
    told = "\n".join(run(config(data), ENGINE).lines)
    assert "1 image with another file (i04)" in told
    now = rows(data, MASKS)
    assert {id_ for id_ in now if now[id_]["digest"] != before[id_]["digest"]} == {"i04"}


def test_a_file_that_is_written_anew_with_the_same_bytes_changes_nothing(data):
    run(config(data), ENGINE)
    shards = sorted((data / "run" / "seeds" / "cam").glob("*.parquet"))
    before = [(path, path.stat().st_mtime_ns) for path in shards]
    content = image(data, "i04").read_bytes()
    image(data, "i04").write_bytes(content)
    told = "\n".join(run(config(data), ENGINE).lines)
    assert "made again" not in told
    assert [(path, path.stat().st_mtime_ns) for path in shards] == before


def test_an_image_that_is_new_gets_a_row_and_one_that_is_gone_loses_its_row(data):
    run(config(data), ENGINE)
    tags = {id_: tag for id_, tag in TAGS.items() if id_ != "i00"} | {"i99": "dog"}
    image(data, "i00").rename(image(data, "i99"))
    write_tags(data, tags)
    told = "\n".join(run(config(data), ENGINE).lines)
    assert "seeds cam: taken out, not in the data set any more: 1 image (i00)" in told
    assert rows(data, "seeds/cam").keys() == rows(data, MASKS).keys() == tags.keys()


def test_a_job_that_reads_stale_rows_is_refused_and_says_which_job_mends_them(data):
    whole = config(data)
    run(whole, ENGINE)
    write_tags(data, TAGS | {"i03": "cat"})
    prepare(whole, ENGINE)
    with pytest.raises(
        ValueError, match=r"1 rows of images .* such as i03; run `rayseg make-seeds"
    ):
        refine_seeds(whole, ENGINE)
    make_seeds(whole, ENGINE)
    refine_seeds(whole, ENGINE)


def test_rows_of_images_that_are_not_asked_for_now_are_mended_too(data):
    whole = config(data)
    run(whole, ENGINE)
    write_tags(data, TAGS | {"i03": "cat"})
    prepare(whole, ENGINE)
    (data / "ids.txt").write_text("i05\n")
    make_seeds(replace(whole, ids=str(data / "ids.txt")), ENGINE)
    assert rows(data, "seeds/cam").keys() == TAGS.keys()
    assert rows(data, "seeds/cam")["i03"]["classes"] == [0]


def test_a_job_that_is_killed_between_taking_rows_out_and_making_them_makes_them(data, monkeypatch):
    whole = config(data)
    run(whole, ENGINE)
    write_tags(data, TAGS | {"i03": "cat"})
    prepare(whole, ENGINE)
    (data / "ids.txt").write_text("i05\n")
    few = replace(whole, ids=str(data / "ids.txt"))
    with monkeypatch.context() as patch:
        patch.setattr(PlainEngine, "fill", lambda *given: (_ for _ in ()).throw(OSError("gone")))
        with pytest.raises(OSError, match="gone"):
            make_seeds(few, ENGINE)
    assert "i03" not in rows(data, "seeds/cam")
    make_seeds(few, ENGINE)
    assert rows(data, "seeds/cam").keys() == TAGS.keys()


def test_an_image_that_changes_after_prepare_is_a_row_that_says_so(data):
    whole = config(data)
    prepare(whole, ENGINE)
    Image.new("RGB", (64, 48)).save(image(data, "i04"))
    make_seeds(whole, ENGINE)
    row = rows(data, "seeds/cam")["i04"]
    assert row["status"] == "error"
    assert "has changed since `rayseg prepare`" in row["error"]
    run(whole, ENGINE)
    assert rows(data, "seeds/cam")["i04"]["status"] == "ok"


def test_maps_of_another_classifier_are_refused_and_made_anew_with_the_flag(data):
    run(config(data), ENGINE)
    before = rows(data, MASKS)
    torch.manual_seed(1)
    facts = {"trunk": "resnet18", "stride": 16, "classes": ["cat", "dog"]}
    weights = to_safetensors(CamClassifier("resnet18", 2), facts)
    (data / "drawn.safetensors").write_bytes(weights)
    with pytest.raises(StaleError, match=r"seeds/cam .*\(weights\); --compute.remake-stale"):
        run(config(data), ENGINE)
    assert rows(data, MASKS) == before
    run(config(data, compute=replace(COMPUTE, remake_stale=True)), ENGINE)
    run(config(data, "fresh"), ENGINE)
    assert rows(data, MASKS) == rows(data, MASKS, "fresh") != before


def test_another_setting_is_refused_with_the_flag_as_well(data):
    run(config(data), ENGINE)
    other = config(
        data, cam=CAM(scales=(0.5,), precision="fp32"), compute=replace(COMPUTE, remake_stale=True)
    )
    with pytest.raises(ValueError, match="was made under another configuration") as raised:
        run(other, ENGINE)
    assert not isinstance(raised.value, StaleError)


def with_training(data: Path, remake: bool = False) -> RunConfig:
    """A run whose classifier and segmenter are its own, as small as can be."""
    compute = replace(COMPUTE, remake_stale=remake)
    kinds = ("classifier", "segmenter")
    trainings = {kind: tiny(kind, iterations=1, judge_images=0) for kind in kinds}
    return config(
        data, weights="", until="segmenters", labels=("cam+threshold",), compute=compute,
        **trainings,
    )  # fmt: skip


def test_networks_that_learnt_from_what_has_changed_stay_and_are_named_by_a_run(data):
    run(with_training(data), ENGINE)
    write_tags(data, TAGS | {"i03": "cat"})
    outcome = run(with_training(data), ENGINE)
    told = "\n".join(line for line in outcome.lines if line.startswith("stale: "))
    assert "classifier was trained on other images or tags than there are now" in told
    assert "segmenters/cam+threshold was trained on other images or masks" in told
    assert "--compute.remake-stale makes it anew" in told
    assert outcome.left_out == 2


def test_a_training_alone_is_refused_where_its_labels_have_changed(data):
    run(with_training(data), ENGINE)
    write_tags(data, TAGS | {"i03": "cat"})
    prepare(with_training(data), ENGINE)
    with pytest.raises(StaleError, match=r"10 images there, 10 here\); --compute.remake-stale"):
        train("classifier", with_training(data), ENGINE)


def test_with_the_flag_all_that_follows_is_made_anew(data):
    run(with_training(data), ENGINE)
    write_tags(data, TAGS | {"i03": "cat"})
    outcome = run(with_training(data, remake=True), ENGINE)
    assert not outcome.left_out
    fresh = replace(with_training(data), run=str(data / "fresh"))
    run(fresh, ENGINE)
    for name in ("seeds/cam", MASKS):
        assert rows(data, name) == rows(data, name, "fresh")
    for name in (
        "classifier/classifier.safetensors",
        "segmenters/cam+threshold/segmenter.safetensors",
    ):
        assert (data / "run" / name).read_bytes() == (data / "fresh" / name).read_bytes()


def test_masks_that_are_made_anew_in_place_are_noticed_by_what_learnt_from_them(data):
    run(with_training(data), ENGINE)
    folder = Folder(str(data / "run")) / MASKS
    changed = [row | {"labels": b"", "digest": "another"} for row in read_rows(folder)]
    for name in folder.names(".parquet"):
        folder.delete(name)
    write_shard(folder, rows_to_table(changed, MASKS_SCHEMA))
    with pytest.raises(StaleError, match="was trained on other images or masks"):
        train("segmenter", with_training(data), ENGINE)


def test_a_job_is_refused_where_annotations_were_changed_and_not_read_again(data):
    whole = config(data)
    run(whole, ENGINE)
    write_tags(data, TAGS | {"i03": "cat", "i04": "dog"})
    with pytest.raises(ValueError, match=r"tags.csv has changed since `rayseg prepare` read it"):
        make_seeds(whole, ENGINE)


def test_masks_of_tags_that_were_corrected_since_are_not_exported(data):
    whole = config(data)
    run(whole, ENGINE)
    export = ExportConfig(run=whole.run, masks="cam+threshold", out=str(data / "export"))
    assert write_export(export, ENGINE).lines
    write_tags(data, TAGS | {"i03": "cat"})
    prepare(whole, ENGINE)
    with pytest.raises(ValueError, match=r"made from seeds/cam, which has 1 rows .* such as i03"):
        write_export(export, ENGINE)


def test_scores_of_folders_that_fit_no_more_say_so(data):
    whole = config(data)
    run(whole, ENGINE)
    write_tags(data, TAGS | {"i03": "cat"})
    prepare(whole, ENGINE)
    outcome = score(whole, ENGINE)
    told = [line for line in outcome.lines if line.startswith("stale: ")]
    assert [line.split()[1] for line in told] == ["seeds/cam", MASKS]
    assert outcome.left_out == 2


def anew(data: Path, seed: int) -> None:
    """Another classifier in the file that maps are made with."""
    torch.manual_seed(seed)
    facts = {"trunk": "resnet18", "stride": 16, "classes": ["cat", "dog"]}
    weights = to_safetensors(CamClassifier("resnet18", 2), facts)
    (data / "drawn.safetensors").write_bytes(weights)


def test_a_folder_that_is_made_anew_for_a_few_images_gets_all_its_rows_again(data):
    run(config(data), ENGINE)
    anew(data, seed=1)
    (data / "ids.txt").write_text("i05\n")
    few = config(data, ids=str(data / "ids.txt"), compute=replace(COMPUTE, remake_stale=True))
    make_seeds(few, ENGINE)
    assert rows(data, "seeds/cam").keys() == TAGS.keys()


@pytest.mark.parametrize("kept", [0, 2])
def test_a_kill_while_a_folder_is_emptied_is_gone_on_from(data, monkeypatch, kept):
    run(config(data), ENGINE)
    (data / "run" / "seeds" / "cam" / "zz.safetensors").write_bytes(b"of a training")
    anew(data, seed=1)
    (data / "ids.txt").write_text("i05\n")
    few = config(data, ids=str(data / "ids.txt"), compute=replace(COMPUTE, remake_stale=True))
    delete, deleted = Folder.delete, []

    def killed(folder: Folder, name: str) -> None:
        if name != ".lock.json" and folder.location.endswith("seeds/cam"):
            if len(deleted) == kept:
                raise KeyboardInterrupt
            deleted.append(name)
        delete(folder, name)

    with monkeypatch.context() as patch:
        patch.setattr(Folder, "delete", killed)
        with pytest.raises(KeyboardInterrupt):
            make_seeds(few, ENGINE)
    make_seeds(few, ENGINE)
    run(config(data, "fresh"), ENGINE)
    assert rows(data, "seeds/cam") == rows(data, "seeds/cam", "fresh")


def test_a_data_set_that_is_read_again_says_what_changed_with_the_flag_as_well(data):
    remade = config(data, compute=replace(COMPUTE, remake_stale=True))
    prepare(remade, ENGINE)
    write_tags(data, TAGS | {"i03": "cat"})
    assert "manifest: 1 image with other tags (i03)" in prepare(remade, ENGINE).lines


def test_a_manifest_stays_where_its_data_set_cannot_be_read_again(data):
    remade = config(data, compute=replace(COMPUTE, remake_stale=True))
    prepare(remade, ENGINE)
    (data / "tags.csv").write_text("nonsense\n1\n")
    with pytest.raises(ValueError, match=r"tags.csv:1"):
        prepare(remade, ENGINE)
    assert (data / "run" / "manifest" / "manifest.parquet").exists()


def test_a_data_set_whose_annotations_are_missing_is_named(data):
    prepare(config(data), ENGINE)
    (data / "tags.csv").rename(data / "moved.csv")
    with pytest.raises((OSError, ValueError), match=r"tags not found at .*tags.csv"):
        prepare(config(data), ENGINE)
    (data / "moved.csv").rename(data / "tags.csv")
    assert "manifest: 10 train; 2 classes" in prepare(config(data), ENGINE).lines


def test_a_first_reading_that_is_killed_before_its_end_is_not_taken_for_whole(data, monkeypatch):
    def killed(*given):
        raise KeyboardInterrupt

    write_tags(data, TAGS | {"none": "cat"})
    with monkeypatch.context() as patch:
        patch.setattr("rayseg.steps.preparing.write_sources", killed)
        with pytest.raises(KeyboardInterrupt):
            prepare(config(data), ENGINE)
    assert prepare(config(data), ENGINE).left_out
    write_tags(data, TAGS)
    with pytest.raises(ValueError, match=r"tags.csv has changed since"):
        make_seeds(config(data), ENGINE)


def test_networks_of_classes_that_were_renamed_are_trained_anew_with_the_flag(data):
    run(with_training(data), ENGINE)
    write_tags(data, {id_: {"cat": "cattle"}.get(tag, tag) for id_, tag in TAGS.items()})
    with pytest.raises(ValueError, match=r"\(cat, dog\).*--compute.remake-stale") as caught:
        run(with_training(data), ENGINE)
    assert any(
        "cattle" in line for line in caught.value.__notes__
    )  # what has changed is said first
    assert not run(with_training(data, remake=True), ENGINE).left_out


def test_masks_can_be_exported_when_the_maps_that_they_came_from_are_deleted(data):
    whole = config(data)
    run(whole, ENGINE)
    shutil.rmtree(data / "run" / "seeds")
    export = ExportConfig(run=whole.run, masks="cam+threshold", out=str(data / "export"))
    assert "10 masks" in write_export(export, ENGINE).lines[0]
    assert not score(whole, ENGINE).left_out


def test_nothing_reads_on_where_annotations_were_changed_and_not_read_again(data):
    whole = config(data)
    run(whole, ENGINE)
    write_tags(data, TAGS | {"i03": "cat", "i04": "dog"})
    export = ExportConfig(run=whole.run, masks="cam+threshold", out=str(data / "export"))
    for job in (refine_seeds, partial(write_export, export)):
        with pytest.raises(ValueError, match=r"tags.csv has changed since `rayseg prepare`"):
            job(*([whole] if job is refine_seeds else []), ENGINE)
    outcome = score(whole, ENGINE)
    assert any(line.startswith("stale: ") and "tags.csv" in line for line in outcome.lines)
    assert outcome.left_out


def test_all_networks_that_learnt_from_something_else_are_named(data):
    both = replace(with_training(data), labels=("cam+threshold", "truth"))
    run(both, ENGINE)
    Image.fromarray(np.full((48, 64), 1, np.uint8)).save(data / "masks" / "i02.png")
    write_tags(data, TAGS | {"i03": "cat"})
    told = "\n".join(line for line in run(both, ENGINE).lines if line.startswith("stale: "))
    assert "segmenters/cam+threshold was trained" in told
    assert "segmenters/truth was made from" in told
