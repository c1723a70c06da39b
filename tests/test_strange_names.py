"""File names that strangers chose: what reaches a terminal or a spreadsheet, and that no scene stops the others."""

from __future__ import annotations

import csv
import json
import os
import time
import warnings
from pathlib import Path

import pytest
from click.testing import CliRunner
from filelock import FileLock
from test_batch import WORDS

from resegeo.batches.batch import SceneResult, _Ledger, _write_table, segment_many
from resegeo.errors import ResegeoWarning, escaped, shown
from resegeo.run.options import OPTIONS, Options, RunOptions, View
from resegeo.run.report import Mark, listed, write_report
from resegeo_cli.console import console, say
from resegeo_cli.main import main

pytestmark = pytest.mark.usefixtures("quick_model")


@pytest.fixture
def scenes(tmp_path, monkeypatch, make_raster, picture) -> Path:
    """A folder with one small scene, and the test's own working folder."""
    monkeypatch.chdir(tmp_path)
    Path("s").mkdir()
    make_raster("s/m.tif", picture(70, 90))
    return tmp_path / "s"


def table() -> dict[str, tuple[str, str]]:
    with Path("out/batch.csv").open(newline="", encoding="utf-8") as lines:
        return {line["scene"]: (line["state"], line["reason"]) for line in csv.DictReader(lines)}


def test_no_name_of_a_scene_stops_the_others(scenes):
    scene = (scenes / "m.tif").read_bytes()
    names = [b"a\xff.tif", b"x" * 240 + b".tif", b"\x1b[2Ja.tif"]
    for name in names:
        Path(os.fsdecode(os.fsencode(scenes) + b"/" + name)).write_bytes(scene)
    (scenes / "m.tif").rename(scenes / "z.tif")
    (scenes / "c.tif").symlink_to("c.tif")
    result = segment_many("s/*.tif", WORDS, "out", vector=())
    found = {Path(each.scene).name: (each.state, each.reason) for each in result.scenes}
    assert found["z.tif"] == ("done", "")
    assert found["a\udcff.tif"][0] == found["x" * 240 + ".tif"][0] == found["c.tif"][0] == "failed"
    assert not any("defect" in reason for _, reason in found.values())
    written = table()
    assert written["s/a\\udcff.tif"][0] == "failed"
    assert "s/\\x1b[2Ja.tif" in written
    assert not Path("out/.batch.csv.lock").exists()


def test_the_table_begins_no_cell_as_a_formula(tmp_path):
    names = ["=1+1.tif", "@a.tif", "-b.tif", "+\tc.tif", "'d.tif", "e.tif"]
    results = [SceneResult(name, tmp_path / name, "failed", f"={name}") for name in names]
    with _write_table(tmp_path, results).open(newline="", encoding="utf-8") as lines:
        rows = list(csv.reader(lines))[1:]
    assert not any(cell[:1] in tuple("=+-@\t\r") for row in rows for cell in row)
    # The apostrophe before a cell taken off again, the table says what there is.
    assert [row[0].removeprefix("'") for row in rows] == [escaped(name) for name in names]
    assert [row[3].removeprefix("'=") for row in rows] == [escaped(name) for name in names]


def test_two_batches_in_one_folder_are_one_and_a_sentence(scenes):
    Path("out").mkdir()
    Path("c.yml").write_text("classes: [water]")
    with FileLock("out/.batch.csv.lock"):
        result = CliRunner().invoke(main, ["batch", "s", "--prompts", "c.yml", "-o", "out"])
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: Another run is writing to out/batch.csv. Wait until it has ended")
    assert [path.name for path in Path("out").iterdir()] in ([], [".batch.csv.lock"])


