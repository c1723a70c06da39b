"""``resegeo``: the commands."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

import click

from .batch import batch
from .console import Bars, complain, open_standard_streams, say, say_path, shows
from .evaluate import evaluate
from .models import models
from .options import LOOKS, RESULTS, GroupedCommand, segmenting
from .plan import plan
from .qgis import qgis
from .sample import sample


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="resegeo")
def main() -> None:
    """Segment georeferenced images by words: no training, no labels.

    \b
    Example:
      resegeo classes template > classes.yml
      resegeo segment scene.tif --prompts classes.yml
    """


def program() -> None:
    """Run as a program of its own: what ``resegeo`` on the command line is."""
    import signal
    import sys

    open_standard_streams()
    try:
        main(prog_name="resegeo")
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        # Whoever is impatient with the end of a program that was told to stop, or is done, ends it at once.
        with contextlib.suppress(ValueError):
            signal.signal(signal.SIGINT, lambda *_: os._exit(130))


main.add_command(batch)
main.add_command(evaluate)
main.add_command(models)
main.add_command(plan)
main.add_command(qgis)
main.add_command(sample)


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
    from resegeo.outputs.area_table import areas_of
    from resegeo.run.commands import segment as run

    bars = Bars(quiet=click.get_current_context().obj["quiet"])
    try:
        result = run(scene, prompts, options.pop("output"), progress=bars, **options)
    finally:
        bars.close()
    if result.reused:
        complain("Note: these results are complete already; nothing was computed.")
    if not click.get_current_context().obj["quiet"]:
        say(areas_of(result.report), err=True)
    for path in result.files():
        say_path(path)
    if result.failed:
        complain(
            f"Warning: {result.failed} windows or blocks failed (see {result.report}); pixels that nothing else covers "
            "are marked unprocessed. The same command tries them again."
        )
        raise SystemExit(3)


@main.command()
@click.argument("scene")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option(*LOOKS[0][0], **LOOKS[0][1])
@click.option(*LOOKS[1][0], **LOOKS[1][1])
@click.option(*LOOKS[2][0], **LOOKS[2][1])
@shows
def info(scene: str, as_json: bool, **options: Any) -> None:
    """Show size, CRS, bands and nodata of SCENE, and what segment would do.

    \b
    Example:
      resegeo info scene.tif
    """
    import json

    from resegeo.run.commands import info as inspect

    facts = inspect(scene, **options)
    if as_json:
        say(json.dumps(facts, indent=2, ensure_ascii=False))
        return
    width = max(map(len, facts))
    for name, value in facts.items():
        say(f"{name:{width}}  {value}")


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
    from resegeo.run.commands import vectorize as run

    say_path(run(raster, Path(output), overwrite=overwrite, **options))


@main.group()
def classes() -> None:
    """Class files: a template, a check, and the bundled model's words."""


@classes.command()
@shows
def template() -> None:
    """Print a commented class file to begin with."""
    from resegeo.classes.class_file import TEMPLATE

    say(TEMPLATE.rstrip("\n"))


@classes.command()
@click.argument("file")
@click.option("--model", help="Model that shall read the prompts, as segment takes it.  [default: the bundled one]")
@click.option("--arch", help="Its open_clip architecture, where the model does not tell.")
@shows
def check(file: str, model: str | None, arch: str | None) -> None:
    """Read a class FILE and print its codes, colours, names and prompts."""
    from resegeo.classes.class_file import load_class_list
    from resegeo.clip.tokens import check_prompts
    from resegeo.composition.recipe import find_model

    found = load_class_list(Path(file))
    check_prompts(found, find_model(model, arch))
    for spec in found.classes:
        colour = "#{:02x}{:02x}{:02x}".format(*spec.color)
        say(f"{spec.code:5}  {colour}  {spec.name}: {', '.join(spec.prompts)}")


@classes.command()
@shows
def vocabulary() -> None:
    """List the words and phrases that the bundled model was trained on."""
    from resegeo.checkpoints.sources import vocabulary as words

    for word in sorted(words()):
        say(word)
