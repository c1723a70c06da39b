"""``resegeo vectorize``: polygons of a class raster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .console import say_path, shows


@click.command()
@click.argument("raster")
@click.option("-o", "--output", required=True, metavar="FILE", help="Suffix: .gpkg .shp .geojson .fgb .parquet .kml.")
@click.option("--keep-background", is_flag=True, help="Draw background as polygons too.")
@click.option("--min-area", default="0", metavar="AREA", help="Smaller areas join a neighbour: 50m2, 0.5ha or 20px.")
@click.option("--smooth", is_flag=True, help="Smooth outlines instead of the edges of pixels.")
@click.option("--simplify", default="0", metavar="LENGTH", help="Simplify borders by up to 1.5m or 1.5px.")
@click.option("--regularize", default="", metavar="NAMES", help="Right-angled outlines too of classes: building.")
@click.option("--append", is_flag=True, help="Collect scenes in one layer of a GeoPackage, by their field scene.")
@click.option("--overwrite", is_flag=True, help="Replace the file if it exists, or a collected scene.")
@shows
def vectorize(raster: str, output: str, overwrite: bool, regularize: str, **options: Any) -> None:
    """Turn a class RASTER of resegeo into polygons without seams or gaps.

    \b
    Example:
      resegeo vectorize out/scene.classes.tif -o out/scene.gpkg --min-area 50m2 --smooth
    """
    from resegeo.run.commands import vectorize as run

    say_path(run(raster, Path(output), overwrite=overwrite, regularize=regularize or (), **options))
