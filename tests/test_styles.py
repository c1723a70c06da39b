from __future__ import annotations

import ctypes
from xml.etree import ElementTree as ET

import numpy as np
import pytest
import rasterio
import rasterio._base
from hypothesis import given
from hypothesis import strategies as st

from resegeo.classes.class_file import class_list
from resegeo.classes.class_list import ClassList
from resegeo.outputs.styles import colormap, qml_raster, qml_vector, rat_xml, sld_vector

HARD = "roof & <wall> \"a\" 'b' ]]>"
CLASSES = class_list(
    [
        {"name": "water", "color": [1, 2, 3]},
        {"name": "shade", "background": True},
        {"name": HARD, "color": "#c81e1e"},
        "Wälder 水",
    ]
)
MANY = class_list([f"class {number}" for number in range(300)])
SLD, OGC = "{http://www.opengis.net/sld}", "{http://www.opengis.net/ogc}"


def parsed(text: str) -> ET.Element:
    return ET.fromstring(text.split("\n", 1)[1] if text.startswith("<!DOCTYPE") else text)


def hexadecimal(color: tuple[int, int, int]) -> str:
    return "#" + bytes(color).hex()


def gdal() -> ctypes.CDLL:
    """GDAL's own C functions, found through rasterio's extension module, which is linked to them."""
    library = ctypes.CDLL(rasterio._base.__file__)
    if not hasattr(library, "GDALGetDefaultRAT"):
        pytest.skip("GDAL's functions cannot be reached through rasterio here")
    library.GDALAllRegister()
    handle, integer, text = ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p
    for name, result, arguments in (
        ("GDALOpen", handle, [text, integer]),
        ("GDALGetRasterBand", handle, [handle, integer]),
        ("GDALGetDefaultRAT", handle, [handle]),
        ("GDALClose", None, [handle]),
        ("GDALRATGetTableType", integer, [handle]),
        ("GDALRATGetColumnCount", integer, [handle]),
        ("GDALRATGetRowCount", integer, [handle]),
        ("GDALRATGetNameOfCol", text, [handle, integer]),
        ("GDALRATGetUsageOfCol", integer, [handle, integer]),
        ("GDALRATGetTypeOfCol", integer, [handle, integer]),
        ("GDALRATGetValueAsString", text, [handle, integer, integer]),
    ):
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


def test_gdal_reads_the_attribute_table_as_meant(tmp_path):
    path = tmp_path / "a.tif"
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=4,
        width=4,
        count=1,
        dtype="uint8",
        crs="EPSG:32633",
        transform=(1, 0, 0, 0, -1, 4),
    ) as raster:
        raster.write(np.ones((1, 4, 4), np.uint8))
    (tmp_path / "a.tif.aux.xml").write_text(rat_xml(CLASSES, {0: 5, 1: 7, 3: 2, 254: 1, 255: 9}), "utf-8")

    library = gdal()
    dataset = library.GDALOpen(str(path).encode(), 0)
    try:
        table = library.GDALGetDefaultRAT(library.GDALGetRasterBand(dataset, 1))
        assert table
        columns, rows = range(library.GDALRATGetColumnCount(table)), range(library.GDALRATGetRowCount(table))
        kind = library.GDALRATGetTableType(table)
        heads = [
            (
                library.GDALRATGetNameOfCol(table, column).decode(),
                library.GDALRATGetTypeOfCol(table, column),
                library.GDALRATGetUsageOfCol(table, column),
            )
            for column in columns
        ]
        found = [tuple(library.GDALRATGetValueAsString(table, r, c).decode() for c in columns) for r in rows]
    finally:
        library.GDALClose(dataset)

    assert kind == 0  # GRTT_THEMATIC
    # types: GFT_Integer 0, GFT_String 2; usages: GFU_MinMax 5, PixelCount 1, Name 2, Red to Alpha 6 to 9
    assert heads == [
        ("Value", 0, 5),
        ("Count", 0, 1),
        ("Class", 2, 2),
        ("Red", 0, 6),
        ("Green", 0, 7),
        ("Blue", 0, 8),
        ("Alpha", 0, 9),
    ]
    third = tuple(map(str, CLASSES.drawn[2].color))
    assert found == [
        ("0", "5", "background", "235", "235", "235", "0"),
        ("1", "7", "water", "1", "2", "3", "255"),
        ("2", "0", HARD, "200", "30", "30", "255"),
        ("3", "2", "Wälder 水", *third, "255"),
        ("254", "1", "unprocessed", "120", "120", "120", "255"),
    ]


@pytest.mark.parametrize("classes", [CLASSES, MANY], ids=["8 bits", "16 bits"])
def test_the_colour_table_has_every_code_and_hides_background_and_nodata(classes):
    table = colormap(classes)
    assert set(table) == {0, classes.unprocessed, classes.nodata, *(spec.code for spec in classes.drawn)}
    assert {code for code, color in table.items() if color[3] == 0} == {0, classes.nodata}
    for spec in classes.drawn:
        assert table[spec.code] == (*spec.color, 255)


