import json
import re

import numpy as np
import pytest

from rayseg import store
from rayseg.records.palette import VOC_PALETTE
from rayseg.report.contrast import DARK_PAPER, LIGHT_PAPER, contrast
from rayseg.report.page import write_report
from rayseg.report.wording import percent
from tests.report.pages import DASH, SCRIPT, STAGES, examples, make_scores, read_page


def test_page_asks_the_network_for_nothing(run):
    page = read_page(run)
    text = run.read("report.html").decode()
    assert not re.search(r"https?:|//[a-z]+\.|@import|<link|<iframe", text)
    for _, attrs in page.elements:
        for key in ("src", "href", "xlink:href"):
            assert re.match(r"data:image/(png|jpeg);base64,|#", attrs.get(key, "#"))


def test_headline_equals_scores_json_row_for_row(run):
    rows = read_page(run).tables[0][1:]
    scores = make_scores()
    names = ["seeds/cam", "seeds/advcam", "masks/advcam+crf"]
    assert [row[0] for row in rows] == ["camseeds", "advcamseeds", "advcam+crfmasks"]
    for name, row in zip(names, rows, strict=True):
        figures = [percent(scores[name][key]) for key in ("miou", "precision", "recall", "f1")]
        assert row[1:5] == figures
        assert row[6] == "6"
    assert rows[0][1:6] == ["40.0", "50.0", DASH, DASH, "0.27"]
    assert rows[1][1:6] == ["52.3", "62.3", "57.3", "59.8", "0.41"]
    assert rows[2][1:6] == ["61.7", "71.7", "66.7", "69.2", DASH]


def test_further_means_have_columns_where_they_are_given(run):
    scores = make_scores()
    for entry in scores.values():
        entry["present"] = {"names": ["background", "<b>dog</b>"], "miou": 0.25}
    scores["seeds/cam"]["over"] = {"names": ["background", "$cow$"], "miou": 0.125}
    run.write("scores.json", json.dumps(scores).encode())
    page = read_page(run)
    titles, *rows = page.tables[0]
    assert titles[:5] == ["result", "mIoU", "mIoU, chosen", "mIoU, present", "precision"]
    assert [row[2:4] for row in rows] == [["12.5", "25.0"], [DASH, "25.0"], [DASH, "25.0"]]
    assert "Chosen: background, $cow$." in page.text


def test_images_whose_truth_is_bad_are_listed(run):
    scores = make_scores()
    for entry in scores.values():
        skipped = [{"id": "img4", "reason": "true mask is <missing>"}]
        entry |= {"skipped": skipped, "skipped_count": 1, "ids": "few.txt"}
    run.write("scores.json", json.dumps(scores).encode())
    page = read_page(run)
    rows = [row for table in page.tables for row in table if row and row[0] == "img4"]
    assert rows == [["img4", "not scored · true mask is <missing>", ", ".join(STAGES)]]
    assert "1 image has a true mask that cannot be used" in page.text
    assert "Only the images of few.txt." in page.text


def test_entries_without_any_image_still_have_a_page(run):
    nothing = {
        "images": 0,
        "miou": None,
        "threshold": None,
        "sweep": {"thresholds": [0.1], "miou": [None]},
    }
    run.write("scores.json", json.dumps({"seeds/cam": nothing}).encode())
    assert "Nothing is scored yet." in read_page(run).text


def test_sentence_compares_the_final_masks_with_cam(run):
    expected = "advcam+crf reaches 61.7 % mIoU, 21.7 points above cam (seeds)."
    assert expected in read_page(run).text


def test_truth_layer_has_the_palettes_colours(run):
    # img0 is a cat (label 1); 48x64 is shown at 240x320, so stored pixel (y, x) covers 5x5.
    layer = read_page(run).images("truth: background 50%, ignored 25%, cat 25%")[0]
    assert layer.shape == (240, 320, 4)
    assert layer[50, 50].tolist() == [*VOC_PALETTE[1], 150]
    assert layer[200, 50, 3] == 0
    assert layer[119, 50].tolist() == layer[50, 159].tolist() == [255, 255, 255, 235]
    assert {tuple(pixel) for pixel in layer[180, 200:300]} == {
        (205, 205, 205, 150),
        (150, 150, 150, 150),
    }


def test_mask_layer_lies_where_the_mask_does(run):
    layer = read_page(run).images("advcam+crf: background")[0]
    filled = (layer == [*VOC_PALETTE[1], 150]).all(axis=-1)
    rows, columns = np.nonzero(filled)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (21, 98, 21, 138)


