"""Open what `make demo` wrote in headless QGIS, as a user would.

    /usr/bin/python3 tests/check_qgis.py FOLDER [--picture PNG] [--formats FOLDER]

`--formats` is a folder of the same polygons in other formats. Needs QGIS's own Python (Debian: python3-qgis) and
QT_QPA_PLATFORM=offscreen. Exits with 1 and says why if names, colours or places are not what the class raster's tags
say.
"""

import json
import os
import sys
import traceback
from pathlib import Path

from osgeo import gdal
from qgis.core import (
    QgsApplication,
    QgsMapRendererParallelJob,
    QgsMapSettings,
    QgsProject,
    QgsRasterLayer,
    QgsVectorLayer,
)
from qgis.PyQt.QtCore import QSize


def main(folder: Path, picture: str | None, formats: Path | None) -> None:
    application = QgsApplication([], False)  # kept alive until the process ends
    application.initQgis()
    stem = "sentinel2"
    raster_path = str(folder / f"{stem}.classes.tif")
    tags = gdal.Open(raster_path).GetMetadata()
    wanted = {c["code"]: (c["name"], tuple(c["color"])) for c in json.loads(tags["RESEGEO_CLASSES"])["classes"]}

    polygons = QgsVectorLayer(f"{folder / f'{stem}.gpkg'}|layername={stem}", "polygons", "ogr")
    assert polygons.isValid(), "QGIS cannot open the GeoPackage"
    renderer = polygons.renderer()
    assert renderer.type() == "categorizedSymbol", f"the GeoPackage's style was not applied: {renderer.type()}"
    found = {}
    for category in renderer.categories():
        color = category.symbol().color()
        found[int(category.value())] = (category.label(), (color.red(), color.green(), color.blue()))
    occurring = {feature["class_id"] for feature in polygons.getFeatures()}
    assert found.keys() == occurring, f"the legend has {sorted(found)}, the polygons {sorted(occurring)}"
    for code in occurring:
        assert found[code] == wanted[code], f"polygon style of code {code}: {found[code]}, expected {wanted[code]}"
    assert polygons.featureCount() > 0
    assert not [f.id() for f in polygons.getFeatures() if not f.geometry().isGeosValid()], "invalid geometries"

    raster = QgsRasterLayer(raster_path, "classes")
    assert raster.isValid(), "QGIS cannot open the class raster"
    assert raster.renderer().type() == "paletted", raster.renderer().type()
    shown = {
        int(c.value): (c.label, (c.color.red(), c.color.green(), c.color.blue())) for c in raster.renderer().classes()
    }
    for code, entry in wanted.items():
        assert shown[code] == entry, f"raster style of code {code}: {shown[code]}, expected {entry}"
    assert raster.crs() == polygons.crs()
    assert raster.extent().contains(polygons.extent())

    project = QgsProject.instance()
    assert project.read(str(folder / f"{stem}.qgz")), "QGIS cannot read the project"
    layers = {layer.name(): layer for layer in project.mapLayers().values()}
    assert layers.keys() == {"polygons", "classes", "scene"}, sorted(layers)
    assert not [name for name, layer in layers.items() if not layer.isValid()], "layers of the project are not found"
    assert {layer.crs().authid() for layer in layers.values()} == {raster.crs().authid()}
    assert project.crs() == raster.crs()
    assert layers["polygons"].featureCount() == polygons.featureCount()
    # A scene of 16 bits is stretched as the model saw it.
    stretched = layers["scene"].renderer().redContrastEnhancement()
    assert stretched.contrastEnhancementAlgorithm() == stretched.StretchToMinimumMaximum
    assert 0 < stretched.maximumValue() - stretched.minimumValue() < 65535
    for category in layers["polygons"].renderer().categories():
        name, color = wanted[int(category.value())]
        shade = category.symbol().color()
        assert (shade.red(), shade.green(), shade.blue()) == color, name
        assert category.label().startswith(name), category.label()
        assert category.label().endswith(" ha"), category.label()
    assert project.readEntry("Paths", "Absolute")[0] in ("", "false")

    for path in sorted(formats.iterdir()) if formats else ():
        if path.suffix not in (".gpkg", ".shp", ".geojson", ".fgb", ".kml"):
            continue
        layer = QgsVectorLayer(str(path), path.name, "ogr")
        assert layer.isValid(), f"QGIS cannot open {path.name}"
        assert layer.renderer().type() == "categorizedSymbol", f"{path.name} is not styled"
        assert layer.featureCount() == polygons.featureCount(), path.name
        field = "class_id"
        assert {feature[field] for feature in layer.getFeatures()} == occurring, path.name
        for category in layer.renderer().categories():
            shade = category.symbol().color()
            there = (category.label(), (shade.red(), shade.green(), shade.blue()))
            assert there == wanted[int(category.value())], f"{path.name}: {there}"

    if picture:
        settings = QgsMapSettings()
        settings.setLayers([polygons])
        settings.setDestinationCrs(polygons.crs())
        settings.setExtent(raster.extent())
        settings.setOutputSize(QSize(880, 800))
        job = QgsMapRendererParallelJob(settings)
        job.start()
        job.waitForFinished()
        job.renderedImage().save(picture)
    print(f"QGIS shows {polygons.featureCount()} polygons and {len(shown)} raster classes with names and colours")


if __name__ == "__main__":
    code = 0
    try:
        rest = dict(zip(("--picture", "--formats"), (None, None), strict=True))
        for flag, value in zip(sys.argv[2::2], sys.argv[3::2], strict=True):
            rest[flag] = value
        main(Path(sys.argv[1]), rest["--picture"], rest["--formats"] and Path(rest["--formats"]))
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # QGIS may crash while Python takes its objects down, after everything was checked
