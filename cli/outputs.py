"""``resegeo vectorize``: polygons of a class raster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .console import say_path, shows


@click.command()
@click.argument("raster")
@click.option("-o", "--output", required=True, metavar="FILE", help="Suffix: .gpkg .shp .geojson .fgb .parquet.")
@click.option("--keep-background", is_flag=True, help="Draw background as polygons too.")
@click.option(
    "--min-area", type=click.IntRange(min=0), default=0, metavar="PIXELS", help="Smaller areas join a neighbour."
)
@click.option("--simplify", type=click.FloatRange(min=0), default=0.0, metavar="PIXELS", help="Simplify borders.")
@click.option("--overwrite", is_flag=True, help="Replace the file if it exists.")
@shows
def vectorize(raster: str, output: str, overwrite: bool, **options: Any) -> None:
    """Turn a class RASTER of resegeo into polygons without seams or gaps.

    \b
    Example:
      resegeo vectorize out/scene.classes.tif -o out/scene.gpkg --simplify 1
    """
    from resegeo.run.commands import vectorize as run

    say_path(run(raster, Path(output), overwrite=overwrite, **options))
