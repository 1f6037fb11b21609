import json

import numpy as np
import pytest
from faster_coco_eval import COCO as Other
from faster_coco_eval import COCOeval_faster
from PIL import Image
from pycocotools.coco import COCO as Official
from pycocotools.cocoeval import COCOeval
from torchvision.datasets import CocoDetection

from rayseg.datasets import COCO
from rayseg.datasets.tally import Tally
from rayseg.export import write_coco, write_coco_results
from rayseg.export.coco import image_number
from rayseg.records.rle import decode_mask, encode_mask, mask_area

CLASSES = ("cat", "dog", "Größe 2")
IDS = (3, 7, 90)


def draw_row(rng, id_, objects=3, size_hw=(40, 50)):
    """A row of instances: ellipses with holes, none empty."""
    y, x = np.mgrid[: size_hw[0], : size_hw[1]]
    masks = []
    for _ in range(objects):
        cy, cx = rng.uniform(10, 30, 2)
        distance = ((y - cy) / rng.uniform(4, 12)) ** 2 + ((x - cx) / rng.uniform(4, 12)) ** 2
        masks.append((distance < 1) & (rng.random(size_hw) < 0.95))
    return {
        "id": id_,
        "path": f"/photos/{id_}.png",
        "height": size_hw[0],
        "width": size_hw[1],
        "classes": rng.integers(0, 3, objects).tolist(),
        "foreground": [encode_mask(mask) for mask in masks],
        "scores": rng.random(objects).tolist(),
    }


@pytest.fixture
def rows():
    rng = np.random.default_rng(0)
    ids = ("000000000139", "2007_000032", "sub/c", "17")
    return [draw_row(rng, id_, objects) for id_, objects in zip(ids, (3, 1, 0, 6), strict=True)]


def read(folder, name="instances_train.json"):
    return json.loads((folder / name).read_text(encoding="utf-8"))


def by_image(content):
    """Annotations of each image of the run, by its id."""
    ids = {image["id"]: image["rayseg_id"] for image in content["images"]}
    found = {id_: [] for id_ in ids.values()}
    for one in content["annotations"]:
        found[ids[one["image_id"]]].append(one)
    return found


def test_the_file_says_what_the_rows_say(rows, tmp_path):
    written = write_coco(iter(rows), tmp_path, CLASSES, IDS)
    assert (written.images, written.objects, written.left_out) == (4, 10, 0)
    content = read(tmp_path)
    assert [(c["id"], c["name"]) for c in content["categories"]] == list(
        zip(IDS, CLASSES, strict=True)
    )
    assert [one["id"] for one in content["annotations"]] == list(range(1, 11))
    images = {image["rayseg_id"]: image for image in content["images"]}
    for row in rows:
        image, found = images[row["id"]], by_image(content)[row["id"]]
        assert (image["height"], image["width"]) == (40, 50)
        assert image["file_name"] == f"{row['id']}.png"
        assert [one["category_id"] for one in found] == [IDS[c] for c in row["classes"]]
        assert [one["score"] for one in found] == row["scores"]
        for one, counts in zip(found, row["foreground"], strict=True):
            mask = decode_mask(counts, (40, 50))
            ys, xs = np.nonzero(mask)
            assert one["bbox"] == [
                xs.min(), ys.min(), xs.max() + 1 - xs.min(), ys.max() + 1 - ys.min()
            ]  # fmt: skip
            assert (one["area"], one["iscrowd"]) == (mask.sum(), 0)
            assert one["segmentation"] == {"size": [40, 50], "counts": counts.decode("ascii")}


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("polygons", [False, True])
def test_pycocotools_loads_it_and_draws_the_same_masks(rows, tmp_path, capsys, polygons):
    written = write_coco(rows, tmp_path, CLASSES, IDS, polygons=polygons)
    official = Official(str(tmp_path / "instances_train.json"))
    assert sorted(official.getCatIds()) == list(IDS)
    assert len(official.getImgIds()) == 4
    for row in rows:
        entries = official.loadAnns(official.getAnnIds(image_number(row["id"])))
        for one, counts in zip(entries, row["foreground"], strict=True):
            drawn = official.annToMask(one).astype(bool)
            np.testing.assert_array_equal(drawn, decode_mask(counts, (40, 50)))
    assert (written.mean_iou, written.worst_iou) == ((1, 1) if polygons else (None, None))


def judge(truth, results, iou_type="segm"):
    official = COCOeval(truth, results, iou_type)
    official.evaluate()
    official.accumulate()
    official.summarize()
    return official.stats


def test_the_export_against_itself_has_precision_one(rows, tmp_path, capsys):
    write_coco(rows, tmp_path, CLASSES, IDS, "val")
    write_coco_results(rows, tmp_path, CLASSES, IDS, "val")
    truth = Official(str(tmp_path / "instances_val.json"))
    stats = judge(truth, truth.loadRes(str(tmp_path / "results_val.json")))
    np.testing.assert_allclose(stats[:3], 1)
    np.testing.assert_allclose(judge(truth, truth)[:3], 1)


