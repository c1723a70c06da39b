"""Results that were cut, emptied or zeroed since are made anew; those that somebody changed are kept."""

from __future__ import annotations

import geopandas as gpd
import pytest
from rasters import write_raster

import resegeo
from resegeo.errors import ResegeoError
from resegeo.outputs.area_table import ClassArea, as_csv
from resegeo.run.report import Mark
from resegeo.run.standing import State, state_of

WORDS = ["water", "forest", "road"]
ENDS = (".classes.tif", ".classes.tif.aux.xml", ".classes.qml", ".png", ".areas.csv", ".gpkg", ".geojson", ".fgb",
        ".parquet", ".shp", ".shx", ".dbf", ".prj", ".cpg", ".qml", ".sld", ".scores.tif", ".confidence.tif",
        ".fitted.safetensors", ".qgz", ".stac.json", ".kml")  # fmt: skip

pytestmark = pytest.mark.usefixtures("quick_model")


def run(out, scene, **options):
    return resegeo.segment(scene, WORDS, out, segments="none", **options)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Every kind of result, from one run."""
    import numpy as np
    import shapely
    from fakes import quick

    import resegeo.run.compute as compute

    place = tmp_path_factory.mktemp("made")
    bands = np.random.default_rng(0).integers(20, 250, (3, 64, 64)).astype(np.uint8)
    write_raster(place / "scene.tif", bands)
    points = [shapely.Point(500_055 + 90 * k, 5_199_955 - 60 * k) for k in range(6)]
    frame = gpd.GeoDataFrame({"class_name": WORDS * 2}, geometry=points, crs="EPSG:32633")
    frame.to_file(place / "points.gpkg")
    options = {
        "vector": ("gpkg", "geojson", "fgb", "parquet", "shp", "kml"),
        "scores": True,
        "examples": place / "points.gpkg",
    }
    load = compute.load_encoder
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compute, "load_encoder", lambda source, **given: quick(load(source, **given)))
        run(place / "out", place / "scene.tif", **options)
    return place / "out"


@pytest.mark.parametrize("end", ENDS)
def test_a_result_that_was_cut_anywhere_is_damaged(made, tmp_path, end):
    path = made / f"scene{end}"
    content, mark = path.read_bytes(), Mark.of(path)
    copies = {".shx": ".shp", ".dbf": ".shp", ".shp": ".shp"}
    for beside in (one for one in made.glob("scene.*") if one.is_file() and end in copies):
        (tmp_path / beside.name).write_bytes(beside.read_bytes())
    cut = tmp_path / path.name
    for share in (0, 0.1, 0.5, 0.8):
        cut.write_bytes(content[: int(share * len(content))])
        assert state_of(cut, [mark]) is State.DAMAGED, share
    cut.write_bytes(content[:-1])  # some formats end in bytes that nobody misses: then it is told as changed
    assert state_of(cut, [mark]) in (State.DAMAGED, State.EDITED)
    cut.write_bytes(bytes(len(content)))
    assert state_of(cut, [mark]) is State.DAMAGED
    cut.write_bytes(content)
    assert state_of(cut, [mark]) is State.WHOLE


def test_every_kind_of_result_is_known(made):
    found = {path.name.removeprefix("scene") for path in made.iterdir() if path.is_file()}
    assert found - {".json"} == set(ENDS)


@pytest.fixture
def scene(make_raster, picture):
    return make_raster("scene.tif", picture(64, 64))


@pytest.mark.parametrize("rows", [1, 2])
def test_a_table_that_was_cut_between_two_rows_is_made_anew(scene, tmp_path, rows):
    made = run(tmp_path / "out", scene)
    whole = made.areas.read_bytes()
    made.areas.write_bytes(b"".join(whole.splitlines(keepends=True)[:rows]))
    assert not run(tmp_path / "out", scene).reused
    assert made.areas.read_bytes() == whole


def test_a_table_that_somebody_changed_is_kept(scene, tmp_path):
    made = run(tmp_path / "out", scene)
    mine = made.areas.read_bytes().replace(b"water", b"lakes")
    made.areas.write_bytes(mine)
    with pytest.raises(ResegeoError, match=r"scene\.areas\.csv was changed since this program wrote it"):
        run(tmp_path / "out", scene)
    assert made.areas.read_bytes() == mine


@pytest.mark.parametrize("damage", ["empty", "zeros", "half", "last byte"])
def test_a_report_that_was_cut_is_made_anew_with_what_it_lists(scene, tmp_path, damage):
    made = run(tmp_path / "out", scene)
    before = {path.name: path.read_bytes() for path in (*made.files(), *made.raster.parent.glob("*.qml"))}
    content = made.report.read_bytes()
    if damage in ("empty", "zeros"):  # all was lost with it, or nothing of it is known to be ours
        for path in made.raster.parent.iterdir():
            if path.is_file():
                path.write_bytes(b"" if damage == "empty" else bytes(path.stat().st_size))
    made.report.write_bytes(
        {"empty": b"", "zeros": bytes(99), "half": content[: len(content) // 2], "last byte": content[:-2]}[damage]
    )
    if damage == "half":
        made.picture.write_bytes(b"")
    assert not run(tmp_path / "out", scene).reused
    for name in before.keys() - {"scene.json"}:
        assert (made.raster.parent / name).read_bytes() == before[name], name
    assert run(tmp_path / "out", scene).reused


def test_with_a_cut_report_what_the_user_changed_is_kept(scene, tmp_path):
    made = run(tmp_path / "out", scene)
    made.report.write_bytes(made.report.read_bytes()[:-9])
    (made.raster.parent / "scene.classes.qml").write_text("<qgis>mine</qgis>")
    with pytest.raises(ResegeoError, match=r"scene\.classes\.qml was changed since"):
        run(tmp_path / "out", scene)


def test_a_json_of_the_users_is_no_report_whatever_it_lacks(scene, tmp_path):
    (tmp_path / "out").mkdir()
    for mine in ('{"files": {', "[1, 2", '{\n  "resegeo": {}'):
        (tmp_path / "out/scene.json").write_text(mine)
        with pytest.raises(ResegeoError, match="was not written by this program"):
            run(tmp_path / "out", scene)
        assert (tmp_path / "out/scene.json").read_text() == mine


def test_the_table_reads_as_it_was_written():
    rows = [ClassArea('a "quoted", name', 3, None, None, 0.5, None), ClassArea("b\nc", 0, 1.0, 0.0001, None, 1.0)]
    assert as_csv(rows).splitlines()[0] == "class,pixels,m2,ha,share,mean_score"
    assert '"a ""quoted"", name",3,,,0.5,' in as_csv(rows)
