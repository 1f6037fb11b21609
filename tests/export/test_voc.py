import numpy as np
import pytest
from PIL import Image

from rayseg.export.voc import write_voc
from rayseg.records.palette import VOC_PALETTE, decode_labels, encode_labels

CLASSES = ["cat", "dog", "Größe 2"]


def draw_masks(count=3, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.choice(np.array([0, 1, 2, 3, 255], np.uint8), (count, 6, 7))
    return [(f"2007_{number:06d}", encode_labels(mask)) for number, mask in enumerate(labels)]


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_folder_is_vocs(tmp_path):
    masks = draw_masks()
    assert write_voc(iter(masks), tmp_path / "voc", CLASSES, "train") == 3
    ids = [id_ for id_, _ in masks]
    assert set(contents(tmp_path / "voc")) == {
        "labelmap.txt",
        "ImageSets/Segmentation/train.txt",
        *(f"SegmentationClass/{id_}.png" for id_ in ids),
    }
    listed = (tmp_path / "voc/ImageSets/Segmentation/train.txt").read_text()
    assert listed == "".join(f"{id_}\n" for id_ in ids)


def test_masks_come_back_with_vocs_palette(tmp_path):
    masks = draw_masks()
    write_voc(masks, tmp_path, CLASSES)
    for id_, png in masks:
        path = tmp_path / "SegmentationClass" / f"{id_}.png"
        np.testing.assert_array_equal(decode_labels(path.read_bytes()), decode_labels(png))
        with Image.open(path) as picture:
            assert picture.mode == "P"
            assert picture.getpalette() == VOC_PALETTE.ravel().tolist()


def test_another_palette_is_replaced_and_the_index_kept(tmp_path):
    labels = np.array([[0, 1], [2, 255]], np.uint8)
    picture = Image.fromarray(labels)
    picture.putpalette(list(range(255, -1, -1)) * 3)
    picture.save(tmp_path / "grey.png")
    write_voc([("a", (tmp_path / "grey.png").read_bytes())], tmp_path / "voc", CLASSES)
    written = (tmp_path / "voc/SegmentationClass/a.png").read_bytes()
    assert written == encode_labels(labels)


def test_labelmap_colours_are_those_of_the_masks(tmp_path):
    write_voc([], tmp_path, CLASSES)
    lines = (tmp_path / "labelmap.txt").read_text(encoding="utf-8").splitlines()
    assert lines == [
        "# label:color_rgb:parts:actions",
        "background:0,0,0::",
        "cat:128,0,0::",
        "dog:0,128,0::",
        "Größe 2:128,128,0::",
        "ignored:224,224,192::",
    ]


def test_ids_with_slashes_make_folders(tmp_path):
    png = draw_masks(1)[0][1]
    write_voc([("day 1/a", png), ("day 2/a", png)], tmp_path, CLASSES)
    assert (tmp_path / "SegmentationClass/day 1/a.png").exists()
    listed = (tmp_path / "ImageSets/Segmentation/train.txt").read_text()
    assert listed == "day 1/a\nday 2/a\n"


STRANGE = ["../a", "a/../../b", "/etc/a", "a//b", "", ".", "a/.", "..\\a", "a\nb", "a\0b", " a"]


@pytest.mark.parametrize("id_", [*STRANGE, "n" * 400])
def test_no_id_leaves_the_folder_or_breaks_the_list(tmp_path, id_):
    png = draw_masks(1)[0][1]
    assert write_voc([(id_, png), ("b", png)], tmp_path / "deep/voc", CLASSES) == 2
    listed = (tmp_path / "deep/voc/ImageSets/Segmentation/train.txt").read_text().split("\n")
    assert (len(listed), listed[1:]) == (3, ["b", ""])
    assert set(contents(tmp_path)) == {
        "deep/voc/labelmap.txt",
        "deep/voc/ImageSets/Segmentation/train.txt",
        *(f"deep/voc/SegmentationClass/{name}.png" for name in listed[:2]),
    }


def test_strange_ids_do_not_meet_in_one_file(tmp_path):
    png = draw_masks(1)[0][1]
    assert write_voc([(id_, png) for id_ in STRANGE], tmp_path, CLASSES) == len(STRANGE)
    assert len(list(tmp_path.rglob("*.png"))) == len(STRANGE)


def test_links_do_not_lead_out_of_the_folder(tmp_path):
    write_voc([], tmp_path / "voc", CLASSES, "val")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "voc/SegmentationClass").mkdir()
    (tmp_path / "voc/SegmentationClass/out").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="leads out"):
        write_voc([("out/a", draw_masks(1)[0][1])], tmp_path / "voc", CLASSES)
    assert not list((tmp_path / "elsewhere").iterdir())