def test_torchvision_reads_the_same(rows, tmp_path, capsys):
    for row in rows:
        (tmp_path / row["id"]).parent.mkdir(exist_ok=True)
        Image.new("RGB", (50, 40)).save(tmp_path / f"{row['id']}.png")
    write_coco(rows, tmp_path, CLASSES, IDS)
    found = {
        len(entries): (picture.size, [one["area"] for one in entries])
        for picture, entries in CocoDetection(tmp_path, str(tmp_path / "instances_train.json"))
    }
    assert found == {
        len(row["classes"]): ((50, 40), [mask_area(c, (40, 50)) for c in row["foreground"]])
        for row in rows
    }


@pytest.mark.parametrize("polygons", [False, True])
def test_a_reader_without_pycocotools_finds_and_judges_the_same(rows, tmp_path, polygons):
    write_coco(rows, tmp_path, CLASSES, IDS, "val", polygons)
    write_coco_results(rows, tmp_path, CLASSES, IDS, "val")
    truth = Other(str(tmp_path / "instances_val.json"))
    wanted = {image_number(row["id"]): row for row in rows}
    for number, row in wanted.items():
        found = truth.loadAnns(truth.getAnnIds(imgIds=[number]))
        masks = [decode_mask(counts, (40, 50)) for counts in row["foreground"]]
        assert np.array_equal([truth.annToMask(one) for one in found], masks)
        assert [one["category_id"] for one in found] == [IDS[c] for c in row["classes"]]
    results = truth.loadRes(str(tmp_path / "results_val.json"))
    judged = COCOeval_faster(truth, results, "segm", print_function=lambda *_: None)
    judged.run()
    np.testing.assert_allclose(judged.stats[:3], 1)


@pytest.mark.parametrize("polygons", [False, True])
def test_our_own_reader_finds_everything_again(rows, tmp_path, polygons):
    for row in rows:
        (tmp_path / row["id"]).parent.mkdir(exist_ok=True)
        Image.new("RGB", (50, 40)).save(tmp_path / f"{row['id']}.png")
    write_coco(rows, tmp_path, CLASSES, IDS, polygons=polygons)
    reader = COCO(tmp_path, tmp_path / "instances_train.json")
    assert (reader.classes, reader.category_ids) == (CLASSES, IDS)
    found = {sample.id: sample for sample in reader.samples(tmp_path / "work", Tally())}
    for row in rows:
        sample = found[str(image_number(row["id"])).zfill(12)]
        assert sample.path == str(tmp_path / f"{row['id']}.png")
        assert sample.box_classes.tolist() == row["classes"]
        assert sample.true_masks == tuple(row["foreground"])
        areas = np.prod(sample.boxes_xyxy[:, 2:] - sample.boxes_xyxy[:, :2], axis=1)
        assert (areas >= [mask_area(c, (40, 50)) for c in row["foreground"]]).all()


def test_results_hold_what_coco_asks_for_and_no_box(rows, tmp_path):
    written = write_coco_results(rows, tmp_path, CLASSES, IDS)
    results = read(tmp_path, "results_val.json")
    assert written.objects == len(results) == 10
    assert {tuple(sorted(entry)) for entry in results} == {
        ("category_id", "image_id", "score", "segmentation")
    }
    assert {entry["image_id"] for entry in results} == {
        image_number(row["id"]) for row in rows if row["classes"]
    }


def test_objects_without_a_pixel_are_left_out_and_counted(rows, tmp_path):
    rows[0]["foreground"][:2] = [b"", encode_mask(np.zeros((40, 50), bool))]
    written = write_coco(rows, tmp_path, CLASSES, IDS)
    assert (written.objects, written.left_out) == (8, 2)
    assert "2 without a pixel left out" in str(written)
    (kept,) = by_image(read(tmp_path))[rows[0]["id"]]
    assert kept["category_id"] == IDS[rows[0]["classes"][2]]


def test_scores_and_category_ids_may_be_left_out(rows, tmp_path):
    for row in rows:
        row["scores"] = []
    write_coco(rows, tmp_path, CLASSES)
    content = read(tmp_path)
    assert [category["id"] for category in content["categories"]] == [1, 2, 3]
    assert {one["score"] for one in content["annotations"]} == {1.0}


def test_numbers_follow_from_the_id_alone():
    assert [image_number(i) for i in ("000000000139", "17", "0")] == [139, 17, 0]
    names = ["2007_000032", "sub/c", "a", "١٢", "9" * 30, *(f"x{i}" for i in range(2000))]
    numbers = [image_number(name) for name in names]
    assert len(set(numbers)) == len(names)
    assert 0 < min(numbers) <= max(numbers) < 2**53
    assert image_number("2007_000032") == 1842658493736053


def test_numbers_are_exact_where_readers_have_doubles():
    """JavaScript's largest safe one is 2^53 - 1, of sixteen digits."""
    assert image_number("9" * 15) == 10**15 - 1
    long = image_number("9" * 16)
    assert long != 10**16 - 1
    assert 1 <= long <= 2**52