def test_a_foreign_or_damaged_ledger_is_passed_over(tmp_path):
    results = tmp_path / "a"
    results.mkdir()
    (results / "a.tif").write_bytes(b"codes")
    marks = listed({"a.tif": Mark.of(results / "a.tif")})
    report = {"resegeo": {}, "windows": {"failed": 0}, "pixels": {}, "outputs": ["a.tif"], **marks}
    write_report(results / "a.json", report)
    _Ledger(tmp_path).add(results, "key", results / "a.json")
    assert _Ledger(tmp_path).holds(results, "key")
    file = tmp_path / ".batch.jsonl"
    good = file.read_bytes()
    entry = json.loads(good)
    for line in (b"[" * 100_000, b"5", b"{}", b"null", b'{"folder": []}', b"9" * 5000, good[:-9]):
        file.write_bytes(good + b"\n" + line)
        assert _Ledger(tmp_path).holds(results, "key")
    for damage in ({"report": 5}, {"report": "../a/a.json"}, {"report": "b.json"}, {"report": [1, 2]}, {"key": 5}):
        file.write_text(json.dumps({**entry, **damage}))
        assert not _Ledger(tmp_path).holds(results, "key")
    file.write_bytes(good + b"\n\xff")
    assert not _Ledger(tmp_path).holds(results, "key")
    file.write_bytes(good)
    (results / "a.tif").write_bytes(b"other")
    assert not _Ledger(tmp_path).holds(results, "key")


def test_results_depend_on_every_option_that_is_not_said_to_be_irrelevant():
    """A field that nobody thought of counts: it is among the facts unless it is declared not to matter."""
    facts = Options.of({}).facts()
    names = {name for part in (View, RunOptions) for name in part.__dataclass_fields__}
    aside = {name for name in names if name not in OPTIONS or OPTIONS[name].about.affects == "nothing"}
    assert names - facts.keys() == aside
    assert aside == {
        "device",
        "threads",
        "overwrite",
        "replace_edited",
        "cluster",
        "read_ahead",
        "progress",
        "models",
        "formats",
        "append",
    }
    assert Options.of({"bands": (1, 2, 3)}).facts() != facts
    assert Options.of({"only": ("water",)}).facts() != facts
    assert Options.of({"keep_features": True}).facts() != facts
    assert Options.of({"device": "cpu", "threads": 3}).facts() == facts


def test_what_a_terminal_would_obey_is_printed_as_escapes(capsys):
    hostile = "a\x1b[2J\x07\r\u202eb\udcff\x9b"
    assert escaped(hostile) == "a\\x1b[2J\\x07\\r\\u202eb\\udcff\\x9b"
    assert escaped("Wälder, 水, می\u200cخواهم, 👩\u200d🌾") == "Wälder, 水, می\u200cخواهم, 👩\u200d🌾"
    assert shown("x" * 200) == "x" * 79 + "…"

    obeyed = hostile.replace("\udcff", "")  # bytes that are no text reach another program as they are

    def command() -> None:
        with console(verbose=False, quiet=False):
            say(f"{obeyed}\nnext")
            warnings.warn(hostile, ResegeoWarning, stacklevel=1)
            raise RuntimeError(hostile)

    with pytest.raises(SystemExit):
        command()
    out, err = capsys.readouterr()
    assert out == f"{escaped(obeyed)}\nnext\n"
    assert all(line.isprintable() for line in err.splitlines())
    assert err.count("\\x1b[2J") == 2


def test_no_command_prints_past_the_escapes():
    """Every command prints by ``say`` or ``complain``; click's own echo stands in these alone."""
    import resegeo_cli

    sources = Path(next(iter(resegeo_cli.__path__))).glob("*.py")
    found = {path.name: path.read_text("utf-8").count("click.echo(") for path in sources}
    assert {name: count for name, count in found.items() if count} == {"console.py": 2}


def test_two_thousand_scenes_are_found_and_placed_quickly(tmp_path, monkeypatch):
    from resegeo.batches.destinations import gather, result_folders

    monkeypatch.chdir(tmp_path)
    for number in range(2000):
        folder = Path(f"s/{number % 50}")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.tif").touch()
    start = time.monotonic()
    rows, base = gather(["s/**/*.tif"], Path("out"))
    assert len(set(result_folders(rows, base))) == 2000
    assert time.monotonic() - start < 60  # no hang
