"""A QGIS project (.qgz) over the results of a run: scene, class raster and polygons, styled, zoomed, paths relative.

Written as XML, since QGIS need not be here; its own loader is the oracle of the tests. The styles are those of
:mod:`resegeo.outputs.styles`, put into the layers of the project.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from resegeo.classes.class_list import ClassList
from resegeo.files import Note, whole
from resegeo.outputs.styles import qml_raster, qml_vector

_DATE = (2000, 1, 1, 0, 0, 0)
"""Of the project's entry in its archive: a fixed one, so that equal runs give equal bytes."""


@dataclass(frozen=True)
class Layer:
    """A layer of the project."""

    name: str
    path: str
    """Path of its file, or URL."""
    kind: str
    """``scene``, ``classes`` or ``polygons``."""
    layer: str | None = None
    """Of several layers in the file the one that is meant."""
    visible: bool = True
    bands: tuple[int, int, int] | None = None
    """Bands of a scene that are shown as red, green and blue, from 1; None: those that QGIS takes."""
    stretch: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    """Values of these bands that are shown black, and full; None: 0 and 255."""


def write_project(
    path: Path,
    layers: Sequence[Layer],
    classes: ClassList,
    *,
    crs: Any | None,
    extent: tuple[float, float, float, float],
    title: str,
    areas: Mapping[int, str] | None = None,
    note: Note | None = None,
) -> None:
    """Write a project, whole or not at all.

    Parameters
    ----------
    path:
        The ``.qgz``.
    layers:
        The uppermost first.
    classes:
        The class list behind the styles.
    crs:
        Of the project and its layers, or None.
    extent:
        (left, bottom, right, top) that the map is zoomed to.
    title:
        Of the project.
    areas:
        By code a text that the legend shows behind the class's name, such as its area; classes without one are left
        out. None: all are shown, without a text.
    note:
        Told of the file before it gets its name, see :func:`resegeo.files.move`.

    Raises
    ------
    OSError:
        When it cannot be written.

    """
    root = ET.Element("qgis", projectname=title, version="3.22.0-Białowieża")
    ET.SubElement(root, "title").text = title
    reference = _spatial_reference(crs)
    ET.SubElement(root, "projectCrs").append(reference)
    tree = ET.SubElement(root, "layer-tree-group")
    canvas = ET.SubElement(root, "mapcanvas", name="theMapCanvas", annotationsVisible="1")
    ET.SubElement(canvas, "units").text = "degrees" if crs is not None and crs.is_geographic else "meters"
    span = ET.SubElement(canvas, "extent")
    for name, value in zip(("xmin", "ymin", "xmax", "ymax"), extent, strict=True):
        ET.SubElement(span, name).text = repr(float(value))
    ET.SubElement(canvas, "rotation").text = "0"
    ET.SubElement(canvas, "destinationsrs").append(_spatial_reference(crs))
    container, order = ET.SubElement(root, "projectlayers"), ET.SubElement(root, "layerorder")
    for number, layer in enumerate(layers):
        identity = f"resegeo_{layer.kind}_{number}"
        source = _source(layer, path.parent)
        provider = "ogr" if layer.kind == "polygons" else "gdal"
        entry = ET.SubElement(tree, "layer-tree-layer", id=identity, name=layer.name, source=source)
        entry.attrib |= {
            "providerKey": provider,
            "checked": "Qt::Checked" if layer.visible else "Qt::Unchecked",
            "expanded": "0" if layer.kind == "scene" else "1",
        }
        kind = "vector" if layer.kind == "polygons" else "raster"
        node = ET.SubElement(container, "maplayer", type=kind, hasScaleBasedVisibilityFlag="0")
        node.attrib |= {"styleCategories": "AllStyleCategories", "minScale": "1e+08", "maxScale": "0"}
        if kind == "vector":
            node.set("geometry", "Polygon")
            node.set("wkbType", "Polygon")
        ET.SubElement(node, "id").text = identity
        ET.SubElement(node, "datasource").text = source
        ET.SubElement(node, "layername").text = layer.name
        ET.SubElement(node, "srs").append(_spatial_reference(crs))
        ET.SubElement(node, "provider", encoding="UTF-8").text = provider
        for part in _style(layer, classes, areas):
            node.append(part)
        ET.SubElement(order, "layer", id=identity)
    properties = ET.SubElement(root, "properties")
    ET.SubElement(ET.SubElement(properties, "Paths"), "Absolute", type="bool").text = "false"
    enabled = ET.SubElement(ET.SubElement(properties, "SpatialRefSys"), "ProjectionsEnabled", type="int")
    enabled.text = "0" if crs is None else "1"
    ET.indent(root)
    text = "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n" + ET.tostring(root, encoding="unicode")
    with whole(path, note=note) as beside, zipfile.ZipFile(beside, "w", zipfile.ZIP_DEFLATED) as archive:
        info = zipfile.ZipInfo(f"{path.stem}.qgs", _DATE)
        info.compress_type = zipfile.ZIP_DEFLATED
        archive.writestr(info, text + "\n")


