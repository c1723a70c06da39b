"""A STAC item over the results of a run: what lies where, in which classes, made of what.

STAC 1.1.0 with the extensions classification 2.0.0, projection 2.0.0, raster 2.0.0 and file 2.1.0. Written as plain
JSON; pystac and schemas of the extensions are the oracles of the tests.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resegeo.classes.class_list import ClassList

VERSION = "1.1.0"
EXTENSIONS = (
    "https://stac-extensions.github.io/classification/v2.0.0/schema.json",
    "https://stac-extensions.github.io/projection/v2.0.0/schema.json",
    "https://stac-extensions.github.io/file/v2.1.0/schema.json",
    "https://stac-extensions.github.io/raster/v2.0.0/schema.json",
)

_MEDIA = {
    ".tif": "image/tiff; application=geotiff; profile=cloud-optimized",
    ".gpkg": "application/geopackage+sqlite3",
    ".geojson": "application/geo+json",
    ".parquet": "application/vnd.apache.parquet",
    ".fgb": "application/vnd.flatgeobuf",
    ".shp": "application/vnd.shp",
    ".kml": "application/vnd.google-earth.kml+xml",
    ".png": "image/png",
    ".csv": "text/csv",
    ".qml": "application/xml",
    ".xml": "application/xml",
    ".qgz": "application/zip",
    ".json": "application/json",
}


def stac_item(
    identity: str,
    *,
    classes: ClassList,
    crs: Any | None,
    transform: Any | None,
    height: int,
    width: int,
    assets: Mapping[str, Mapping[str, Any]],
    scene: str | None,
    properties: Mapping[str, Any],
    resolution: float | None = None,
    date: datetime | None = None,
) -> dict[str, Any]:
    """Describe results as a STAC item.

    Parameters
    ----------
    identity:
        Of the item.
    classes:
        The class list of the raster.
    crs, transform, height, width:
        Where the raster lies. Without CRS or transform the item has no geometry.
    assets:
        By key: ``href`` relative to the item, ``bytes`` and ``sha256`` where known, ``title``, and ``raster``: what the
        item says of the values of another raster than the classes'.
    scene:
        Link to what the results are derived from.
    properties:
        Further properties, such as ``resegeo:model``.
    resolution:
        Mean size of a pixel on the ground in metres, where that is known.
    date:
        When the scene was taken, where that is known; STAC then has no doubt. Else the item's ``datetime`` is null and
        the whole of time since 1972 is its range, as STAC asks for one.

    """
    geometry, box = _footprint(crs, transform, height, width)
    facts: dict[str, Any] = {
        "datetime": None if date is None else _instant(date),
        **(
            {}
            if date is not None
            else {"start_datetime": "1972-07-23T00:00:00Z", "end_datetime": "2100-01-01T00:00:00Z"}
        ),
        **properties,
        **_projection(crs, transform, height, width),
    }
    item: dict[str, Any] = {
        "type": "Feature",
        "stac_version": VERSION,
        "stac_extensions": list(EXTENSIONS),
        "id": identity,
        "geometry": geometry,
        **({} if box is None else {"bbox": box}),
        "properties": facts,
        "links": [] if scene is None else [{"rel": "derived_from", "href": scene, "title": "the scene"}],
        "assets": {key: _asset(key, entry, classes, resolution) for key, entry in assets.items()},
    }
    return item


def _instant(date: datetime) -> str:
    return date.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def classification(classes: ClassList) -> list[dict[str, Any]]:
    """Say the codes of a class raster in the words of the classification extension.

    Names are those of the extension, of letters, digits, - and _; what a user reads is the title. Names that come to
    the same get their code behind them.
    """
    entries = [(spec.code, spec.name, spec.color) for spec in classes.drawn]
    entries += [(code, classes.name_of(code), classes.color_of(code)) for code in (0, classes.unprocessed)]
    entries.append((classes.nodata, "nodata", classes.color_of(classes.nodata)))
    taken: set[str] = set()
    result = []
    for code, title, color in entries:
        name = re.sub(r"[^A-Za-z0-9_-]+", "_", title).strip("_") or "class"
        name = name if name not in taken else f"{name}_{code}"
        taken.add(name)
        entry: dict[str, Any] = {
            "value": code,
            "name": name,
            "title": title,
            "color_hint": "{:02X}{:02X}{:02X}".format(*color),
        }
        if code == classes.nodata:
            entry["nodata"] = True
        result.append(entry)
    return result


def _asset(key: str, entry: Mapping[str, Any], classes: ClassList, resolution: float | None) -> dict[str, Any]:
    href = str(entry["href"])
    asset: dict[str, Any] = {"href": href, "title": entry.get("title", key), "roles": ["data"]}
    ending = href[href.rfind(".") :].lower() if "." in href else ""
    if ending in _MEDIA:
        asset["type"] = _MEDIA[ending]
    if "bytes" in entry:
        asset["file:size"] = entry["bytes"]
    if "sha256" in entry:
        asset["file:checksum"] = f"1220{entry['sha256']}"  # multihash: sha2-256, 32 bytes
    if key == "classes":
        asset["roles"] = ["data", "classification"]
        asset["data_type"] = classes.dtype
        asset["nodata"] = classes.nodata
        asset["bands"] = [{"name": "class"}]
        asset["classification:classes"] = classification(classes)
    elif "raster" in entry:
        asset.update(entry["raster"])
    if ending == ".tif":
        asset["raster:sampling"] = "area"
        asset |= {} if resolution is None else {"raster:spatial_resolution": resolution}
    if ending == ".png":
        asset["roles"] = ["overview"]
    elif ending in (".qml", ".xml", ".json", ".qgz"):
        asset["roles"] = ["metadata"]
    return asset


def _projection(crs: Any | None, transform: Any | None, height: int, width: int) -> dict[str, Any]:
    facts: dict[str, Any] = {"proj:shape": [height, width], "proj:code": None}
    if transform is not None:
        facts["proj:transform"] = [float(value) for value in tuple(transform)[:6]]
    if crs is not None:
        code = crs.to_epsg()
        facts["proj:code"] = None if code is None else f"EPSG:{code}"
        if code is None:
            facts["proj:wkt2"] = crs.to_wkt()
    return facts


def _footprint(
    crs: Any | None, transform: Any | None, height: int, width: int
) -> tuple[dict[str, Any] | None, list[float] | None]:
    """Outline of the raster in longitude and latitude, with points along its edges; over the antimeridian in two."""
    import pyproj
    import shapely

    if crs is None or transform is None:
        return None, None
    steps = [n / 16 for n in range(16)]
    ring = [(step * width, 0) for step in steps] + [(width, step * height) for step in steps]
    ring += [((1 - step) * width, height) for step in steps] + [(0, (1 - step) * height) for step in steps]
    try:
        way = pyproj.Transformer.from_crs(pyproj.CRS.from_wkt(crs.to_wkt()), 4326, always_xy=True)
        points = [way.transform(*(transform @ corner)) for corner in ring]
    except pyproj.exceptions.ProjError:
        return None, None
    if not all(abs(x) <= 1e6 and abs(y) <= 90.0001 for x, y in points):
        return None, None
    around = np.unwrap([x for x, _ in [*points, points[0]]], period=360)
    if abs(around[-1] - around[0]) > 180:
        return _round_a_pole(around, [y for _, y in [*points, points[0]]])
    turned = [(x % 360, y) for x, y in points]
    left, right = min(x for x, _ in turned), max(x for x, _ in turned)
    area: Any
    if left < 180 < right and right - left < 180:
        shape = shapely.Polygon(turned)
        east, west = shapely.box(0, -90, 180, 90), shapely.box(180, -90, 360, 90)
        parts = [shape & east, shapely.affinity.translate(shape & west, -360)]
        area = shapely.union_all([part for part in parts if part.area > 0])
        box = [left, area.bounds[1], right - 360, area.bounds[3]]
    else:
        area = shapely.Polygon(points)
        box = list(area.bounds)
    return _plain(area), [round(value, 7) for value in box]


def _round_a_pole(longitudes: NDArray[np.float64], latitudes: Sequence[float]) -> tuple[dict[str, Any], list[float]]:
    """Outline and box of what a ring encloses that goes all the way round a pole: there the map has a whole edge."""
    import shapely

    pole = 90.0 if sum(latitudes) > 0 else -90.0
    ring = [*zip(longitudes.tolist(), latitudes, strict=True), (longitudes[-1], pole), (longitudes[0], pole)]
    cap = shapely.make_valid(shapely.Polygon(ring))
    turns = [shapely.affinity.translate(cap, 360 * turn) for turn in (-2, -1, 0, 1, 2)]
    area = shapely.union_all([turn & shapely.box(-180, -90, 180, 90) for turn in turns])
    low, high = sorted([min(latitudes, key=abs), pole])
    return _plain(area), [-180.0, round(low, 7), 180.0, round(high, 7)]


def _plain(area: Any) -> dict[str, Any]:
    """Write an outline as GeoJSON does, to seven digits."""
    import shapely

    return dict(shapely.geometry.mapping(shapely.set_precision(shapely.normalize(area).reverse(), 1e-7)))
