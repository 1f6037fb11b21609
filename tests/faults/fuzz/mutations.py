"""Content that is nearly right: each kind of file changed in the way that it can be wrong."""

import copy
import csv
import io
import json
import re
import struct
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import tomli_w

from tests.faults.fuzz.strange import strange_values

Mutate = Callable[[bytes, Random], bytes]
MAGICS = (
    b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"GIF89a", b"BM", b"II*\0", b"PAR1", b"PK\x03\x04",
    b"%!PS-Adobe", b"\x1f\x8b\x08", b"RIFF\0\0\0\0WEBP", b"P6 99999 99999 255\n", b"<svg>",
    b"\xef\xbb\xbf", b"\xff\xfe", b"\0" * 16,
)  # fmt: skip
FACTS = (
    {},
    {"rayseg": "x"},
    {"rayseg": "[]"},
    {"rayseg": "{}"},
    {"rayseg": "null"},
    {"format": "pt"},
)
SEED_OF_VALUES = 0


def strange(random: Random) -> Any:
    """One of the values that nobody expects."""
    return copy.deepcopy(random.choice(strange_values(SEED_OF_VALUES)))


def text_of(value: Any) -> str:
    """A value as a cell or a line."""
    return value if isinstance(value, str) else str(value)


def raw(data: bytes, random: Random) -> bytes:
    """Bytes flipped, cut, zeroed, repeated, put in, or those of something else."""
    for _ in range(random.choice((1, 1, 1, 2, 4, 30))):
        data = _changed(data, random)
    return data if random.random() < 0.97 else b""


def _changed(data: bytes, random: Random) -> bytes:
    place = random.randrange(len(data) + 1)
    end = min(place + random.choice((1, 4, 64, 1000)), len(data))
    before, within, after = data[:place], data[place:end], data[end:]
    return random.choice(
        (
            before,
            within + after,
            before
            + bytes(one ^ 1 << random.randrange(8) for one in within[:1])
            + data[place + 1 :],
            before + random.randbytes(1) + within[1:] + after,
            before + bytes(len(within)) + after,
            before + after,
            before + within * 3 + after,
            before + random.randbytes(len(within)) + after,
            random.choice(MAGICS) + within + after,
        )
    )


def encoded(text: str, random: Random) -> bytes:
    """Text as UTF-8, and now and then as what editors make of it."""
    if random.random() < 0.9:
        return text.encode("utf-8", "surrogatepass")
    kind = random.choice(("utf-16", "utf-8-sig", "latin-1", "utf-32", "cp1252", "utf-16-le"))
    return text.encode(kind, "replace")


# Trees: JSON, TOML, XML


def places(tree: Any) -> Iterator[tuple[Any, Any]]:
    """Each container with each of its keys."""
    if isinstance(tree, dict | list):
        for key in list(tree) if isinstance(tree, dict) else range(len(tree)):
            yield tree, key
            yield from places(tree[key])


def change_tree(tree: Any, random: Random, value: Callable[[], Any]) -> Any:
    """One place of it replaced, taken out, doubled, emptied or nested."""
    found = list(places(tree))
    if not found or random.random() < 0.03:
        return value()
    inside, key = random.choice(found)
    way = random.randrange(10)
    if way < 5:
        inside[key] = value()
    elif way == 5:
        del inside[key]
    elif way == 6 and isinstance(inside, list):
        inside.append(copy.deepcopy(inside[key]))
    elif way == 7 and isinstance(inside[key], dict | list):
        inside[key] = type(inside[key])()
    elif way == 8:
        inside[key] = [inside[key]]
    elif isinstance(inside, dict):
        inside[text_of(value())[:50]] = value()
    else:
        inside[key] = str(inside[key])
    return tree


