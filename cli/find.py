"""``resegeo find``."""

from __future__ import annotations

from pathlib import Path

import click

from .console import Bars, say, say_path, shows


@click.command()
@click.argument("places", nargs=-1, required=True)
@click.argument("words")
@click.option("-n", "count", type=click.IntRange(1, 100_000), default=50, show_default=True, help="Number of places.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="GeoPackage for the places.")
@click.option(
    "--examples",
    metavar="FILE",
    help="Points, lines or polygons in the scenes, or a .fitted.safetensors: WORDS then name one of their classes.",
)
@click.option("--field", metavar="NAME", help="Field of the examples that names the class.")
@click.option("--model", metavar="MODEL", help="The model of the stores, where it is not the bundled one.")
@click.option("--overwrite", is_flag=True, help="Replace the file.")
@shows
def find(
    places: tuple[str, ...],
    words: str,
    count: int,
    output: Path | None,
    examples: str | None,
    field: str | None,
    model: str | None,
    overwrite: bool,
) -> None:
    """Find where finished stores fit WORDS best; PLACES are stores, or folders that hold some.

    Prints a table, the best place first, as CSV: score (the cosine with the words, or with --examples the probability),
    scene, row and column, coordinates. Patches beside each other are one place.

    \b
    Examples:
      resegeo find out/ "swimming pool" -n 50 -o pools.gpkg
      resegeo find out/ "solar panel" --examples out/scene.fitted.safetensors
    """
    from resegeo.batches.finding import find as run

    bars = Bars(quiet=click.get_current_context().obj["quiet"])
    try:
        found = run(
            places,
            words,
            count,
            output,
            examples=examples,
            field=field,
            model=model,
            overwrite=overwrite,
            progress=bars,
        )
    finally:
        bars.close()
    say(found.table().rstrip("\n"))
    if output is not None:
        say_path(output)
