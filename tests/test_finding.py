"""Places of finished stores that fit words best, ranked over all of them."""

from __future__ import annotations

import csv
import io
import shutil
import weakref

import geopandas as gpd
import numpy as np
import pytest
import shapely
from affine import Affine
from click.testing import CliRunner
from rasters import write_raster

import resegeo
from resegeo.batches import finding
from resegeo.batches.finding import Best, find, stores_below
from resegeo.errors import ResegeoError, UsageError
from resegeo.run.searching import Place, cosine, opened_scene, peaks, score_map
from resegeo.run.store import Store
from resegeo_cli.main import main

pytestmark = pytest.mark.usefixtures("quick_model")

SIDE = 160
BRIGHT = [(24, 32), (104, 96)]
"""Upper left corners of bright squares of 24 pixels in the first scene."""


def scene(path, squares, east=500_000, crs="EPSG:32633"):
    pixels = np.full((3, SIDE, SIDE), 40, dtype=np.uint8)
    for row, col in squares:
        pixels[:, row : row + 24, col : col + 24] = np.array([250, 40, 40])[:, None, None]
    return write_raster(path, pixels, crs=crs, transform=Affine(1, 0, east, 0, -1, 5_190_160) if crs else None)


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """Two finished stores below a folder: two bright squares in the one, none in the other."""
    from fakes import quick

    import resegeo.run.compute

    folder = tmp_path_factory.mktemp("stores")
    load = resegeo.run.compute.load_encoder
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resegeo.run.compute, "load_encoder", lambda source, **options: quick(load(source, **options)))
        for name, squares, east in (("b", BRIGHT, 500_000), ("a", [], 501_000)):
            resegeo.segment(
                scene(folder / f"{name}.tif", squares, east),
                ["water"],
                folder / "out" / name,
                vector=(),
                segments="none",
            )
    return folder / "out"


@pytest.fixture
def clicks(tmp_path):
    spots = [(row + 12, col + 12) for row, col in BRIGHT] + [(8, 8), (80, 8), (8, 140), (150, 150)]
    points = [shapely.Point(500_000 + col + 0.5, 5_190_160 - row - 0.5) for row, col in spots]
    names = ["Square", "Square", "ground", "ground", "ground", "ground"]
    gpd.GeoDataFrame({"class": names}, geometry=points, crs="EPSG:32633").to_file(tmp_path / "clicks.gpkg")
    return tmp_path / "clicks.gpkg"