def json_file(data: bytes, random: Random) -> bytes:
    """A JSON file with one to three strange places, perhaps deep, doubled or damaged ones."""
    tree = json.loads(data)
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        tree = change_tree(tree, random, lambda: plain(strange(random)))
    text = json.dumps(tree, ensure_ascii=random.random() < 0.5)
    way = random.randrange(20)
    if way == 0:
        depth = random.choice((200, 5000, 200_000))
        text = text.replace("[", "[" * depth, 1)
    elif way == 1:
        text = text.replace(":", f': {"[" * 3000}{"]" * 3000}, "x":', 1)
    elif way == 2:  # keys that come twice
        key = random.choice(re.findall(r'"(\w+)":', text) or ["x"])
        text = re.sub(rf'"{key}":', f'"{key}": null, "{key}":', text)
    elif way == 3:
        text = re.sub(r"\d+", lambda found: f"{found[0]}e400", text, count=random.randrange(1, 4))
    done = encoded(text, random)
    return raw(done, random) if way in (4, 5) else done


def plain(value: Any) -> Any:
    """As JSON holds it."""
    return value.decode("latin-1") if isinstance(value, bytes) else value


def toml_file(data: bytes, random: Random) -> bytes:
    """A TOML file with strange values or keys."""
    import tomllib

    tree = tomllib.loads(data.decode())
    for _ in range(random.choice((1, 1, 2))):
        tree = change_tree(tree, random, lambda: _for_toml(strange(random)))
    try:
        done = encoded(tomli_w.dumps(tree), random)
    except Exception:  # a top that is no table, a key that is no text
        done = data
    return raw(done, random) if random.random() < 0.3 else done


def _for_toml(value: Any) -> Any:
    if isinstance(value, dict):
        return {text_of(key): _for_toml(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_for_toml(one) for one in value]
    return "" if value is None else plain(value)


def xml_file(data: bytes, random: Random) -> bytes:
    """An XML file with strange texts, elements or entities."""
    text = data.decode()
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        way = random.randrange(8)
        element = random.choice(re.findall(r"<(\w+)>", text) or ["x"])
        whole = re.compile(rf"<{element}>.*?</{element}>", re.DOTALL)
        value = text_of(strange(random))
        if random.random() < 0.7:
            value = value.replace("&", "&amp;").replace("<", "&lt;")
        if way < 4:
            leaves = re.findall(r">([^<>]+)</", text) or ["x"]
            old = random.choice(leaves)
            text = text.replace(f">{old}</", f">{value}</", random.choice((1, 9)))
        elif way == 4:
            text = whole.sub("", text, count=1)
        elif way == 5:
            text = whole.sub(lambda found: found[0] * random.choice((2, 50)), text, count=1)
        elif way == 6:
            text = text.replace(f"<{element}>", f"<{element} a='1'>" + "<b>" * 5 + "</b>" * 5, 1)
        else:
            text = _entities(random) + text
    if random.random() < 0.05:
        text = "<a>" * 100_000 + text
    done = encoded(text, random)
    return raw(done, random) if random.random() < 0.2 else done


def _entities(random: Random) -> str:
    laughs = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 9))
    return random.choice((
        f'<!DOCTYPE a [<!ENTITY l0 "ha">{laughs}]>',
        '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>',
        '<?xml version="1.0" encoding="utf-16"?>',
        '<?xml version="1.0" encoding="nonsense"?>',
        "\ufeff", "<!-- ", "<![CDATA[",
    ))  # fmt: skip


# Lines: tables and lists


def csv_file(data: bytes, random: Random) -> bytes:
    """A table with strange cells, rows and columns."""
    rows = list(csv.reader(io.StringIO(data.decode())))
    for _ in range(random.choice((1, 1, 2, 3))):
        place = random.randrange(len(rows))
        way, row = random.randrange(9), rows[place]
        if way < 4 and row:
            row[random.randrange(len(row))] = text_of(strange(random))
        elif way == 4:
            rows.insert(place, list(row))
        elif way == 5 and len(rows) > 1:
            rows.pop(place)
        elif way == 6:
            row.append(text_of(strange(random)))
        elif way == 7 and row:
            row.pop()
        else:
            column = random.randrange(8)
            for one in rows:
                del one[column : column + 1]
    sink = io.StringIO()
    ending = random.choice(("\n", "\n", "\n", "\r\n", "\r"))
    mark = random.choice((",", ",", ",", ",", ";", "\t"))
    writer = csv.writer(sink, lineterminator=ending, delimiter=mark)
    for row in rows:
        try:
            writer.writerow(row)
        except csv.Error:
            writer.writerow([])
    done = encoded(sink.getvalue(), random)
    return raw(done, random) if random.random() < 0.15 else done


