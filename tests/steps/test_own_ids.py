"""A stranger's JSON is prepared and exported again: its own ids, names and categories come back."""

import json

import pytest
from PIL import Image
from pycocotools.coco import COCO as Official
from pycocotools.cocoeval import COCOeval

from rayseg.cli import run_job
from rayseg.store import INSTANCES_SCHEMA, Folder, read_manifest, rows_to_table, write_shard
from tests.datasets.coco_json import square

HW = (40, 50)


def stranger(folder, ids=(1, 2), categories=((1, "cat"), (2, "dog")), names=("a.jpg", "b.jpg")):
    """A JSON of two images with two objects each, and their files."""
    annotations = []
    for place, id_ in enumerate(ids):
        for number, (category, _) in enumerate(categories):
            x = 3 + 20 * number + 2 * place
            one = {"id": len(annotations) + 1, "image_id": id_, "category_id": category}
            one |= {"segmentation": square(x, 5, 12), "bbox": [x, 5, 12, 12], "area": 144}
            annotations.append(one | {"iscrowd": 0})
    images = []
    for id_, name in zip(ids, names, strict=True):
        path = folder / "images" / name.replace("\\", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", HW[::-1]).save(path)
        images.append({"id": id_, "file_name": name, "height": HW[0], "width": HW[1]})
    return {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": category, "name": name} for category, name in categories],
    }


def prepare(folder, content, *flags):
    (folder / "a.json").write_text(json.dumps(content))
    source = [f"--coco.images={folder}/images", f"--coco.annotations={folder}/a.json"]
    return run_job("prepare", [*at(folder), "--data=coco", *source, *flags])


def at(folder):
    return [f"--run={folder}/run", "--engine=plain"]


def store_truth(folder, keep=lambda sample: True, status="ok"):
    """The true objects as if a network had found them."""
    manifest = read_manifest(Folder(f"{folder}/run") / "manifest", true_masks=True)
    rows = [
        {
            "id": one.id,
            "status": status,
            "height": one.height,
            "width": one.width,
            "classes": one.box_classes.tolist(),
            "foreground": list(one.true_masks),
            "scores": [1.0] * len(one.true_masks),
        }
        for one in manifest.samples()
        if keep(one)
    ]
    place = Folder(f"{folder}/run") / "instances" / "found"
    write_shard(place, rows_to_table(rows, INSTANCES_SCHEMA))


def export(folder, form, *flags):
    given = [f"--out={folder}/{form}", f"--format={form}", "--masks=instances/found"]
    return run_job("export", [*at(folder), *given, *flags])


def judged(truth, results):
    official = Official(str(truth))
    evaluation = COCOeval(official, official.loadRes(str(results)), "segm")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return evaluation.stats[0]


KINDS = {
    "usual": {},
    "words": {"ids": ("left", "right")},
    "numbers as words": {"ids": ("1", "2")},
    "zeros in front": {"ids": ("0001", "0002")},
    "negative and zero": {"ids": (-5, 0)},
    "nineteen digits": {"ids": (1234567890123456789, 1234567890123456790)},
    "paths as ids": {"ids": ("../../x", "/etc/x")},
    "line breaks": {"ids": ("a\nb", "a\r\nb")},
    "long": {"ids": ("n" * 300, "n" * 301)},
    "case": {"ids": ("A", "a")},
    "category zero": {"categories": ((0, "cat"), (1, "dog"))},
    "negative category": {"categories": ((-1, "cat"), (7, "dog"))},
    "categories as words": {"categories": (("1", "cat"), ("2", "dog"))},
    "category of words": {"categories": (("c", "cat"), ("d", "dog"))},
    "sub folders": {"names": ("day 1/a.jpg", "day 2/a.jpg")},
    "backslashes": {"names": ("day 1\\a.jpg", "day 2\\a.jpg")},
    "names of numbers": {"names": ("12.jpg", "012.jpg")},
}


@pytest.mark.parametrize("kind", KINDS)
def test_results_judge_as_perfect_on_the_strangers_own_json(tmp_path, capsys, kind):
    content = stranger(tmp_path, **KINDS[kind])
    assert prepare(tmp_path, content) == 0
    store_truth(tmp_path)
    assert export(tmp_path, "coco_results") == 0
    assert judged(tmp_path / "a.json", tmp_path / "coco_results/results_val.json") == 1
    assert {path.name for path in tmp_path.iterdir()} == {
        "images", "a.json", "run", "coco_results"
    }  # fmt: skip


@pytest.mark.parametrize("form", ["coco", "coco_polygons"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_data_set_comes_back_with_its_ids_names_and_categories(tmp_path, kind, form):
    content = stranger(tmp_path, **KINDS[kind])
    prepare(tmp_path, content)
    store_truth(tmp_path)
    assert export(tmp_path, form) == 0
    back = json.loads((tmp_path / form / "instances_val.json").read_text())
    assert typed(back["images"], "id", "file_name") == typed(content["images"], "id", "file_name")
    assert typed(back["categories"], "id", "name") == typed(content["categories"], "id", "name")
    found = typed(back["annotations"], "image_id", "category_id")
    assert found == typed(content["annotations"], "image_id", "category_id")


def typed(entries, *names):
    return sorted(repr([one[name] for name in names]) for one in entries)


def test_two_splits_that_count_from_one_are_judged_each_on_its_own(tmp_path, capsys):
    train, val = stranger(tmp_path), stranger(tmp_path)
    (tmp_path / "val.json").write_text(json.dumps(val))
    flags = f"--coco.val-images={tmp_path}/images", f"--coco.val-annotations={tmp_path}/val.json"
    prepare(tmp_path, train, *flags)
    store_truth(tmp_path)
    assert export(tmp_path, "coco_results", "--split=val") == 0
    assert judged(tmp_path / "val.json", tmp_path / "coco_results/results_val.json") == 1
    with pytest.raises(SystemExit) as ended:
        export(tmp_path, "coco")
    assert ended.value.code == 1
    assert "--split" in capsys.readouterr().err


@pytest.mark.parametrize("form", ["coco", "coco_polygons", "coco_results"])
def test_an_export_of_a_part_is_counted_and_ends_with_status_3(tmp_path, capsys, form):
    prepare(tmp_path, stranger(tmp_path))
    store_truth(tmp_path, lambda one: one.id == "000000000001")
    assert export(tmp_path, form) == 3
    assert "export: left out 1 images: 1 without a row" in capsys.readouterr().out
    store_truth(tmp_path, lambda one: one.id == "000000000002", status="error")
    assert export(tmp_path, form) == 3
    assert "export: left out 1 images: 1 error" in capsys.readouterr().out


def test_an_export_of_nothing_says_so_and_ends_with_status_3(tmp_path, capsys):
    prepare(tmp_path, stranger(tmp_path))
    store_truth(tmp_path, status="error")
    assert export(tmp_path, "coco") == 3
    assert "no mask was written" in capsys.readouterr().out


def test_objects_without_a_pixel_are_a_part_that_is_missing(tmp_path, capsys):
    content = stranger(tmp_path)
    content["annotations"][0]["segmentation"] = [[1, 1, 2, 2]]
    assert prepare(tmp_path, content) == 3
    store_truth(tmp_path)
    assert export(tmp_path, "coco") == 3
    assert "1 without a pixel left out" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["background", "a:b", "#a", "ignored", " a"])
def test_prepare_says_which_class_name_an_exporter_will_refuse(tmp_path, capsys, name):
    content = stranger(tmp_path, categories=((1, name), (2, "dog")))
    assert prepare(tmp_path, content) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "will refuse" in line]
    assert name in line


def test_prepare_ends_with_status_3_and_keeps_what_it_left_out(tmp_path, capsys):
    content = stranger(tmp_path)
    content["annotations"][0]["segmentation"] = [[1, 1, None, 2, 3, 3]]
    for _ in range(2):  # the second one finds everything done
        assert prepare(tmp_path, content) == 3
        told = capsys.readouterr().out
        assert "left out: 1 annotations: a coordinate of the outline is no number" in told
    facts = json.loads((tmp_path / "run/manifest/run.json").read_text())["tally"]
    assert facts["taken"]["boxes"] == 3
    (one,) = facts["left_out"]
    assert (one["what"], one["count"]) == ("annotations", 1)


def test_that_all_objects_are_crowds_is_said(tmp_path, capsys):
    content = stranger(tmp_path)
    for one in content["annotations"]:
        one["iscrowd"] = 1
    assert prepare(tmp_path, content) == 0
    assert "all 4 objects are crowds" in capsys.readouterr().out


def test_all_images_missing_is_an_error_of_one_line(tmp_path, capsys):
    content = stranger(tmp_path)
    for image in content["images"]:
        image["file_name"] = f"elsewhere/{image['file_name']}"
    with pytest.raises(SystemExit) as ended:
        prepare(tmp_path, content)
    assert ended.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "2 of 2 images not found" in line