@pytest.mark.parametrize(
    "name", ["labelmap.txt", "SegmentationClass/2007_000000.png", "ImageSets/Segmentation/val.txt"]
)
def test_nothing_is_written_through_a_link(tmp_path, name):
    victim, path = tmp_path / "victim", tmp_path / "voc" / name
    victim.write_text("precious")
    if name != "labelmap.txt":  # else it would be the folder of somebody else
        write_voc([], tmp_path / "voc", CLASSES, "empty")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_name(f".{path.name}.part").symlink_to(victim)
    write_voc(draw_masks(1), tmp_path / "voc", CLASSES, "val")
    assert victim.read_text() == "precious"
    assert not path.is_symlink()
    path.unlink()
    path.symlink_to(victim)
    with pytest.raises((ValueError, FileExistsError), match=r"leads out|other classes"):
        write_voc(draw_masks(1), tmp_path / "voc", CLASSES, "val")
    assert victim.read_text() == "precious"


def test_a_file_in_the_way_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file/voc"):
        with pytest.raises(NotADirectoryError, match=r"expected a folder, found the file .*/file;"):
            write_voc([], folder, CLASSES)


@pytest.mark.parametrize("split", ["", "../train", "a/b", "a\n"])
def test_bad_splits_are_refused(tmp_path, split):
    with pytest.raises(ValueError, match="without '/'"):
        write_voc([], tmp_path, CLASSES, split)
    assert not contents(tmp_path)


@pytest.mark.parametrize(
    "classes", [["a:b"], ["a\n"], ["#a"], [""], ["a", "a"], ["background"], ["a"] * 255]
)
def test_bad_class_names_are_refused(tmp_path, classes):
    with pytest.raises(ValueError, match="class"):
        write_voc([], tmp_path, classes)
    assert not contents(tmp_path)


def test_same_export_again_changes_nothing(tmp_path):
    masks = draw_masks()
    write_voc(masks, tmp_path, CLASSES)
    before = contents(tmp_path)
    write_voc(masks[::-1], tmp_path, CLASSES)
    assert contents(tmp_path) == before


def test_interrupted_export_is_finished(tmp_path):
    def stops(masks):
        yield from masks[:2]
        raise KeyboardInterrupt

    masks = draw_masks(4)
    with pytest.raises(KeyboardInterrupt):
        write_voc(stops(masks), tmp_path / "a", CLASSES)
    assert not (tmp_path / "a/ImageSets").exists()
    write_voc(masks, tmp_path / "a", CLASSES)
    write_voc(masks, tmp_path / "b", CLASSES)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_two_splits_share_a_folder(tmp_path):
    masks = draw_masks(4)
    write_voc(masks[:2], tmp_path, CLASSES, "train")
    write_voc(masks[2:], tmp_path, CLASSES, "val")
    lists = tmp_path / "ImageSets/Segmentation"
    assert (lists / "val.txt").read_text().split() == [id_ for id_, _ in masks[2:]]
    assert (lists / "train.txt").read_text().split() == [id_ for id_, _ in masks[:2]]


@pytest.mark.parametrize(
    ("masks", "classes", "message"),
    [
        (draw_masks(3, seed=1), CLASSES, "another mask"),
        (draw_masks(3), ["cat", "dog", "cow"], "other classes"),
        (draw_masks(2), CLASSES, "other images"),
    ],
)
def test_an_earlier_export_is_never_changed(tmp_path, masks, classes, message):
    write_voc(draw_masks(3), tmp_path, CLASSES)
    before = contents(tmp_path)
    with pytest.raises(FileExistsError, match=message):
        write_voc(masks, tmp_path, classes)
    assert contents(tmp_path) == before


def test_a_strangers_folder_is_refused(tmp_path):
    (tmp_path / "thesis.docx").write_text("")
    with pytest.raises(FileExistsError, match=r"thesis\.docx"):
        write_voc(draw_masks(), tmp_path, CLASSES)
    assert set(contents(tmp_path)) == {"thesis.docx"}


@pytest.mark.parametrize(
    ("png", "message"),
    [
        (encode_labels(np.full((2, 2), 4, np.uint8)), "'a' holds label 4, but there are 3 classes"),
        (b"", "'a': a mask must be a whole PNG"),
    ],
)
def test_bad_masks_are_refused_by_name(tmp_path, png, message):
    with pytest.raises(ValueError, match=message):
        write_voc([("a", png)], tmp_path, CLASSES)


def test_an_id_that_comes_twice_is_refused(tmp_path):
    with pytest.raises(ValueError, match="twice"):
        write_voc(draw_masks(1) * 2, tmp_path, CLASSES)
