"""Documents from anybody end in values or in one sentence, within bounds of time and memory."""

from __future__ import annotations

import json
import os
import time
import warnings
from pathlib import Path
from random import Random

import pytest
from mutations import mutate

from resegeo import documents
from resegeo.documents import (
    DEPTH,
    YAML_BYTES,
    parse_json,
    parse_yaml,
    read_json,
    read_table,
    read_text,
    read_yaml,
)
from resegeo.errors import InputNotice, ResegeoError, UsageError

YAML = """\
classes:
  - name: water
    prompts: &words [water, "lake", 'pond']
  - {name: sea, prompts: *words, threshold: 0.25, on: true}
stride: 64
"""
FEATURE = {"type": "Feature", "id": "x", "properties": {"scene": "a.tif", "gsd": 0.5, "bands": [3, 2, 1]}}
JSON = json.dumps({"type": "FeatureCollection", "features": [FEATURE, FEATURE]}, indent=1)
CSV = 'scene,bands,gsd\na.tif,"4,3,2",0.5\nnorth/b.tif,,\n'


def aliases(levels: int) -> str:
    """Nine aliases within nine within nine, and so on."""
    lines = ["a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, levels)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a: [1\nb: 2", r"x, line 2: this is not valid YAML \(.*\)\. Check indentation and quotes\."),
        (aliases(9), r"x, line 7: this YAML cannot be taken: its aliases stand for more than 4,194,304 characters\."),
        (
            f"a: &a {'x' * 900_000}\nb: [*a, *a, *a, *a, *a]",
            r"x, line 2: this YAML cannot be taken: its aliases stand for more than 4,194,304 characters\.",
        ),
        ("a: &a [1, *a]", r"x, line 1: this YAML cannot be taken: an alias within what it stands for\."),
        ("[" * 5000, r"nested too deeply \(more than 64 levels\)"),
        ("- " * 5000, r"nested too deeply \(more than 64 levels\)"),
        (f"\na: {'9' * 5000}", r"x, line 2: this YAML cannot be taken: a value that is no int\."),
        (f"a: 0x{'f' * 5000}", r"a whole number of more than 64 bits"),
        ("a: -.inf", r"line 1: this YAML cannot be taken: a number that is not finite"),
        ("a: .nan", r"a number that is not finite"),
        ("a: 1.0e+999", r"a number that is not finite"),
        ("a: 2024-99-99", r"line 1: this YAML cannot be taken: a value that is no timestamp"),
        ("a: !!bool maybe", r"a value that is no bool"),
        ("a: !!int ''", r"a value that is no int"),
        ("a: 0b", None),
        ("stride: 1\nother: 2\nstride: 3", r"x, line 3: this YAML cannot be taken: 'stride' stands a second time\."),
        ('a: "\\UFFFFFFFF"', r"x: this is not valid YAML \(\\U with a number beyond 10FFFF\)"),
        ('a: "\\ud800"', r"half of a pair"),
        ('a: "b\\0"', r"NUL"),
        ("a: b\x07", r"x, line 1: this is not valid YAML \(the character U\+0007 is not allowed\)\."),
        ("a: !!python/object/apply:os.system [id]", r"x, line 1: this is not valid YAML \(could not determine"),
        ("!!map a", r"expected a mapping node"),
        ("[a]: 1", r"x, line 1: this is not valid YAML"),
        ("{{}: 1}", r"x, line 1: this is not valid YAML"),
    ],
)
def test_yaml_that_is_wrong_or_asks_too_much_is_one_sentence_with_its_line(text, sentence):
    start = time.monotonic()
    if sentence is None:
        assert parse_yaml(text, "x") == {"a": "0b"}
        return
    with pytest.raises(UsageError, match=sentence) as caught:
        parse_yaml(text, "x", error=UsageError)
    assert len(str(caught.value)) < 200
    assert time.monotonic() - start < 60  # no hang


def test_the_number_of_values_and_lines_is_limited(tmp_path, monkeypatch):
    monkeypatch.setattr(documents, "NODES", 500)
    monkeypatch.setattr(documents, "LINES", 500)
    assert parse_yaml(f"[{'1,' * 499}]", "x") == [1] * 499
    with pytest.raises(ResegeoError, match=r"x, line 1: this YAML cannot be taken: more than 500 values\."):
        parse_yaml(f"[{'1,' * 500}]", "x")
    (tmp_path / "a.csv").write_text("a\n" * 501)
    assert len(read_table(tmp_path / "a.csv").lines) == 500
    (tmp_path / "a.csv").write_text("a\n" * 502)
    with pytest.raises(ResegeoError, match=r"a\.csv has more than 500 lines; share it out over several\."):
        read_table(tmp_path / "a.csv")


