"""Polygons as KML 2.3 (OGC 12-007r2), in the colours of their classes, written and read polygon by polygon.

GDAL's writers give no style to a class, and hold the document in memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape, quoteattr

import geopandas as gpd
import numpy as np
import shapely
from numpy.typing import NDArray

Color = tuple[int, int, int]

_NAMESPACE = "http://www.opengis.net/kml/2.2"
_BATCH = 8192
_TYPES = {"i": "int", "u": "int", "f": "double"}
"""KML's types of fields by numpy's kinds; all else is text."""


def write_kml(
    frames: Iterable[gpd.GeoDataFrame], path: Path, layer: str, legend: Sequence[tuple[int, str, Color]]
) -> None:
    """Write polygons in longitude and latitude.

    Parameters
    ----------
    frames:
        At least one, with ``class_id`` and ``class_name`` among their fields, in EPSG:4326.
    path:
        The file.
    layer:
        Name of the document.
    legend:
        Code, name and colour of the classes that occur.

    Raises
    ------
    OSError:
        When it cannot be written.

    """
    with path.open("w", encoding="utf-8", newline="\n") as out:
        out.write(f'<?xml version="1.0" encoding="UTF-8"?>\n<kml xmlns="{_NAMESPACE}">\n<Document id="polygons">\n')
        out.write(f"<name>{_text(layer)}</name>\n")
        for code, _, color in legend:
            edge = tuple(channel * 6 // 10 for channel in color)
            out.write(
                f'<Style id="class_{code}"><LineStyle><color>ff{_bgr(edge)}</color><width>1</width></LineStyle>'
                f"<PolyStyle><color>bf{_bgr(color)}</color></PolyStyle></Style>\n"
            )
        fields: list[str] = []
        for frame in frames:
            if not fields:
                fields = [name for name in frame.columns if name != "geometry"]
                _write_schema(out, frame, fields)
                out.write(f"<Folder><name>{_text(layer)}</name>\n")
            _write_frame(out, frame, fields)
        out.write("</Folder>\n</Document>\n</kml>\n")


def _write_schema(out: TextIO, frame: gpd.GeoDataFrame, fields: Sequence[str]) -> None:
    out.write('<Schema name="polygons" id="schema">\n')
    for name in fields:
        kind = _TYPES.get(getattr(frame.dtypes[name], "kind", ""), "string")
        out.write(f"<SimpleField name={quoteattr(name)} type={quoteattr(kind)}/>\n")
    out.write("</Schema>\n")


def _write_frame(out: TextIO, frame: gpd.GeoDataFrame, fields: Sequence[str]) -> None:
    columns = [frame[name].tolist() for name in fields]
    for code, label, shape, *values in zip(
        frame["class_id"].tolist(), frame["class_name"].tolist(), frame.geometry.values, *columns, strict=True
    ):
        told = zip(fields, values, strict=True)
        data = "".join(
            f"<SimpleData name={quoteattr(name)}>{_text(str(value))}</SimpleData>"
            for name, value in told
            if value == value  # no number is none
        )
        out.write(
            f"<Placemark><name>{_text(label)}</name><styleUrl>#class_{code}</styleUrl><ExtendedData>"
            f'<SchemaData schemaUrl="#schema">{data}</SchemaData></ExtendedData>{_geometry(shape)}</Placemark>\n'
        )


def _geometry(shape: Any) -> str:
    parts = [_polygon(part) for part in shapely.get_parts(shape)]
    return parts[0] if len(parts) == 1 else f"<MultiGeometry>{''.join(parts)}</MultiGeometry>"


def _polygon(shape: Any) -> str:
    rings = [f"<outerBoundaryIs>{_ring(shape.exterior)}</outerBoundaryIs>"]
    rings += [f"<innerBoundaryIs>{_ring(ring)}</innerBoundaryIs>" for ring in shape.interiors]
    return f"<Polygon><tessellate>1</tessellate>{''.join(rings)}</Polygon>"


def _ring(ring: Any) -> str:
    # A hundred-millionth of a degree is a millimetre.
    points = " ".join(f"{x:.8f},{y:.8f}" for x, y in shapely.get_coordinates(ring).tolist())
    return f"<LinearRing><coordinates>{points}</coordinates></LinearRing>"


def _text(text: str) -> str:
    return escape(text)


def _bgr(color: Iterable[int]) -> str:
    return "".join(f"{channel:02x}" for channel in reversed(list(color)))


def read_kml(path: Path) -> Iterator[tuple[NDArray[np.int64], NDArray[Any]]]:
    """Go through class codes and shapes of a file that :func:`write_kml` wrote.

    Raises
    ------
    ValueError:
        When it is cut, or something else.

    """
    codes: list[int] = []
    shapes: list[Any] = []
    try:
        with path.open("rb") as stream:
            folder: ET.Element | None = None
            for event, element in ET.iterparse(stream, events=("start", "end")):
                tag = element.tag.rpartition("}")[2]
                if event == "start":
                    folder = element if tag == "Folder" else folder
                elif tag == "Placemark":
                    codes.append(int(_data(element)["class_id"]))
                    shapes.append(_shape(element))
                    if folder is not None:
                        folder.clear()
                    if len(codes) == _BATCH:
                        yield np.array(codes), np.array(shapes, dtype=object)
                        codes, shapes = [], []
    except (ET.ParseError, KeyError) as error:
        raise ValueError(f"no KML of polygons: {error}") from error
    yield np.array(codes, dtype=np.int64), np.array(shapes, dtype=object)


def _data(placemark: ET.Element) -> dict[str, str]:
    return {item.get("name", ""): item.text or "" for item in placemark.iter(f"{{{_NAMESPACE}}}SimpleData")}


def _shape(placemark: ET.Element) -> Any:
    polygons = []
    for polygon in placemark.iter(f"{{{_NAMESPACE}}}Polygon"):
        rings = [
            [tuple(map(float, point.split(","))) for point in (ring.text or "").split()]
            for ring in polygon.iter(f"{{{_NAMESPACE}}}coordinates")
        ]
        polygons.append(shapely.Polygon(rings[0], rings[1:]))
    return polygons[0] if len(polygons) == 1 else shapely.MultiPolygon(polygons)
