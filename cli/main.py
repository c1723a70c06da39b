"""``resegeo``: the commands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .batch import batch
from .console import Bars, shows
from .evaluate import evaluate
from .models import models
from .options import BANDS, RESULTS, GroupedCommand, segmenting
from .plan import plan


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="resegeo")
def main() -> None:
    """Segment georeferenced images by words: no training, no labels.

    \b
    Example:
      resegeo classes template > classes.yml
      resegeo segment scene.tif --prompts classes.yml
    """


main.add_command(batch)
main.add_command(evaluate)
main.add_command(models)
main.add_command(plan)


@main.command(cls=GroupedCommand)
@click.argument("scene")
@RESULTS
@segmenting
@shows
def segment(scene: str, prompts: str, **options: Any) -> None:
    """Segment SCENE by the words of a class file: class raster, polygons, picture, report.

    SCENE is a raster, or the .store.zarr of a finished run, which takes new words in seconds.

    \b
    Examples:
      resegeo segment scene.tif --prompts classes.yml
      resegeo segment scene.tif --prompts classes.yml -o out/ --stride 64 --vector gpkg,geojson
    """
    from resegeo.pipeline import segment as run

    bars = Bars(quiet=click.get_current_context().obj["quiet"])
    try:
        result = run(scene, prompts, options.pop("output"), progress=bars, **options)
    finally:
        bars.close()
    if result.reused:
        click.echo("Note: these results are complete already; nothing was computed.", err=True)
    for path in result.files():
        click.echo(path)
    if result.failed:
        click.echo(
            f"Warning: {result.failed} windows or blocks failed (see {result.report}); pixels that nothing else covers "
            "are marked unprocessed. The same command tries them again.",
            err=True,
        )
        raise SystemExit(3)


@main.command()
@click.argument("scene")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--bands", **BANDS)
@shows
def info(scene: str, as_json: bool, bands: tuple[int, int, int] | None) -> None:
    """Show size, CRS, bands and nodata of SCENE, and what segment would do.

    \b
    Example:
      resegeo info scene.tif
    """
    import json

    from resegeo.pipeline import inspect

    facts = inspect(scene, bands=bands)
    if as_json:
        click.echo(json.dumps(facts, indent=2, ensure_ascii=False))
        return
    width = max(map(len, facts))
    for name, value in facts.items():
        click.echo(f"{name:{width}}  {value}")


@main.command()
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
    from resegeo.pipeline import vectorize as run

    click.echo(run(raster, Path(output), overwrite=overwrite, **options))


@main.group()
def classes() -> None:
    """Class files: a template, a check, and the bundled model's words."""


@classes.command()
@shows
def template() -> None:
    """Print a commented class file to begin with."""
    from resegeo.class_file import TEMPLATE

    click.echo(TEMPLATE, nl=False)


@classes.command()
@click.argument("file")
@shows
def check(file: str) -> None:
    """Read a class FILE and print its codes, colours, names and prompts."""
    from resegeo.class_file import load_class_list

    for spec in load_class_list(Path(file)).classes:
        colour = "#{:02x}{:02x}{:02x}".format(*spec.color)
        click.echo(f"{spec.code:5}  {colour}  {spec.name}: {', '.join(spec.prompts)}")


@classes.command()
@shows
def vocabulary() -> None:
    """List the words and phrases that the bundled model was trained on, by kind."""
    from resegeo.weights import vocabulary_text

    click.echo(vocabulary_text(), nl=False)
