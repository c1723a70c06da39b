"""``resegeo report``."""

from __future__ import annotations

from pathlib import Path

import click

from .console import in_flags, say_path, shows


@click.command()
@click.argument("results", type=click.Path(path_type=Path))
@click.option("--truth", metavar="FILE", help="What is known of the place, of a batch a folder: how right the map is.")
@click.option("--map", "legend", metavar="MAP", help="What the truth's values mean, as for `resegeo evaluate`.")
@click.option("--field", metavar="NAME", help="Field of the truth's polygons that names the class.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The page.  [default: report.html in RESULTS]")
@click.option("--overwrite", is_flag=True, help="Replace files that are not as a report left them, too.")
@shows
def report(
    results: Path, truth: str | None, legend: str | None, field: str | None, output: Path | None, overwrite: bool
) -> None:
    """Write a page on RESULTS that anybody can read: map, areas, confidence, model, cautions.

    RESULTS is the folder of a run, its .json where the folder holds several, or the folder of a batch. The page holds
    all that it shows and needs no network; the same lies beside it as JSON and CSV.

    \b
    Examples:
      resegeo report scene_resegeo/
      resegeo report scene_resegeo/ --truth truth.tif --map "1=water,2=forest"
    """
    from resegeo.reports.write import write_report_page

    for path in write_report_page(
        results,
        truth=truth,
        legend=legend,
        field=field,
        output=output,
        overwrite=overwrite,
        spelling=in_flags,
    ):
        say_path(path)