def test_seed_layer_fades_with_the_map_and_is_outlined_at_the_threshold(run):
    layer = read_page(run).images("cam: ")[0]
    assert layer[50, 50].tolist() == [*VOC_PALETTE[1], 195]
    assert layer[200, 250, 3] == 0
    edge = np.flatnonzero((layer[50] == [255, 255, 255, 235]).all(axis=-1))
    # The map falls from 1 to 0 around x = 160, over one cell of 20 pixels; 0.27 lies beyond it.
    assert 160 < edge[0] < 170


def test_failed_images_are_listed_once_with_their_reason_escaped(run):
    page = read_page(run)
    text = run.read("report.html").decode()
    assert SCRIPT not in text
    assert "<b>dog</b>" not in text
    rows = [row for table in page.tables for row in table if row and row[0] == SCRIPT]
    assert rows == [[SCRIPT, "error · cut <short> & empty", ", ".join(STAGES)]]
    assert "1 image failed." in page.text


def test_best_descend_and_worst_ascend(run):
    page = read_page(run)
    assert examples(page, "best") == ["img0", "img1"]
    assert examples(page, "worst") == ["img2", "img3"]
    assert re.findall(r"mIoU (\d+\.\d) %", page.text) == ["90.0", "70.0", "10.0", "20.0"]


def test_images_take_the_classes_in_turn_and_failed_ones_are_not_chosen(run):
    shown = examples(read_page(run, max_images=3), "images")
    assert {int(name.removeprefix("img")) % 3 for name in shown} == {0, 1, 2}
    assert SCRIPT not in examples(read_page(run, max_images=50), "images")


def test_page_is_the_same_at_every_call(run):
    write_report(run)
    first = run.read("report.html")
    write_report(run)
    assert run.read("report.html") == first


def test_cost_counts_rows_seconds_and_bytes(run):
    folder = run / "seeds/cam"
    size = sum(len(folder.read(name)) for name in folder.names(".parquet"))
    rows = {row[0]: row[1:] for table in read_page(run).tables for row in table if row}
    stored = f"{size / 7:.3g} B" if size < 7000 else f"{size / 7000:.3g} kB"
    assert rows["seeds/cam"] == ["7", "6", "0", "1", "14 s", "0.50", "0.5 s", stored]
    assert rows["classifier"][4] == "1 min 00 s"
    assert rows["grey converted to RGB"] == ["1"]


def test_an_image_that_cannot_be_opened_is_named_in_its_place(run, tmp_path):
    (tmp_path / "data" / "0.png").write_bytes(b"no picture")
    (tmp_path / "data" / "1.png").unlink()
    (tmp_path / "data" / "2-mask.png").write_bytes(b"\x89PNG")
    text = read_page(run).text
    assert "not an image" in text
    assert "does not exist" in text
    assert "a mask must be a whole PNG" in text


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ("manifest/manifest.parquet", "The run has no manifest yet"),
        ("scores.json", "Nothing is scored yet."),
        ("seeds/cam/run.json", "seeds/cam"),
    ],
)
def test_a_missing_part_is_said(run, part, said):
    folder, _, name = part.rpartition("/")
    place = run / folder if folder else run
    for one in {name, ".run-copy.json"} & set(place.names()):
        place.delete(one)
    assert said in read_page(run).text


def headings(page):
    return re.findall(r"<h2>(.*?)</h2>", page.html)


def test_an_empty_run_still_has_a_page_and_no_empty_section(tmp_path):
    page = read_page(store.Folder(str(tmp_path / "run")))
    assert "Nothing is scored yet." in page.text
    assert headings(page) == []
    assert "<section" not in page.html
    assert "<a href" not in page.html


def test_a_section_that_has_nothing_to_show_is_left_out(run):
    before = headings(read_page(run))
    (run / "classifier").remove()
    run.delete("scores.json")
    page = read_page(run)
    gone = {"Scores", "Best and worst images", "By class", "By background threshold",
            "By object size", "Classifier"}  # fmt: skip
    assert [one for one in before if one not in gone] == headings(page)
    assert gone <= set(before)
    for _, attrs in page.elements:
        if attrs.get("href", "").startswith("#"):
            assert f'id="{attrs["href"][1:]}"' in page.html


def test_a_split_without_images_has_no_pictures(run):
    page = read_page(run, split="nowhere")
    assert "0 images in split “nowhere”" in page.text
    assert "Images" not in headings(page)


