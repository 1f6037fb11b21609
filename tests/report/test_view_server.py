"""The served page: who is let in, what is answered, and that nothing leads out of the run."""

import http.client
import io
import json
import threading
from contextlib import contextmanager
from urllib.parse import quote, urlencode, urlsplit

import numpy as np
import pytest
from PIL import Image

from rayseg.records.painting import painted
from rayseg.records.palette import decode_labels
from rayseg.report.view import Site, ViewedRun, ViewServer, results
from rayseg.report.view.pictures import Pictures
from rayseg.report.view.site import PER_PAGE
from tests.report.viewed import RESULT, id_of, labels_of, make_run

SECRET = "nobody is to read this"


@contextmanager
def serving(*runs):
    with ViewServer(Site([ViewedRun(run) for run in runs])) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.site.close()
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("place")


@pytest.fixture(scope="module")
def server(place):
    run = make_run(place, 60, (RESULT, "masks/rib+crf"))
    (place / "my run" / "secret.txt").write_text(SECRET)
    (place / "secret.txt").write_text(SECRET)
    with serving(run) as server:
        yield server


def get(server, path, host=None, method="GET", raw=False):
    """Status, headers and content of a request to what follows the token, or to a raw path."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=60)
    connection.putrequest(method, path if raw else f"/{server.token}/{path}", skip_host=True)
    for name in [f"127.0.0.1:{server.server_port}"] if host is None else host:
        connection.putheader("Host", name)
    connection.endheaders()
    answer = connection.getresponse()
    found = answer.status, answer.headers, answer.read()
    connection.close()
    return found


def asked(server, path, **fields):
    status, _, body = get(server, f"{path}?{urlencode(fields)}")
    assert status == 200, body
    return json.loads(body)


# Who is let in


def test_the_address_is_on_the_loopback_interface_and_has_a_long_token(server):
    parts = urlsplit(server.address)
    assert (parts.hostname, server.server_address[0]) == ("127.0.0.1", "127.0.0.1")
    assert len(server.token) >= 32
    with ViewServer(server.site) as other:
        assert other.token != server.token


@pytest.mark.parametrize(
    "path", ["/", "/x/", "/{}x/", "/{:.10}/", "/x/../{}/", "/api/list", "*", "/ä/", "x", "//["]
)
def test_without_the_token_nothing_is_answered(server, path):
    status, headers, body = get(server, quote(path.format(server.token), safe="/*[."), raw=True)
    assert status == 403
    assert server.token not in f"{headers}{body}"
    assert b"rayseg" in body or b"address" in body


@pytest.mark.parametrize(
    "host",
    [
        ["evil.example"],
        ["evil.example:{port}"],
        ["127.0.0.1.evil.example"],
        ["127.0.0.1@evil.example"],
        ["localhost.evil.example:80"],
        ["0.0.0.0:{port}"],
        [""],
        [],
        ["127.0.0.1:{port}", "evil.example"],
    ],
)
def test_another_name_for_this_machine_is_refused(server, host):
    """DNS rebinding: the name of another site resolves to 127.0.0.1, and the token has leaked."""
    names = [name.format(port=server.server_port) for name in host]
    assert get(server, "", host=names)[0] == 403
    assert get(server, "api/list", host=names)[0] == 403


@pytest.mark.parametrize(
    "host", ["127.0.0.1:{port}", "localhost:{port}", "LocalHost:1234", "127.0.0.1"]
)
def test_its_own_names_are_taken_with_any_port(server, host):
    assert get(server, "", host=[host.format(port=server.server_port)])[0] == 200


def test_answers_may_not_be_framed_kept_sniffed_or_followed(server):
    headers = get(server, "")[1]
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cache-Control"] == "no-store"
    assert "Python" not in headers["Server"]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "BREW"])
def test_only_reading_is_answered(server, method):
    status, headers, body = get(server, "api/list", method=method)
    assert status == 501
    assert body == b"only GET and HEAD are answered\n"
    assert "Access-Control-Allow-Origin" not in headers


def test_head_has_the_headers_alone(server):
    status, headers, body = get(server, "", method="HEAD")
    assert (status, body) == (200, b"")
    assert int(headers["Content-Length"]) > 1000


# Nothing leads out of the run


PATHS = [
    "../secret.txt",
    "secret.txt",
    "..%2fsecret.txt",
    "%2e%2e/secret.txt",
    "view.js/../../secret.txt",
    "site.py",
    "../contents.py",
    "view.html",
    "/etc/passwd",
    "manifest/manifest.parquet",
    "run.json",
    "\\..\\secret.txt",
]
RESULTS = ["..", "masks/..", "masks/../..", "/etc", "masks/nothing", "manifest", "masks"]
RESULTS += ["masks/cam+crf/", "./masks/cam+crf", "\0"]


@pytest.mark.parametrize("path", PATHS)
def test_no_address_is_a_path(server, path):
    status, _, body = get(server, path)
    assert status == 404
    assert json.loads(body)["error"]
    assert SECRET.encode() not in body


@pytest.mark.parametrize("result", RESULTS)
@pytest.mark.parametrize("path", ["thumb", "mask", "api/list", "api/tally"])
def test_only_folders_of_results_that_the_run_has_are_read(server, path, result):
    status, _, body = get(server, f"{path}?{urlencode({'result': result, 'n': 1})}")
    assert status == 404
    assert json.loads(body)["error"].count("\n") == 0


@pytest.mark.parametrize("number", ["-1", "60", "1e3", "../1", "9" * 30, ""])
@pytest.mark.parametrize("path", ["photo", "thumb", "mask", "api/image"])
def test_only_numbers_of_images_are_images(server, path, number):
    status, _, body = get(server, f"{path}?{urlencode({'n': number, 'result': RESULT, 'x': 1})}")
    assert status in (400, 404) or (number == "" and status == 200)
    assert status == 200 or json.loads(body)["error"]


def test_a_manifest_that_names_another_file_serves_it_only_if_it_is_a_picture(tmp_path):
    run = make_run(tmp_path)
    (tmp_path / "photos/0.jpg").write_text(SECRET)
    (tmp_path / "photos/1.jpg").unlink()
    with serving(run) as server:
        for path in ("photo?n=0", "photo?n=1", f"thumb?n=0&{urlencode({'result': RESULT})}"):
            status, _, body = get(server, path)
            assert status in (404, 500)
            assert SECRET.encode() not in body
            assert "Traceback" not in json.loads(body)["error"]


def test_too_many_fields_are_refused(server):
    assert get(server, "api/list?" + "&".join(f"a{n}=1" for n in range(99)))[0] == 403


# What is answered


def test_pages_hold_every_image_once(server):
    first = asked(server, "api/list", result=RESULT)
    assert (first["total"], first["pages"]) == (60, -(-60 // PER_PAGE))
    pages = [
        asked(server, "api/list", result=RESULT, page=n)["rows"] for n in range(first["pages"])
    ]
    assert [row["id"] for page in pages for row in page] == [id_of(n) for n in range(60)]
    assert max(map(len, pages)) == PER_PAGE
    assert asked(server, "api/list", result=RESULT, page=99)["page"] == first["pages"] - 1
    assert asked(server, "api/list", result=RESULT, page=-5)["page"] == 0


def test_filters_search_and_order_are_fields(server):
    found = asked(server, "api/list", result=RESULT, split="val", search="IMG 1", order="undecided")
    numbers = [row["n"] for row in found["rows"]]
    assert sorted(numbers) == [11, 15, 19]
    shares = [row["seen"][0]["undecided"] for row in found["rows"]]
    assert shares == sorted(shares, reverse=True)
    assert asked(server, "api/list", result=RESULT, status="error")["total"] == 1
    assert asked(server, "api/list", result=RESULT, **{"class": -2})["total"] == 8


def test_a_wrong_field_is_said_in_a_line(server):
    for fields in ({"order": "size"}, {"status": "no"}, {"page": "x"}, {"class": "x"}):
        status, _, body = get(server, f"api/list?{urlencode({'result': RESULT, **fields})}")
        assert status == 400
        assert "must be" in json.loads(body)["error"]


def test_a_small_picture_is_the_photo_with_its_mask(server, place):
    status, headers, body = get(server, f"thumb?{urlencode({'n': 4, 'result': RESULT})}")
    assert (status, headers["Content-Type"]) == (200, "image/jpeg")
    small = np.asarray(Image.open(io.BytesIO(body))).astype(int)
    assert small.shape == (192, 256, 3)
    photo = np.asarray(
        Image.open(place / "photos/1.jpg").resize((256, 192), Image.Resampling.LANCZOS)
    )
    labels = np.asarray(Image.fromarray(labels_of(4)).resize((256, 192), Image.Resampling.NEAREST))
    assert np.abs(small - painted(photo, labels)).mean() < 20  # JPEG of noise
    assert np.abs(small - photo).mean() > 30
    bare = get(server, "thumb?n=4")[2]
    assert np.abs(np.asarray(Image.open(io.BytesIO(bare))).astype(int) - photo).mean() < 20


def test_the_photo_and_the_mask_are_the_stored_bytes(server, place):
    status, headers, body = get(server, "photo?n=4")
    assert (status, headers["Content-Type"]) == (200, "image/jpeg")
    assert body == (place / "photos/1.jpg").read_bytes()
    status, headers, body = get(server, f"mask?{urlencode({'n': 4, 'result': RESULT})}")
    assert headers["Content-Type"] == "image/png"
    assert (decode_labels(body) == labels_of(4)).all()
    assert get(server, f"mask?{urlencode({'n': 2, 'result': RESULT})}")[0] == 404


def test_an_image_in_full_has_all_that_the_run_has_of_it(server):
    found = asked(server, "api/image", n=1)
    (image,) = found["runs"]
    assert [panel["caption"] for panel in image["panels"]] == ["cam", "cam+crf", "rib+crf"]
    assert all(panel["layer"].startswith("data:image/png") for panel in image["panels"])
    assert image["seeds"] == [
        {"name": "seeds/cam", "steps": 7, "seconds": 1.5, "classes": [[1, 2.0, None]]}
    ]
    assert [one["result"] for one in image["results"]] == ["masks/rib+crf", RESULT]
    assert image["stored"] == [48, 64]


def test_the_export_command_can_be_pasted(server, place):
    command = asked(server, "api/list", result=RESULT, split="val")["command"]
    folder = f"'{place}/my run'"
    assert command == f"rayseg export --run {folder} --masks cam+crf --out masks --split val"


def test_the_page_has_names_as_text(server):
    _, headers, body = get(server, "")
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    assert b"<b>dog</b>" not in body
    assert b"dog" in body


def test_the_first_view_makes_its_own_pictures_once_and_reads_one_part_of_the_rows(
    tmp_path, monkeypatch
):
    parts, made = [], []
    read, small = results.read_rows_about, Pictures._made
    monkeypatch.setattr(
        results, "read_rows_about", lambda *given, **more: parts.append(1) or read(*given, **more)
    )
    monkeypatch.setattr(Pictures, "_made", lambda *given: made.append(given[-1]) or small(*given))
    with serving(make_run(tmp_path, 300)) as server:
        server.site.prepare()
        for row in asked(server, "api/list", result=RESULT)["rows"]:
            assert get(server, f"thumb?{urlencode({'n': row['n'], 'result': RESULT})}")[0] == 200
        assert sorted(made) == sorted(id_of(n) for n in range(PER_PAGE))
        assert len(parts) == 1


def test_a_photo_that_cannot_be_read_does_not_end_what_is_made_ahead(tmp_path):
    run = ViewedRun(make_run(tmp_path))
    (tmp_path / "photos/0.jpg").unlink()
    pictures = Pictures()
    pictures.make_ahead(run, RESULT, run.table.ids).join()
    made = {id_ for _, _, id_, _ in pictures.held._held}
    assert made == {id_of(n) for n in range(10) if n % 3}  # three photos are shared in turn


# Two runs, runs that change, runs without masks


def test_two_runs_lie_beside_each_other_by_id(tmp_path):
    first = make_run(tmp_path / "a", 10)
    second = make_run(tmp_path / "b", 5, ("masks/other",))
    with serving(first, second) as server:
        found = asked(server, "api/list", result=RESULT, beside="masks/other")["rows"]
        assert [row["seen"][1] is None for row in found] == [False] * 5 + [True] * 5
        assert found[4]["seen"][1]["result"] == "masks/other"
        runs = asked(server, "api/image", n=7)["runs"]
        assert runs[0]["panels"]
        assert runs[1] is None
        fields = {"run": 1, "n": 4, "result": "masks/other"}
        assert get(server, f"mask?{urlencode(fields)}")[0] == 200
        assert get(server, f"photo?{urlencode(fields | {'run': 2})}")[0] == 404
        assert get(server, f"photo?{urlencode(fields | {'n': 7})}")[0] == 404


def test_runs_of_other_classes_are_not_shown_beside_each_other(tmp_path):
    first = ViewedRun(make_run(tmp_path / "a"))
    second = ViewedRun(make_run(tmp_path / "b", classes=["cow", "cat", "horse"]))
    with pytest.raises(ValueError, match=r"the same classes: .* has cat, cow, .* has cow, cat"):
        Site([first, second])


def test_shards_that_are_written_anew_are_found(tmp_path):
    run = make_run(tmp_path)
    with serving(run) as server:
        assert asked(server, "api/list", result=RESULT)["rows"][1]["seen"][0]["status"] == "ok"
        (shard,) = (tmp_path / "my run" / RESULT).glob("part-*")
        shard.rename(shard.with_name("part-0123456789abcdef.parquet"))
        status, _, body = get(server, f"thumb?{urlencode({'n': 9, 'result': RESULT})}")
        assert (status, body[:2]) == (200, b"\xff\xd8")
        (shard,) = (tmp_path / "my run" / RESULT).glob("part-*")
        shard.unlink()
        get(server, "")
        assert get(server, f"thumb?{urlencode({'n': 5, 'result': RESULT})}")[0] == 404


def test_a_damaged_shard_is_named_in_one_line(tmp_path):
    run = make_run(tmp_path)
    with serving(run) as server:
        asked(server, "api/list", result=RESULT, search="none of them")  # it is opened
        (shard,) = (tmp_path / "my run" / RESULT).glob("part-*")
        shard.write_bytes(b"x" * shard.stat().st_size)
        status, _, body = get(server, f"thumb?{urlencode({'n': 9, 'result': RESULT})}")
        said = json.loads(body)["error"]
        assert status == 500
        assert f"{shard} cannot be read" in said
        assert "rayseg check --run" in said
        assert "\n" not in said


def test_a_run_without_masks_shows_its_photos(tmp_path):
    with serving(make_run(tmp_path, results=())) as server:
        found = asked(server, "api/list", order="undecided", status="ok")
        assert (found["total"], found["command"]) == (10, "")
        assert found["rows"][0]["seen"] == [None]
        assert get(server, "thumb?n=3")[0] == 200
        assert asked(server, "api/image", n=1)["runs"][0]["results"] == []
