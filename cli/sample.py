"""``resegeo sample``."""

from __future__ import annotations

from pathlib import Path

import click

from .console import say_path, shows


@click.command()
@click.argument("raster", type=click.Path(path_type=Path))
@click.option("-n", "count", type=click.IntRange(min=2), default=300, show_default=True, help="Number of points.")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="GeoPackage for the points.")
@click.option(
    "--least", type=click.IntRange(min=2), default=30, show_default=True, help="Points of the rarest class at least."
)
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Another sample for each number."
)
@click.option("--overwrite", is_flag=True, help="Replace the file.")
@shows
def sample(raster: Path, count: int, output: Path, least: int, seed: int, overwrite: bool) -> None:
    """Draw points of RASTER, a class raster of resegeo, to be labelled in QGIS: a stratified random sample.

    The form of the points offers the classes; the map's own answer is not in it. `resegeo evaluate RASTER POINTS
    --design` then gives areas and accuracies with 95 % intervals (Olofsson et al. 2014).

    \b
    Example:
      resegeo sample out/scene.classes.tif -n 300 -o points.gpkg
    """
    from resegeo.evaluation.sampling import ClassRaster, draw, write_points

    opened = ClassRaster.open(raster)
    say_path(write_points(opened, draw(opened, count, seed=seed, least=least), output, overwrite=overwrite))
