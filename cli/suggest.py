"""``resegeo suggest``."""

from __future__ import annotations

from pathlib import Path

import click

from .console import Bars, say_path, shows


@click.command()
@click.argument("store")
@click.option("--prompts", required=True, metavar="FILE", help="Class file: names, prompts, colours (YAML).")
@click.option("-n", "count", type=click.IntRange(1, 10_000), default=20, show_default=True, help="Number of points.")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="GeoPackage for the points.")
@click.option("--examples", metavar="FILE", help="Examples of earlier rounds: they count, and points keep off them.")
@click.option("--field", metavar="NAME", help="Field of the examples that names the class.")
@click.option("--model", metavar="MODEL", help="The model of the store, where it is not the bundled one.")
@click.option("--overwrite", is_flag=True, help="Replace the file.")
@click.option("--replace-edited", is_flag=True, help="Let --overwrite replace points that were labelled already too.")
@shows
def suggest(
    store: str,
    prompts: str,
    count: int,
    output: Path,
    examples: str | None,
    field: str | None,
    model: str | None,
    overwrite: bool,
    replace_edited: bool,
) -> None:
    """Suggest points of STORE, the .store.zarr of a finished run, that are worth labelling next.

    They lie where the two best classes are close, spread over the scene and over classes. In QGIS the form offers the
    classes for the empty field `class`; filled in, the file goes to --examples.

    \b
    Example:
      resegeo suggest out/scene.store.zarr --prompts classes.yml -n 20 -o clicks.gpkg
      resegeo segment out/scene.store.zarr --prompts classes.yml --examples clicks.gpkg
    """
    from resegeo.run.suggestions import suggest as run

    bars = Bars(quiet=click.get_current_context().obj["quiet"])
    try:
        path = run(
            store,
            prompts,
            output,
            count,
            overwrite=overwrite,
            replace_edited=replace_edited,
            progress=bars,
            examples=examples,
            field=field,
            model=model,
        )
    finally:
        bars.close()
    say_path(path)
