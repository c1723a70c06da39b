"""Points that a person labels in QGIS: a GeoPackage whose form offers the classes."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from resegeo.files import saving, whole
from resegeo.outputs.layer_styles import Style, add_styles


def write_point_form(frame: Any, output: Path, field: str, answers: Sequence[str]) -> None:
    """Write points, whole or not at all, with a style whose form has a list of ``answers`` for ``field``.

    Raises
    ------
    ResegeoError:
        When the file can't be written.

    """
    import pyogrio

    errors = (sqlite3.Error, pyogrio.errors.DataSourceError, pyogrio.errors.FeatureError)
    with saving(output, *errors), whole(output) as beside:
        pyogrio.write_dataframe(frame, beside, driver="GPKG", layer=output.stem, geometry_type="Point")
        add_styles(beside, {output.stem: Style("points", "Points to be labelled", qml_points(field, answers))})


def qml_points(field: str, answers: Sequence[str]) -> str:
    """Full QGIS style of points to be labelled: white where empty, and a value list as the form of ``field``."""
    root = ET.Element("qgis", version="3.22.0", styleCategories="AllStyleCategories", labelsEnabled="0")
    renderer = ET.SubElement(root, "renderer-v2", type="categorizedSymbol", attr=f'"{field}" IS NOT NULL')
    renderer.attrib |= {"symbollevels": "0", "forceraster": "0", "enableorderby": "0"}
    categories, symbols = ET.SubElement(renderer, "categories"), ET.SubElement(renderer, "symbols")
    for index, (value, label, color) in enumerate((("0", "to do", "255,255,0,255"), ("1", "done", "120,120,120,255"))):
        ET.SubElement(categories, "category", type="long", value=value, symbol=str(index), label=label, render="true")
        symbol = ET.SubElement(symbols, "symbol", type="marker", name=str(index), alpha="1", clip_to_extent="1")
        layer = ET.SubElement(symbol, "layer", {"class": "SimpleMarker", "pass": "0", "locked": "0", "enabled": "1"})
        options = ET.SubElement(layer, "Option", type="Map")
        values = {"name": "cross2", "color": color, "outline_color": color, "outline_width": "0.6", "size": "4"}
        for key, text in values.items():
            ET.SubElement(options, "Option", type="QString", name=key, value=text)
    configuration = ET.SubElement(root, "fieldConfiguration")
    widget = ET.SubElement(
        ET.SubElement(configuration, "field", name=field, configurationFlags="None"), "editWidget", type="ValueMap"
    )
    values_map = ET.SubElement(ET.SubElement(ET.SubElement(widget, "config"), "Option", type="Map"), "Option")
    values_map.attrib |= {"type": "List", "name": "map"}
    for answer in answers:
        entry = ET.SubElement(values_map, "Option", type="Map")
        ET.SubElement(entry, "Option", type="QString", name=answer, value=answer)
    ET.SubElement(root, "layerGeometryType").text = "0"
    ET.indent(root)
    return "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n" + ET.tostring(root, encoding="unicode") + "\n"
