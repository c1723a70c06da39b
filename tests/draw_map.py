"""Draw a finished run's project as QGIS shows it: map, legend with areas, scale bar.

    QT_QPA_PLATFORM=offscreen /usr/bin/python3 tests/draw_map.py PROJECT.qgz PICTURE.jpg

Needs QGIS's own Python (Debian: python3-qgis). The picture of `examples/guide/qgis.md` was made so, of
``resegeo segment examples/demo/sentinel2.tif --prompts examples/demo/classes.yml --min-area 10px --smooth``.
"""

import os
import sys
import traceback

from qgis.core import (
    QgsApplication,
    QgsLayoutExporter,
    QgsLayoutItemLegend,
    QgsLayoutItemMap,
    QgsLayoutItemScaleBar,
    QgsLayoutPoint,
    QgsLayoutSize,
    QgsPrintLayout,
    QgsProject,
    QgsUnitTypes,
)

WIDTH, HEIGHT, LEGEND = 240, 130, 66
"""Of the page, and of the legend on its right, in millimetres."""


def place(item, left, top, width, height):
    item.attemptMove(QgsLayoutPoint(left, top, QgsUnitTypes.LayoutMillimeters))
    item.attemptResize(QgsLayoutSize(width, height, QgsUnitTypes.LayoutMillimeters))


def main(source: str, picture: str) -> None:
    application = QgsApplication([], False)  # kept alive until the process ends
    application.initQgis()
    project = QgsProject.instance()
    assert project.read(source), f"QGIS cannot read {source}"
    polygons, scene = (project.mapLayersByName(name)[0] for name in ("polygons", "scene"))
    layout = QgsPrintLayout(project)
    layout.initializeDefaults()
    layout.pageCollection().page(0).setPageSize(QgsLayoutSize(WIDTH, HEIGHT, QgsUnitTypes.LayoutMillimeters))
    chart = QgsLayoutItemMap(layout)
    layout.addLayoutItem(chart)
    chart.setCrs(polygons.crs())
    chart.setLayers([polygons, scene])
    room = 3, 3, WIDTH - LEGEND - 6, HEIGHT - 6
    place(chart, *room)
    chart.setExtent(scene.extent())
    place(chart, *room)  # an extent brings its own shape along
    chart.zoomToExtent(scene.extent())
    assert chart.extent().contains(scene.extent()), chart.extent().toString()
    chart.setFrameEnabled(True)
    legend = QgsLayoutItemLegend(layout)
    layout.addLayoutItem(legend)
    legend.setLinkedMap(chart)
    legend.setTitle("")
    legend.setAutoUpdateModel(False)
    tree = legend.model().rootGroup()
    for node in list(tree.findLayers()):
        if node.layer() != polygons:
            tree.removeChildNode(node)
    place(legend, WIDTH - LEGEND, 3, LEGEND - 3, HEIGHT - 30)
    bar = QgsLayoutItemScaleBar(layout)
    layout.addLayoutItem(bar)
    bar.setLinkedMap(chart)
    bar.setUnits(QgsUnitTypes.DistanceMeters)
    bar.setUnitLabel("m")
    bar.setNumberOfSegments(2)
    bar.setNumberOfSegmentsLeft(0)
    bar.setUnitsPerSegment(500)
    place(bar, WIDTH - LEGEND, HEIGHT - 20, LEGEND - 3, 15)
    settings = QgsLayoutExporter.ImageExportSettings()
    settings.dpi = 110
    assert QgsLayoutExporter(layout).exportToImage(picture, settings) == QgsLayoutExporter.Success, picture
    names = [category.label() for category in polygons.renderer().categories()]
    print(f"{picture}: {polygons.featureCount()} polygons; {'; '.join(names)}")


if __name__ == "__main__":
    code = 0
    try:
        main(*sys.argv[1:3])
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # QGIS may crash while Python takes its objects down