def test_aliases_and_merge_keys_within_bounds_are_read():
    found = parse_yaml("a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\nc: [*a, *a]", "x")
    assert found == {"a": {"x": 1, "y": 2}, "b": {"x": 1, "y": 3}, "c": [{"x": 1, "y": 2}] * 2}
    assert parse_yaml("# nothing", "x") is None


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('{\n"a": 1,}', r"x, line 2: this is not valid JSON \(.* at character \d+\)\."),
        ("[" * 100_000, r"x: this JSON is nested too deeply \(more than 64 levels\)"),
        ("[" * 100 + "]" * 100, r"nested too deeply"),
        ("[" * 3_000_000, r"more than 2,000,000 lists and mappings"),
        ("9" * 5000, r"a number of thousands of digits"),
        ('{"a": [0, 1e999]}', r"x: a\.1 is a number that is not finite"),
        ('{"a": NaN}', r"x: a is a number that is not finite"),
        ("[36893488147419103232]", r"x: 0 is a whole number of more than 64 bits"),
        ('{"a": {"b": "\\ud800"}}', r"x: a\.b is a text with a character"),
        ('{"a": {"\\u0000": 1}}', r"x: a key within a is a text with a character"),
        (b"\xff", r"x is not UTF-8 text\."),
    ],
)
def test_json_that_is_wrong_or_asks_too_much_is_one_sentence_with_the_way_to_it(text, sentence):
    with pytest.raises(ResegeoError, match=sentence) as caught:
        parse_json(text, "x")
    assert len(str(caught.value)) < 200


def test_json_of_the_depth_that_is_allowed_is_read():
    assert parse_json("[" * DEPTH + "]" * DEPTH, "x") == json.loads("[" * DEPTH + "]" * DEPTH)
    assert parse_json('\ufeff{"a": "\\ud83d\\ude00"}'.encode(), "x") == {"a": "😀"}


@pytest.mark.parametrize("comma", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_tables_are_read_as_spreadsheets_write_them(tmp_path, encoding, comma):
    text = '\r\nscene , note, \r\n"Wälder – 1.tif", "a,b;c"\r\n\r\nb.tif\r\n'.replace(",", comma, 1)
    text = text.replace(", \r", f"{comma} \r").replace('", "', f'"{comma} "')
    (tmp_path / "a.csv").write_bytes(text.encode(encoding))
    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter("always")
        table = read_table(tmp_path / "a.csv")
    assert table.columns == ("scene", "note")
    assert table.lines == [(3, {"scene": "Wälder – 1.tif", "note": "a,b;c"}), (5, {"scene": "b.tif"})]
    assert [note.category for note in notes] == ([InputNotice] if encoding == "cp1252" else [])


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"a,b\n1,2,3\n", r"--t a.csv, line 2 has more fields than the first line has columns"),
        (b'a,b\n1,"2\n', r"--t a.csv is no CSV file from line 2 on \(.*\); is a quote missing\?"),
        (b"a,a\n1,2\n", r"--t a.csv has the column a twice; expected a list\."),
        (b"a,b\n\0,2\n", r"--t a.csv cannot be read as text; expected a list\."),
        (b"\x89PNG\r\n\x1a\n\x01\x02", r"--t a.csv cannot be read as text; expected a list\."),
        ("a,b\n".encode("utf-16")[2:], r"--t a.csv cannot be read as text; expected a list\."),
        (",".join(map(str, range(1001))).encode(), r"--t a.csv has 1,001 columns; expected a list\."),
        (b"a\n" + b"x" * 200_000, r"--t a.csv is no CSV file from line \d on \(field larger than field limit"),
    ],
)
def test_a_table_that_is_none_is_one_sentence(tmp_path, data, sentence):
    (tmp_path / "a.csv").write_bytes(data)
    with pytest.raises(UsageError, match=sentence):
        read_table(tmp_path / "a.csv", "--t a.csv", expected="a list", error=UsageError)


@pytest.mark.parametrize("read", [read_text, read_yaml, read_json, read_table])
def test_what_is_no_readable_file_is_one_sentence(tmp_path, read):
    def said(path: Path) -> str:
        with pytest.raises(UsageError) as caught:
            read(path, "--x it", expected="a list", missing="there is none.", error=UsageError)
        return str(caught.value)

    assert said(tmp_path / "none") == "--x it: there is none."
    assert said(tmp_path) == "--x it is a folder; expected a list."
    os.mkfifo(tmp_path / "pipe")
    assert "is no ordinary file" in said(tmp_path / "pipe")
    (tmp_path / "large").write_bytes(b"")
    os.truncate(tmp_path / "large", 1 << 26)
    assert "is larger than" in said(tmp_path / "large")
    assert "cannot be read" in said(Path("a\0b"))
    assert "cannot be read" in said(Path("x" * 300))


def test_a_path_is_said_whole_and_escaped(tmp_path):
    path = tmp_path / ("long" * 30) / "\x1b[31mred.yml"
    path.parent.mkdir()
    path.write_text("a: [")
    with pytest.raises(ResegeoError) as caught:
        read_yaml(path)
    assert str(caught.value).startswith(f"{path.parent}/\\x1b[31mred.yml, line 1: ")


@pytest.mark.parametrize(
    ("read", "seed"), [(read_yaml, YAML), (read_json, JSON), (read_table, CSV)], ids=["yaml", "json", "csv"]
)
def test_damaged_documents_are_values_or_one_sentence(tmp_path, read, seed):
    random, path = Random(7), tmp_path / "document"
    taken = 0
    for _ in range(200):
        path.write_bytes(mutate(seed.encode(), random))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", InputNotice)
            try:
                read(path)
                taken += 1
            except ResegeoError as error:
                said = str(error)
                assert said.isprintable()
                assert len(said) < len(str(path)) + 300
    assert 5 < taken < 195  # damage neither spares nor stops everything


def test_the_largest_yaml_is_read():
    text = "a: " + "x" * (YAML_BYTES - 3)
    assert len(parse_yaml(text, "x")["a"]) == YAML_BYTES - 3
