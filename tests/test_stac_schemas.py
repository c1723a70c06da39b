"""Items by JSON schemas without a network: the core by those that pystac ships, extensions by those beside the tests.

The extensions' schemas were written for these tests from the text of their specifications, as each of them says.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path

import jsonschema
import numpy as np
import pyproj
import pytest
import shapely
from affine import Affine
from rasterio.crs import CRS
from referencing import Registry, Resource
from test_stac import item

import resegeo
from resegeo.outputs.stac import EXTENSIONS

SCHEMAS = {
    schema["$id"]: schema
    for schema in (
        json.loads(path.read_text("utf-8")) for path in sorted(Path(__file__).with_name("stac_extensions").iterdir())
    )
}


def faults(plain):
    """What the schemas of the core and of all extensions that an item names find wrong with it."""
    from pystac.validation.local_validator import get_local_schema_cache

    core, plain = get_local_schema_cache(), json.loads(json.dumps(plain))
    registry = Registry().with_resources([(uri, Resource.from_contents(schema)) for uri, schema in core.items()])
    item_schema = next(schema for uri, schema in core.items() if uri.endswith("/item.json"))
    validator = jsonschema.Draft7Validator(item_schema, registry=registry)
    found = [str(fault.message) for fault in validator.iter_errors(plain)]
    for uri in plain["stac_extensions"]:
        found += [f"{uri}: {fault.message}" for fault in jsonschema.Draft7Validator(SCHEMAS[uri]).iter_errors(plain)]
    return found


def test_every_extension_that_items_name_has_its_schema_and_says_where_it_is_from():
    assert set(SCHEMAS) == set(EXTENSIONS)
    for schema in SCHEMAS.values():
        jsonschema.Draft7Validator.check_schema(schema)
        assert "from the text of the specification" in schema["$comment"]


@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        ("EPSG:32633", Affine(10, 0, 500_000, 0, -10, 5_200_000)),
        ("EPSG:32633", Affine(8, 6, 500_000, 6, -8, 5_200_000)),
        ("EPSG:4326", Affine(0.01, 0, 178, 0, -0.01, 10)),
        ("EPSG:3413", Affine(10_000, 0, -2_000_000, 0, -10_000, 1_500_000)),
        ("+proj=laea +lat_0=52 +lon_0=11 +ellps=bessel", Affine(10, 0, 0, 0, -10, 0)),
        (None, Affine(10, 0, 0, 0, -10, 0)),
    ],
)
def test_items_of_all_sorts_of_scenes_are_valid(crs, transform):
    assert faults(item(crs, transform)) == []
    assert faults(item(crs, transform, resolution=10.0)) == []


def test_the_schemas_find_what_is_wrong():
    def spoiled(change):
        plain = copy.deepcopy(item())
        change(plain, plain["assets"]["classes"])
        return faults(plain)

    assert spoiled(lambda plain, asset: plain.pop("bbox"))
    assert spoiled(lambda plain, asset: plain["properties"].update(datetime="yesterday"))
    assert spoiled(lambda plain, asset: plain["properties"].pop("start_datetime"))
    assert spoiled(lambda plain, asset: plain["properties"].update({"proj:transform": [1, 2, 3]}))
    assert spoiled(lambda plain, asset: plain["properties"].update({"proj:epsg": 32633}))
    assert spoiled(lambda plain, asset: asset["classification:classes"][0].update(color_hint="#ff0000"))
    assert spoiled(lambda plain, asset: asset["classification:classes"][0].update(name="two words"))
    assert spoiled(lambda plain, asset: asset["classification:classes"][0].pop("value"))
    assert spoiled(lambda plain, asset: asset.update({"file:checksum": "ABC"}))
    assert spoiled(lambda plain, asset: asset.update({"file:size": -1}))
    assert spoiled(lambda plain, asset: asset.update({"raster:spatial_resolution": 0}))


@pytest.mark.usefixtures("quick_model")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("where", [{}, {"crs": None, "transform": None}])
def test_the_items_of_runs_are_valid(make_raster, picture, tmp_path, where):
    scene = make_raster("scene.tif", picture(64, 64), **where)
    words = ["water", "forêt & <pré>", '水 "q"']
    resegeo.segment(scene, words, tmp_path / "out", scores=True, regularize=words[0], vector=("gpkg", "fgb"))
    plain = json.loads((tmp_path / "out/scene.stac.json").read_text("utf-8"))
    assert faults(plain) == []
    assert plain["assets"]["scores"]["raster:scale"] == 0.005
    assert [band["name"] for band in plain["assets"]["scores"]["bands"]] == words
    assert plain["assets"]["classes"].get("raster:spatial_resolution") == (
        None if where else pytest.approx(10, rel=1e-3)
    )


@pytest.mark.parametrize(("crs", "pole"), [("EPSG:3413", 90), ("EPSG:3031", -90)])
def test_a_scene_over_a_pole_has_an_outline_all_round_it(crs, pole):
    plain = item(crs, Affine(10_000, 0, -2_000_000, 0, -10_000, 1_500_000))
    area = shapely.geometry.shape(plain["geometry"])
    assert area.is_valid
    assert plain["bbox"][0::2] == [-180, 180]
    assert pole in plain["bbox"][1::2]
    back = pyproj.Transformer.from_crs(4326, crs, always_xy=True)
    random = np.random.default_rng(0)
    for longitude, latitude in zip(random.uniform(-180, 180, 200), random.uniform(55, 90, 200), strict=True):
        latitude = latitude if pole > 0 else -latitude
        x, y = back.transform(longitude, latitude)
        inside = min(x + 2_000_000, 2_000_000 - x, y + 1_500_000, 1_500_000 - y)
        if abs(inside) > 60_000:  # points along the edges are some 200 km apart
            assert area.contains(shapely.Point(longitude, latitude)) == (inside > 0)


def test_a_crs_without_a_code_is_told_as_text():
    plain = item("+proj=laea +lat_0=52 +lon_0=11 +ellps=bessel")
    assert plain["properties"]["proj:code"] is None
    assert CRS.from_wkt(plain["properties"]["proj:wkt2"]).to_epsg() is None
