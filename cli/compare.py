"""``resegeo compare``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .console import complain, say, say_path, shows
from .tables import columns

if TYPE_CHECKING:
    from resegeo.run.change import Change


@click.command()
@click.argument("before")
@click.argument("after")
@click.option("-o", "--output", required=True, metavar="FOLDER", help="For change.tif, .gpkg, .csv and .json.")
@click.option(
    "--min-area", default="0", metavar="AREA", help="Smaller changes count as none: pixels, or an area: 20px, 0.5ha."
)
@click.option(
    "--sure", type=float, default=0.5, show_default=True, help="Score from which on a map is sure of a pixel."
)
@click.option("--only-sure", is_flag=True, help="Keep only changes of which both maps are sure.")
@click.option("--overwrite", is_flag=True, help="Replace earlier files of these names.")
@shows
def compare(before: str, after: str, output: str, min_area: str, sure: float, only_sure: bool, overwrite: bool) -> None:
    """Say what changed between two maps of one area: a table in ha, a raster and polygons of the changes.

    BEFORE and AFTER are class rasters or folders of finished runs. Classes are matched by name. Most of what differs
    between two maps is error: the table says how much of each change both maps are sure of, where the stores of their
    runs keep the scores.

    \b
    Example:
      resegeo compare out_2014/ out_2024/ -o change/ --min-area 0.1ha --only-sure
    """
    from resegeo.run.change import compare as run

    made = run(before, after, output, min_area=min_area, sure=sure, only_sure=only_sure, overwrite=overwrite)
    if not click.get_current_context().obj["quiet"]:
        say(_table(made), err=True)
        complain(f"Note: {made.caution()}")
    for path in made.files():
        say_path(path)


def _table(made: Change) -> str:
    rows = [("before", "after", "pixels", "ha", "sure")]
    rows += [
        (
            each.before,
            each.after if each.after != each.before else "(the same)",
            f"{each.pixels:,}",
            "-" if each.ha is None else f"{each.ha:,.2f}",
            "-" if each.sure is None else f"{each.sure:.0%}",
        )
        for each in made.transitions
    ]
    return "\n".join(columns(rows, left=2))