def test_the_order_of_rows_does_not_matter(rows, tmp_path):
    write_coco(rows, tmp_path, CLASSES, IDS)
    before = (tmp_path / "instances_train.json").read_bytes()
    write_coco(rows[::-1], tmp_path, CLASSES, IDS)
    assert (tmp_path / "instances_train.json").read_bytes() == before


def test_an_earlier_export_is_never_changed(rows, tmp_path):
    write_coco(rows, tmp_path, CLASSES, IDS)
    before = (tmp_path / "instances_train.json").read_bytes()
    with pytest.raises(FileExistsError, match=r"instances_train.json holds another export"):
        write_coco(rows[1:], tmp_path, CLASSES, IDS)
    write_coco(rows[1:], tmp_path, CLASSES, IDS, "val")
    assert (tmp_path / "instances_train.json").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 2


def test_a_file_appears_whole_or_not_at_all(rows, tmp_path):
    rows[3]["path"] = "/photos/\udce9.png"  # no text that UTF-8 can say
    with pytest.raises(UnicodeEncodeError):
        write_coco(rows, tmp_path / "a", CLASSES, IDS)
    assert not list(tmp_path.rglob("*.*"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows.append(rows[0] | {"id": "139"}), "139 for '000000000139' and '139'"),
        (lambda rows: rows[0].update(classes=[0, 1, 3]), r"classes must be 0..2, got 3 for '0000"),
        (lambda rows: rows[0].update(scores=[1.0]), "got 3, 3 and 1 for '0000"),
    ],
)
def test_contradictions_are_errors(rows, tmp_path, change, message):
    change(rows)
    with pytest.raises(ValueError, match=message):
        write_coco(rows, tmp_path, CLASSES, IDS)


@pytest.mark.parametrize("ids", [(1, 2), (1, 1, 2)])
def test_category_ids_that_are_none_are_refused(rows, tmp_path, ids):
    with pytest.raises(ValueError, match="category ids must be 3 different ones"):
        write_coco(rows, tmp_path, CLASSES, ids)


@pytest.mark.parametrize("split", ["", "../train", " a", "a\n"])
def test_bad_splits_are_refused(rows, tmp_path, split):
    with pytest.raises(ValueError, match="without '/'"):
        write_coco(rows, tmp_path, CLASSES, IDS, split)


@pytest.mark.data
@pytest.mark.parametrize("polygons", [False, True])
def test_real_truth_leaves_and_comes_back(real_data, tmp_path, capsys, polygons):
    home = real_data / "coco_mini"
    original = home / "annotations" / "instances_val2017.json"
    reader = COCO(home / "val2017", original, masks=True)
    rows = []
    for sample in reader.samples(tmp_path / "first", Tally()):
        single = [i for i in range(len(sample.box_classes)) if i not in sample.crowds]
        rows.append(
            {
                "id": sample.id,
                "path": sample.path,
                "height": sample.height,
                "width": sample.width,
                "classes": sample.box_classes[single].tolist(),
                "foreground": [sample.true_masks[i] for i in single],
                "scores": [1.0] * len(single),
            }
        )
    assert len(rows) == 70
    written = write_coco(rows, tmp_path, reader.classes, reader.category_ids, "val", polygons)
    back = COCO(home / "val2017", tmp_path / "instances_val.json")
    assert (back.classes, back.category_ids) == (reader.classes, reader.category_ids)
    found = {sample.id: sample for sample in back.samples(tmp_path / "second", Tally())}
    for row in rows:
        assert found[row["id"]].box_classes.tolist() == row["classes"]
        assert found[row["id"]].true_masks == tuple(row["foreground"])
    write_coco_results(rows, tmp_path, reader.classes, reader.category_ids, "val")
    truth, own = Official(str(original)), Official(str(tmp_path / "instances_val.json"))
    assert {own.imgs[i]["file_name"] for i in own.imgs} == {
        truth.imgs[i]["file_name"] for i in truth.imgs
    }
    assert set(own.getImgIds()) == set(truth.getImgIds())
    results = str(tmp_path / "results_val.json")
    for judged in (own, truth):
        np.testing.assert_allclose(judge(judged, judged.loadRes(results))[:6], 1)
    assert written.left_out == 0
    assert written.worst_iou in (None, 1)


def test_nothing_is_written_through_a_link(tmp_path, rows):
    victim, path = tmp_path / "victim", tmp_path / "out/instances_train.json"
    victim.write_text("precious")
    path.parent.mkdir()
    (path.parent / ".instances_train.json.part").symlink_to(victim)
    write_coco(rows, path.parent, CLASSES, IDS)
    assert not path.is_symlink()
    path.unlink()
    path.symlink_to(victim)
    with pytest.raises(ValueError, match="leads out of"):
        write_coco(rows, path.parent, CLASSES, IDS)
    assert victim.read_text() == "precious"
