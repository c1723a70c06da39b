"""One class list to every style: colour table, attribute table, QML for raster and polygons, SLD."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from xml.etree import ElementTree as ET

from resegeo.classes.class_list import ClassList


def colormap(classes: ClassList) -> dict[int, tuple[int, int, int, int]]:
    """Colour table of the class raster; background and nodata are transparent."""
    table = {spec.code: (*spec.color, 255) for spec in classes.drawn}
    table[0] = (*classes.color_of(0), 0)
    table[classes.unprocessed] = (*classes.color_of(classes.unprocessed), 255)
    table[classes.nodata] = (*classes.color_of(classes.nodata), 0)
    return table


def _hex(color: tuple[int, int, int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*color)


def rat_xml(classes: ClassList, counts: Mapping[int, int]) -> str:
    """Raster attribute table as GDAL's PAM keeps it in ``.aux.xml``: value, count, name, red, green, blue, alpha.

    Parameters
    ----------
    classes:
        The class list.
    counts:
        Pixels of each code; codes that do not occur count 0.

    """
    # GDAL's GFU_ usage codes: 5 MinMax, 1 PixelCount, 2 Name, 6-9 Red, Green, Blue, Alpha; types 0 int, 2 string.
    columns = [
        ("Value", 0, 5),
        ("Count", 0, 1),
        ("Class", 2, 2),
        ("Red", 0, 6),
        ("Green", 0, 7),
        ("Blue", 0, 8),
        ("Alpha", 0, 9),
    ]
    root = ET.Element("PAMDataset")
    band = ET.SubElement(root, "PAMRasterBand", band="1")
    table = ET.SubElement(band, "GDALRasterAttributeTable", tableType="thematic")
    for index, (name, kind, usage) in enumerate(columns):
        field = ET.SubElement(table, "FieldDefn", index=str(index))
        for tag, value in (("Name", name), ("Type", kind), ("Usage", usage)):
            ET.SubElement(field, tag).text = str(value)
    colors = colormap(classes)
    codes = sorted({0, *(spec.code for spec in classes.drawn), *(code for code, n in counts.items() if n)})
    for index, code in enumerate(code for code in codes if code != classes.nodata):
        row = ET.SubElement(table, "Row", index=str(index))
        for value in (code, counts.get(code, 0), classes.name_of(code), *colors[code]):
            ET.SubElement(row, "F").text = str(value)
    return _text(root)


def qml_raster(classes: ClassList) -> str:
    """Full QGIS style of the class raster: a paletted renderer with names and colours."""
    root = ET.Element("qgis", version="3.22.0", styleCategories="AllStyleCategories", hasScaleBasedVisibilityFlag="0")
    root.set("minScale", "1e+08")
    root.set("maxScale", "0")
    pipe = ET.SubElement(root, "pipe")
    renderer = ET.SubElement(
        pipe, "rasterrenderer", type="paletted", band="1", opacity="1", alphaBand="-1", nodataColor=""
    )
    palette = ET.SubElement(renderer, "colorPalette")
    colors = colormap(classes)
    for code in [0, *(spec.code for spec in classes.drawn), classes.unprocessed]:
        red, green, blue, alpha = colors[code]
        ET.SubElement(
            palette,
            "paletteEntry",
            value=str(code),
            color=_hex((red, green, blue)),
            alpha=str(alpha),
            label=classes.name_of(code),
        )
    ET.SubElement(pipe, "brightnesscontrast", brightness="0", contrast="0", gamma="1")
    ET.SubElement(pipe, "huesaturation", saturation="0", grayscaleMode="0", colorizeOn="0")
    ET.SubElement(pipe, "rasterresampler", maxOversampling="2")
    ET.SubElement(root, "blendMode").text = "0"
    return "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n" + _text(root)


def qml_vector(classes: ClassList, codes: Collection[int] | None = None) -> str:
    """Full QGIS style of the polygons: categorised by ``class_id``; of ``codes`` alone, where given."""
    root = ET.Element("qgis", version="3.22.0", styleCategories="AllStyleCategories", labelsEnabled="0")
    renderer = ET.SubElement(
        root,
        "renderer-v2",
        type="categorizedSymbol",
        attr="class_id",
        symbollevels="0",
        forceraster="0",
        enableorderby="0",
    )
    categories = ET.SubElement(renderer, "categories")
    symbols = ET.SubElement(renderer, "symbols")
    for index, (code, name, color) in enumerate(legend(classes, codes)):
        ET.SubElement(
            categories, "category", type="long", value=str(code), symbol=str(index), label=name, render="true"
        )
        symbol = ET.SubElement(
            symbols, "symbol", type="fill", name=str(index), alpha="0.75", clip_to_extent="1", force_rhr="0"
        )
        layer = ET.SubElement(symbol, "layer", {"class": "SimpleFill", "pass": "0", "locked": "0", "enabled": "1"})
        fill = ",".join(map(str, (*color, 255)))
        edge = ",".join(str(channel * 6 // 10) for channel in color) + ",255"
        values = {
            "color": fill,
            "outline_color": edge,
            "outline_style": "solid",
            "outline_width": "0.1",
            "outline_width_unit": "MM",
            "style": "solid",
            "joinstyle": "bevel",
        }
        options = ET.SubElement(layer, "Option", type="Map")
        for key, value in values.items():
            ET.SubElement(options, "Option", type="QString", name=key, value=value)
    ET.SubElement(root, "blendMode").text = "0"
    ET.SubElement(root, "layerGeometryType").text = "2"
    return "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n" + _text(root)


def sld_vector(classes: ClassList, layer: str, codes: Collection[int] | None = None) -> str:
    """OGC Styled Layer Descriptor 1.0 of the polygons; of ``codes`` alone, where given."""
    ogc, sld = "{http://www.opengis.net/ogc}", "{http://www.opengis.net/sld}"
    ET.register_namespace("ogc", ogc[1:-1])
    ET.register_namespace("sld", sld[1:-1])
    root = ET.Element(f"{sld}StyledLayerDescriptor", version="1.0.0")
    named = ET.SubElement(root, f"{sld}NamedLayer")
    ET.SubElement(named, f"{sld}Name").text = layer
    style = ET.SubElement(ET.SubElement(named, f"{sld}UserStyle"), f"{sld}FeatureTypeStyle")
    for code, name, color in legend(classes, codes):
        rule = ET.SubElement(style, f"{sld}Rule")
        ET.SubElement(rule, f"{sld}Name").text = name
        equal = ET.SubElement(ET.SubElement(rule, f"{ogc}Filter"), f"{ogc}PropertyIsEqualTo")
        ET.SubElement(equal, f"{ogc}PropertyName").text = "class_id"
        ET.SubElement(equal, f"{ogc}Literal").text = str(code)
        fill = ET.SubElement(ET.SubElement(rule, f"{sld}PolygonSymbolizer"), f"{sld}Fill")
        ET.SubElement(fill, f"{sld}CssParameter", name="fill").text = _hex(color)
        ET.SubElement(fill, f"{sld}CssParameter", name="fill-opacity").text = "0.75"
    return _text(root)


def legend(classes: ClassList, codes: Collection[int] | None) -> list[tuple[int, str, tuple[int, int, int]]]:
    """Code, name and colour of the classes; of ``codes`` alone, where given."""
    entries = [(spec.code, spec.name, spec.color) for spec in classes.drawn]
    entries.append((0, classes.name_of(0), classes.color_of(0)))
    return [entry for entry in entries if codes is None or entry[0] in codes]


def _text(root: ET.Element) -> str:
    ET.indent(root)
    return ET.tostring(root, encoding="unicode") + "\n"