def test_rat_without_counts_lists_classes_and_background_alone():
    rows = parsed(rat_xml(CLASSES, {})).findall(".//Row")
    assert [row.findtext("F") for row in rows] == ["0", "1", "2", "3"]
    assert [row.get("index") for row in rows] == ["0", "1", "2", "3"]


@pytest.mark.parametrize("classes", [CLASSES, MANY], ids=["8 bits", "16 bits"])
def test_the_raster_style_is_paletted_and_has_every_code(classes):
    text = qml_raster(classes)
    assert text.startswith("<!DOCTYPE qgis")
    root = parsed(text)
    assert root.tag == "qgis"
    assert root.get("hasScaleBasedVisibilityFlag") == "0"
    assert root.get("styleCategories") == "AllStyleCategories"
    renderer = root.find("pipe/rasterrenderer")
    assert renderer is not None
    assert (renderer.get("type"), renderer.get("band")) == ("paletted", "1")
    entries = {int(entry.attrib["value"]): entry for entry in renderer.findall("colorPalette/paletteEntry")}
    assert set(entries) == set(colormap(classes)) - {classes.nodata}
    for code, entry in entries.items():
        assert entry.get("label") == classes.name_of(code)
        assert entry.get("color") == hexadecimal(classes.color_of(code))
        assert entry.get("alpha") == str(colormap(classes)[code][3])


def test_the_polygon_style_is_categorised_by_class_id_and_made_for_polygons():
    root = parsed(qml_vector(CLASSES))
    assert root.findtext("layerGeometryType") == "2"  # QGIS refuses a style made for another geometry
    renderer = root.find("renderer-v2")
    assert renderer is not None
    assert (renderer.get("type"), renderer.get("attr")) == ("categorizedSymbol", "class_id")
    symbols = {symbol.get("name"): symbol for symbol in renderer.findall("symbols/symbol")}
    categories = renderer.findall("categories/category")
    assert [category.get("value") for category in categories] == ["1", "2", "3", "0"]
    for category in categories:
        code = int(category.attrib["value"])
        assert category.get("label") == CLASSES.name_of(code)
        symbol = symbols.pop(category.get("symbol"))
        assert symbol.get("type") == "fill"
        fill = symbol.find("layer/Option/Option[@name='color']")
        assert fill is not None
        assert fill.get("value") == ",".join(map(str, (*CLASSES.color_of(code), 255)))
    assert not symbols


def test_the_sld_has_a_rule_for_each_class():
    root = parsed(sld_vector(CLASSES, "a & b"))
    assert (root.tag, root.get("version")) == (f"{SLD}StyledLayerDescriptor", "1.0.0")
    assert root.findtext(f"{SLD}NamedLayer/{SLD}Name") == "a & b"
    found = {}
    for rule in root.iter(f"{SLD}Rule"):
        # the order of elements is part of the schema
        assert [child.tag for child in rule] == [f"{SLD}Name", f"{OGC}Filter", f"{SLD}PolygonSymbolizer"]
        equal = rule.find(f"{OGC}Filter/{OGC}PropertyIsEqualTo")
        assert equal is not None
        assert equal.findtext(f"{OGC}PropertyName") == "class_id"
        fill = rule.findtext(f"{SLD}PolygonSymbolizer/{SLD}Fill/{SLD}CssParameter[@name='fill']")
        found[int(equal.findtext(f"{OGC}Literal", ""))] = (rule.findtext(f"{SLD}Name"), fill)
    assert found == {code: (CLASSES.name_of(code), hexadecimal(CLASSES.color_of(code))) for code in (0, 1, 2, 3)}


names = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=12)


@given(st.lists(names, min_size=1, max_size=6, unique_by=str.casefold))
def test_every_name_survives_every_style(chosen):
    classes: ClassList = class_list(chosen)
    drawn = [spec.name for spec in classes.drawn]
    rat = parsed(rat_xml(classes, {}))
    assert [row.findall("F")[2].text for row in rat.iter("Row")] == ["background", *drawn]
    palette = [entry.get("label") for entry in parsed(qml_raster(classes)).iter("paletteEntry")]
    assert palette == ["background", *drawn, "unprocessed"]
    assert [c.get("label") for c in parsed(qml_vector(classes)).iter("category")] == [*drawn, "background"]
    rules = parsed(sld_vector(classes, "layer")).iter(f"{SLD}Rule")
    assert [rule.findtext(f"{SLD}Name") for rule in rules] == [*drawn, "background"]


def test_many_classes_are_styled_quickly():
    # each name is looked up, not searched: a search made 65,000 classes take minutes
    many = class_list([f"c{number}" for number in range(5000)])
    assert len(parsed(rat_xml(many, {})).findall(".//Row")) == 5001
    assert len({spec.color for spec in many.classes}) == 5000
