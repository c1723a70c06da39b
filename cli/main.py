"""``resegeo``: the commands."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from .console import Bars, shows
from .evaluate import evaluate

VECTORS = ("gpkg", "shp", "geojson", "fgb", "parquet")


Callback = Callable[[click.Context, click.Parameter, str | None], Any]


def numbers(count: int, kind: type[int] | type[float], separator: str, example: str) -> Callback:
    """Build the check of an option that takes ``count`` numbers, such as 4,3,2 or 200:3000."""

    def check(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[float, ...] | None:
        if value is None:
            return None
        try:
            found = tuple(kind(part) for part in value.split(separator))
        except ValueError:
            found = ()
        if len(found) != count:
            raise click.BadParameter(f"{value!r}; expected {count} numbers such as {example}.", ctx, param)
        return found

    return check


def formats(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    """Check an option that takes polygon formats separated by commas, or none."""
    if value is None:
        return None
    names = tuple(dict.fromkeys(part.strip().lower() for part in value.split(",")))
    if names == ("none",):
        return ()
    for name in names:
        if name not in VECTORS:
            known = ", ".join(VECTORS)
            raise click.BadParameter(f"{name!r} is no polygon format; known are {known}, or none.", ctx, param)
    return names


BANDS: dict[str, Any] = {
    "callback": numbers(3, int, ",", "4,3,2"),
    "metavar": "R,G,B",
    "help": "Bands for red, green, blue, counted from 1, such as 4,3,2.",
}


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="resegeo")
def main() -> None:
    """Segment georeferenced images by words: no training, no labels.

    \b
    Example:
      resegeo classes template > classes.yml
      resegeo segment scene.tif --prompts classes.yml
    """


main.add_command(evaluate)


@main.command()
@click.argument("scene")
@click.option("--prompts", required=True, metavar="FILE", help="Class file: names, prompts, colours (YAML).")
@click.option("-o", "--output", metavar="DIR", help="Folder for the results.  [default: ./<scene>_resegeo]")
@click.option("--overwrite", is_flag=True, help="Replace the results of a run with other options.")
@click.option(
    "--vector",
    callback=formats,
    metavar="FORMATS",
    help=f"Polygon formats, comma-separated: {', '.join(VECTORS)}, or none.  [default: gpkg]",
)
@click.option("--simplify", type=float, metavar="PIXELS", help="Simplify polygon borders.  [default: 0, exact]")
@click.option(
    "--model", help="Checkpoint file, or open_clip tag such as ViT-B-32:laion2b_s34b_b79k.  [default: bundled]"
)
@click.option("--arch", help="open_clip architecture of a checkpoint file, such as ViT-L-14-quickgelu.")
@click.option("--segments", metavar="WHAT", help="superpixels, none, a label raster, or polygons.")
@click.option("--preset", type=click.Choice(["default", "paper"]), default="default", show_default=True)
@click.option("--settings", metavar="FILE", help="YAML file with any knob of the method.")
@click.option("--stride", type=int, metavar="PIXELS", help="Step of the windows.  [default: half a window]")
@click.option("--bands", **BANDS)
@click.option(
    "--stretch",
    callback=numbers(2, float, ":", "200:3000"),
    metavar="LOW:HIGH",
    help="Values that become 0 and 255.",
)
@click.option("--assign-crs", metavar="CRS", help="CRS for a scene that has none, such as EPSG:32633.")
@click.option("--aoi", metavar="FILE", help="Vector file with polygons, in any CRS: outside is nodata.")
@click.option(
    "--bbox",
    callback=numbers(4, float, ",", "500000,5190000,501000,5191000"),
    metavar="L,B,R,T",
    help="Left, bottom, right, top in the scene's CRS: outside is nodata.",
)
@click.option("--only", multiple=True, metavar="CLASS", help="Write this class alone; may be repeated.")
@click.option("--device", help="cpu, cuda or mps.  [default: the best there is]")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads.  [default: all cores]")
@shows
def segment(scene: str, prompts: str, **options: Any) -> None:
    """Segment SCENE by the words of a class file: class raster, polygons, picture, report.

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
    from resegeo.classes import TEMPLATE

    click.echo(TEMPLATE, nl=False)


@classes.command()
@click.argument("file")
@shows
def check(file: str) -> None:
    """Read a class FILE and print its codes, colours, names and prompts."""
    from resegeo.classes import load_class_list

    for spec in load_class_list(Path(file)).classes:
        colour = "#{:02x}{:02x}{:02x}".format(*spec.color)
        click.echo(f"{spec.code:5}  {colour}  {spec.name}: {', '.join(spec.prompts)}")


@classes.command()
@shows
def vocabulary() -> None:
    """List the words and phrases that the bundled model was trained on."""
    from resegeo.weights import vocabulary as words

    for word in sorted(words()):
        click.echo(word)