def lines_file(data: bytes, random: Random) -> bytes:
    """A list with strange lines."""
    lines = data.decode().split("\n")
    for _ in range(random.choice((1, 1, 2, 3))):
        place, way = random.randrange(len(lines)), random.randrange(7)
        if way < 3:
            words = lines[place].split(" ")
            words[random.randrange(len(words))] = text_of(strange(random))
            lines[place] = " ".join(words)
        elif way == 3:
            lines.insert(place, random.choice(lines))
        elif way == 4 and len(lines) > 1:
            lines.pop(place)
        elif way == 5:
            lines[place] = text_of(strange(random))
        else:
            lines = []
            break
    lines = lines or [""]
    done = encoded(random.choice(("\n", "\n", "\r\n", "\r")).join(lines), random)
    return raw(done, random) if random.random() < 0.15 else done


# Tables and tensors


def parquet_file(data: bytes, random: Random) -> bytes:
    """A Parquet file that is damaged, or whole and of other columns or rows."""
    if random.random() < 0.4:
        return raw(data, random)
    table = pq.read_table(pa.BufferReader(data))
    place = random.randrange(table.num_columns)
    name, column = table.column_names[place], table.column(place)
    way = random.randrange(8)
    if way == 0:
        table = table.drop_columns([name])
    elif way == 1:
        table = table.set_column(place, name, pa.nulls(len(table), column.type))
    elif way == 2:
        table = table.set_column(place, name, pa.array(["x"] * len(table)))
    elif way == 3:
        table = table.slice(0, random.randrange(len(table) + 1))
    elif way == 4:
        table = pa.concat_tables([table, table])
    elif way == 5:
        table = table.replace_schema_metadata(
            random.choice((None, {"classes": "x"}, {"classes": "[1, null]"}, {"shards": "[]"},
                           {"classes": "{}"}, {"classes": "[]", "category_ids": "[]"}))
        )  # fmt: skip
    elif way == 6:
        table = table.set_column(place, name, _strange_column(column, random))
    else:
        table = table.rename_columns(
            [f"{one}x" if one == name else one for one in table.column_names]
        )
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


def _strange_column(column: pa.ChunkedArray, random: Random) -> pa.ChunkedArray:
    """Of the same type, with one strange value."""
    values = column.to_pylist()
    place = random.randrange(len(values)) if values else 0
    for _ in range(30):
        value = strange(random)
        if random.random() < 0.3:
            value = [value] if random.random() < 0.5 else [[value] * 4]
        try:
            return pa.chunked_array(
                [pa.array([*values[:place], value, *values[place + 1 :]], column.type)]
            )
        except (pa.ArrowException, OverflowError, TypeError, ValueError):
            continue
    return column


def safetensors_file(data: bytes, random: Random) -> bytes:
    """Weights that are damaged, or of another header."""
    if random.random() < 0.5:
        return raw(data, random)
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    way = random.randrange(4)
    if way == 0:
        facts = json.loads(header["__metadata__"]["rayseg"])
        facts = change_tree(facts, random, lambda: plain(strange(random)))
        header["__metadata__"]["rayseg"] = json.dumps(facts)
    elif way == 1:
        header["__metadata__"] = random.choice(FACTS)
    else:
        header = change_tree(header, random, lambda: plain(strange(random)))
    text = json.dumps(header).encode("utf-8", "surrogatepass")
    number = random.choice((len(text), len(text), len(text), 0, 2**63, len(text) + 5))
    return struct.pack("<Q", number) + text + data[8 + length :]


def npz_file(data: bytes, random: Random) -> bytes:
    """Counts of a trial, damaged."""
    return raw(data, random)
