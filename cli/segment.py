"""``resegeo segment``: a scene by the words of a class file."""

from __future__ import annotations

from typing import Any

import click

from .console import Bars, complain, in_flags, say, say_path, shows
from .options import REPORT, RESULTS, SegmentCommand, segmenting


@click.command(cls=SegmentCommand)
@click.argument("scene")
@RESULTS
@REPORT
@segmenting
@shows
def segment(scene: str, prompts: str | None, report: bool, **options: Any) -> None:
    """Segment SCENE by the words of a class file: class raster, polygons, picture, report.

    SCENE is a raster, or the .store.zarr of a finished run, which takes new words in seconds.

    \b
    Examples:
      resegeo segment scene.tif --prompts classes.yml
      resegeo segment scene.tif --prompts classes.yml -o out/ --stride 64 --vector gpkg,geojson
    """
    from resegeo.outputs.area_table import areas_of
    from resegeo.run.commands import segment as run

    from .tables import of_areas

    bars = Bars(quiet=click.get_current_context().obj["quiet"])
    try:
        result = run(scene, prompts, options.pop("output"), progress=bars, **options)
    finally:
        bars.close()
    if result.reused:
        complain("Note: these results are complete already; nothing was computed.")
    if not click.get_current_context().obj["quiet"]:
        say(of_areas(areas_of(result.report)), err=True)
    for path in result.files():
        say_path(path)
    if report:
        from resegeo.reports.write import write_report_page

        for path in write_report_page(result.report, spelling=in_flags):
            say_path(path)
    if result.failed:
        complain(
            f"Warning: {result.failed} windows or blocks failed (see {result.report}); pixels that nothing else covers "
            "are marked unprocessed. The same command tries them again."
        )
        raise SystemExit(3)