def _source(layer: Layer, folder: Path) -> str:
    """Name a layer's file as seen from the project's folder; a URL, or a file on another drive, as it is."""
    where = layer.path
    if "://" not in where and not where.startswith("/vsi"):
        try:
            where = Path(os.path.relpath(where, folder)).as_posix()
        except ValueError:  # another drive of Windows
            where = Path(where).absolute().as_posix()
        where = where if where.startswith((".", "/")) else f"./{where}"
    return where if layer.layer is None else f"{where}|layername={layer.layer}"


def _spatial_reference(crs: Any | None) -> ET.Element:
    """Say a CRS as QGIS does: by its WKT, and by its code where it has one."""
    element = ET.Element("spatialrefsys", nativeFormat="Wkt")
    if crs is not None:
        ET.SubElement(element, "wkt").text = crs.to_wkt()
        code = crs.to_epsg()
        if code is not None:
            ET.SubElement(element, "srid").text = str(code)
            ET.SubElement(element, "authid").text = f"EPSG:{code}"
    return element


def _style(layer: Layer, classes: ClassList, areas: Mapping[int, str] | None) -> list[ET.Element]:
    """Return the parts of a layer's style: those of the QML that lies beside such a file, or a scene's colours."""
    if layer.kind == "scene":
        return [] if layer.bands is None else [_colours(layer.bands, layer.stretch)]
    text = qml_raster(classes) if layer.kind == "classes" else qml_vector(classes, areas)
    root = ET.fromstring(text.split("\n", 1)[1])
    for palette in [*root.iter("colorPalette"), *root.iter("categories")]:
        for entry in list(palette):
            more = "" if areas is None else areas.get(int(entry.get("value") or 0))
            if more is None:
                palette.remove(entry)
            elif more:
                entry.set("label", f"{entry.get('label')}  {more}")
    return [part for part in root if part.tag != "layerGeometryType"]


def _colours(bands: tuple[int, int, int], stretch: tuple[tuple[float, ...], tuple[float, ...]] | None) -> ET.Element:
    """Show a scene as the model sees it: out of a project QGIS stretches nothing by itself, and 16 bits wrap around."""
    pipe = ET.Element("pipe")
    given = {f"{name}Band": str(band) for name, band in zip(("red", "green", "blue"), bands, strict=True)}
    more = {"opacity": "1", "alphaBand": "-1", "nodataColor": ""}
    renderer = ET.SubElement(pipe, "rasterrenderer", {"type": "multibandcolor", **given, **more})
    for name, low, high in zip(("red", "green", "blue"), *(stretch or ((0.0,) * 3, (255.0,) * 3)), strict=True):
        element = ET.SubElement(renderer, f"{name}ContrastEnhancement")
        for key, value in (("minValue", low), ("maxValue", high)):
            ET.SubElement(element, key).text = f"{value:.17g}"
        ET.SubElement(element, "algorithm").text = "StretchToMinimumMaximum"
    return pipe