def test_the_share_that_masks_leave_open_stands_beside_their_miou(run):
    scores = make_scores()
    scores["masks/advcam+crf"]["undecided"] = 0.375
    run.write("scores.json", json.dumps(scores).encode())
    page = read_page(run)
    titles, *rows = page.tables[0]
    assert titles[1:3] == ["mIoU", "undecided"]
    assert [row[2] for row in rows] == [DASH, DASH, "37.5"]
    assert "37.5" not in page.highest[0]
    assert "they count as background" in page.text


def test_letters_stand_beside_colours_and_on_pictures(run):
    page = read_page(run)
    letters = re.findall(r'<b class="letters">(.*?)</b>', page.html)
    assert {"C", "B", "Co", "?"} == set(letters)
    marks = re.findall(r'<b class="mark"[^>]*>(.*?)</b>', page.html)
    assert set(marks) == {"C", "B", "Co", "?"}


def test_classes_and_series_have_a_contrast_of_three_to_one_in_both_schemes(run):
    page = read_page(run)
    for scheme, paper in (("light", LIGHT_PAPER), ("dark", DARK_PAPER)):
        colors = re.findall(rf"--{scheme}: (#\w+)", page.html)
        assert colors
        assert min(contrast(color, paper) for color in colors) >= 3
    light, dark = page.html.split("prefers-color-scheme: dark", 1)
    for text, paper in ((light, LIGHT_PAPER), (dark.partition("}\n}")[0], DARK_PAPER)):
        series = re.findall(r"--series-\d: (#\w+)", text)
        assert len(series) == 8
        assert min(contrast(color, paper) for color in series) >= 3
        assert f"--raised: {paper}" in text


def test_page_stays_under_six_megabytes(run, monkeypatch):
    monkeypatch.setattr("rayseg.report.page.MAX_PICTURE_CHARACTERS", 400_000)
    page = read_page(run, max_images=6)
    pictures = sum(len(a["src"]) for tag, a in page.elements if tag == "img")
    assert 0 < pictures < 400_000
    assert re.search(r"\d+ more left out to keep this page small", page.text)


def test_every_picture_has_a_description(run):
    page = read_page(run)
    images = [attrs for tag, attrs in page.elements if tag == "img"]
    drawings = [attrs for tag, attrs in page.elements if tag == "svg"]
    assert images
    assert len(drawings) == 4
    assert all(attrs.get("alt") for attrs in images)
    assert all(attrs.get("aria-label") for attrs in drawings)


def test_drawings_take_their_colours_from_the_page(run):
    write_report(run)
    text = run.read("report.html").decode()
    drawings = re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL)
    colours = {colour for svg in drawings for colour in re.findall(r"(?:fill|stroke): (#\w+)", svg)}
    assert colours <= {"#ffffff"}
    assert all("var(--ink)" in svg or "var(--muted)" in svg for svg in drawings)


def test_classes_that_are_warned_of_have_a_section(run):
    poor = {"images": 4, "covered_share": 0.95, "lacking_share": 0.0, "unrecognised_share": None}
    poor |= {"sign": "wide", "warning": "masks cover <95 %>; give boxes"}
    fine = poor | {"sign": "", "warning": ""}
    quality = {"masks/advcam+crf": {"$cow$": poor, "cat": fine, "<b>dog</b>": poor | {"images": 9}}}
    run.write("scores.json", json.dumps(make_scores() | {"quality": quality}).encode())
    page = read_page(run)
    (rows,) = [table[1:] for table in page.tables if table[0][-1] == "not recognised"]
    words = ["masks cover <95 %>; give boxes", "advcam+crf"]
    assert rows == [
        ["<b>dog</b>", *words, "9", "95.0", "0.0", DASH],
        ["$cow$", *words, "4", "95.0", "0.0", DASH],
    ]
    assert "#suspects" in [attrs.get("href") for _, attrs in page.elements]
    assert "Classes that are warned of: 2." in page.text
    assert page.tables[0][1:] == read_page_without(run, "quality").tables[0][1:]


@pytest.mark.parametrize("fine", [{}, {"masks/advcam+crf": {"cat": {"sign": "", "warning": ""}}}])
def test_where_nothing_is_warned_of_there_is_no_such_section(run, fine):
    run.write("scores.json", json.dumps(make_scores() | {"quality": fine}).encode())
    assert "Doubtful masks" not in read_page(run).text


def read_page_without(run, key):
    scores = json.loads(run.read("scores.json"))
    del scores[key]
    run.write("scores.json", json.dumps(scores).encode())
    return read_page(run)