def test_scores_of_patches_are_the_cosines_of_their_features(stores):
    store = Store.open(str(stores / "b/b.store.zarr"))
    _, canvas, grid = opened_scene(store)
    text = np.random.default_rng(0).normal(size=store.header.layout.dimension).astype(np.float32)
    text /= np.linalg.norm(text)
    found = score_map(store, canvas, grid, cosine(text), taper=False)
    assert found.shape == (SIDE // 8, SIDE // 8)
    kept = {}
    for item in grid.items():
        stored = store.get(item.index)
        for window, features in zip(item.windows, stored.values["features"].astype(np.float64), strict=False):
            for i, j in np.ndindex(16, 16):
                value = features[i, j] @ text / np.linalg.norm(features[i, j])
                kept.setdefault(((window.row + 8 * i + 4) // 8, (window.col + 8 * j + 4) // 8), []).append(value)
    assert all(abs(found[place] - np.mean(values)) < 1e-5 for place, values in kept.items())


def test_a_place_reaches_half_way_down_from_its_peak_and_neighbours_are_one():
    scores = np.zeros((5, 9), dtype=np.float32)
    scores[1, 1:4] = 0.8, 1.0, 0.7  # one place: all above half way
    scores[2, 2] = 0.4
    scores[1, 6] = 0.9
    scores[4, 8] = 0.3
    scores[0, 8] = np.nan
    found = list(peaks(scores, lambda: 0.0))
    assert [(peak.row, peak.col) for peak in found] == [(1, 2), (1, 6), (4, 8)]
    assert found[0].cells.tolist() == [[1, 1], [1, 2], [1, 3]]
    assert [peak.score for peak in found] == pytest.approx([1.0, 0.9, 0.3])
    assert len(list(peaks(scores, lambda: 0.85))) == 2
    assert not list(peaks(np.full((3, 3), np.nan, np.float32), lambda: 0.0))
    assert len(next(iter(peaks(np.ones((3, 3), np.float32), lambda: 0.0))).cells) == 9


def test_examples_find_their_like_and_the_geopackage_says_where(stores, clicks, tmp_path):
    output = tmp_path / "found.gpkg"
    found = find(stores, "square", 2, output, examples=clicks)
    assert found.stores == 2
    assert [place.scene for place in found.places] == ["b", "b"]
    assert all(place.score > 0.5 for place in found.places)
    frame = gpd.read_file(output)
    assert frame["rank"].tolist() == [1, 2]
    assert frame.crs == "EPSG:32633"
    wanted = [shapely.box(500_000 + col, 5_190_136 - row, 500_024 + col, 5_190_160 - row) for row, col in BRIGHT]
    for square in wanted:
        overlap = frame.geometry.intersection(square).area / frame.geometry.union(square).area
        assert overlap.max() > 0.3
    rows = list(csv.DictReader(io.StringIO(found.table())))
    assert [row["rank"] for row in rows] == ["1", "2"]
    assert all(shapely.Point(float(row["x"]), float(row["y"])).within(frame.union_all()) for row in rows)


def test_a_fitted_file_and_the_points_that_it_was_fitted_on_find_the_same(stores, clicks, tmp_path):
    with_points = resegeo.segment(stores / "b/b.store.zarr", ["square"], tmp_path / "fit", vector=(), examples=clicks)
    one = find(stores, "square", 3, examples=clicks)
    two = find(stores, "Square", 3, examples=with_points.beside[0])
    assert [(place.row, place.col) for place in one.places] == [(place.row, place.col) for place in two.places]
    assert [place.score for place in one.places] == pytest.approx([place.score for place in two.places], abs=1e-5)


def test_the_command_prints_a_table_and_ranks_stores_as_one(stores, tmp_path):
    result = CliRunner().invoke(main, ["find", str(stores), "water", "-n", "3", "-o", str(tmp_path / "w.gpkg")])
    assert result.exit_code == 0, result.output
    rows = list(csv.DictReader(io.StringIO(result.stdout)))[:3]
    scores = [float(row["score"]) for row in rows]
    assert scores == sorted(scores, reverse=True)
    both = find([stores / "a", stores / "b/b.store.zarr"], "water", 100)
    alone = [find(stores / name, "water", 100) for name in "ab"]
    merged = sorted((place.score for each in alone for place in each.places), reverse=True)
    assert [place.score for place in both.places] == merged[:100]


def place(score):
    return Place(score, "store", "scene", 0, 0, None, None, None)


def test_of_all_that_was_seen_only_the_best_are_held(monkeypatch):
    """Ten thousand stores with five places each: no more are alive than were asked for, and one."""
    alive = weakref.WeakValueDictionary()
    most = 0
    random = np.random.default_rng(0)
    expected = []

    def stored(store, score, above):
        nonlocal most
        for value in np.sort(random.random(5))[::-1]:
            expected.append(value)
            found = Place(float(value), store, "scene", 0, 0, None, None, None)
            alive[len(expected)] = found
            most = max(most, len(alive))
            yield found

    monkeypatch.setattr(finding, "places_of", stored)
    search = finding._Search("water", None)
    monkeypatch.setattr(search, "_open", lambda url, note: url)
    monkeypatch.setattr(search, "_scoring", lambda: None)
    found = search.over((str(number) for number in range(10_000)), Best(50), lambda *_: None)
    assert found.stores == 10_000
    assert most <= 50 + 2
    assert [each.score for each in found.places] == pytest.approx(sorted(expected, reverse=True)[:50])


def test_of_equal_places_those_seen_first_are_kept():
    best = Best(2)
    seen = [place(0.5), place(0.5), place(0.5), place(0.7)]
    for each in seen:
        best.add(each)
    assert best.sorted() == (seen[3], seen[0])
    assert best.sorted()[1] is seen[0]
    assert best.least() == 0.5


def test_stores_that_cannot_be_searched_are_counted(stores, tmp_path):
    shutil.copytree(stores / "a", tmp_path / "out/a")
    (tmp_path / "out/broken.store.zarr").mkdir()
    resegeo.segment(scene(tmp_path / "c.tif", []), ["water"], tmp_path / "out/c", vector=(), keep_features=False)
    with pytest.warns(resegeo.errors.InputNotice, match="Left out of 3 stores: 1 damaged, 1 with scores of words"):
        found = find(tmp_path / "out", "water", 5)
    assert found.stores == 3
    assert {each.scene for each in found.places} == {"a"}
    with pytest.raises(ResegeoError, match="No store can be searched: of 1 there are 1 with scores"):
        find(tmp_path / "out/c", "water")


def test_places_of_scenes_in_several_systems_are_written_in_longitude_and_latitude(stores, tmp_path):
    shutil.copytree(stores, tmp_path / "out")
    resegeo.segment(scene(tmp_path / "c.tif", BRIGHT, crs="EPSG:25833"), ["water"], tmp_path / "out/c", vector=())
    resegeo.segment(scene(tmp_path / "d.tif", BRIGHT, crs=None), ["water"], tmp_path / "out/d", vector=())
    find(tmp_path / "out", "water", 100, tmp_path / "found.gpkg")
    frame = gpd.read_file(tmp_path / "found.gpkg")
    assert frame.crs == "EPSG:4326"
    assert frame.geometry.isna().tolist() == (frame["scene"] == "d").tolist()
    assert frame.geometry.dropna().intersects(shapely.box(14.9, 46.8, 15.1, 46.9)).all()


def test_every_mistake_of_find_has_its_sentence(stores, clicks, tmp_path):
    for arguments, options, sentence in (
        ((tmp_path / "nowhere", "water"), {}, "is neither a folder nor a .store.zarr"),
        ((tmp_path, "water"), {}, "There is no .store.zarr below"),
        ((stores, " "), {}, "are no words to look for"),
        ((stores, "water", 0), {}, "expected 1 to 100,000 places"),
        ((stores, "water", 5, tmp_path / "a.shp"), {}, "places go into a GeoPackage"),
        ((stores, "water", 5, clicks), {}, "exists"),
        ((stores, "water"), {"field": "class"}, "names a field of the examples"),
        ((stores, "water"), {"examples": clicks}, "has no example of water in these scenes; it has Square, ground"),
        ((stores / "a", "square"), {"examples": clicks}, "has no example of square in these scenes; it has none"),
        ((stores, "square"), {"examples": tmp_path / "none.gpkg"}, "no such file"),
    ):
        with pytest.raises((ResegeoError, UsageError), match=sentence):
            find(*arguments, **options)
    assert list(stores_below([stores])) == [str(stores / "a/a.store.zarr"), str(stores / "b/b.store.zarr")]
