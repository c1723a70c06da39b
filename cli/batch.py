"""``resegeo batch``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from resegeo.errors import escaped

from .console import ScenesBar, in_flags, say, say_path, shows, told
from .options import BATCH, BATCH_RESULTS, REPORT, GroupedCommand, segmenting

if TYPE_CHECKING:
    from resegeo.batches.batch import BatchResult, SceneResult

LONGEST = 40
"""Scenes up to which the table has a line for each; of more it shows those that failed."""


@click.command(cls=GroupedCommand)
@click.argument("scenes", nargs=-1, required=True)
@BATCH
@BATCH_RESULTS
@REPORT
@segmenting
@shows
def batch(scenes: tuple[str, ...], prompts: str | None, output: str, report: bool, **options: Any) -> None:
    """Segment many SCENES: rasters, patterns in quotes, folders, or a manifest with options for each scene.

    A manifest is a CSV file (column scene, further columns named as options: bands, stretch, gsd, prompts, ...), a
    GeoJSON FeatureCollection or a STAC ItemCollection. The results of each scene go to a folder of its own. A scene
    that fails is noted in batch.csv and the next one follows; the same command again takes up what is missing.

    \b
    Examples:
      resegeo batch 'scenes/*.tif' --prompts classes.yml -o out/
      resegeo batch scenes.csv --prompts classes.yml -o out/
      resegeo batch 'tiles/*.tif' --prompts classes.yml -o out/ --mosaic district
    """
    from resegeo.batches.batch import segment_many

    bar = ScenesBar(quiet=click.get_current_context().obj["quiet"])
    try:
        result = segment_many(scenes, prompts, output, progress=bar, **options)
    finally:
        bar.close()
    say(_table(result))
    if report and len(result.scenes) > result.failed:
        from resegeo.reports.write import write_report_page

        say_path(write_report_page(output, spelling=in_flags)[0])
    if result.failed:
        say("Warning: scenes failed; the same command tries them again.", err=True)
        raise SystemExit(3)


def _reason(scene: SceneResult) -> str:
    """Why a scene failed, as the command line spells it; empty where it did not."""
    return scene.reason if scene.error is None else told(scene.error)


def _table(result: BatchResult) -> str:
    """A line for each scene, or of many for each that failed, and the counts."""
    scenes = result.scenes
    shown = [scene for scene in scenes if len(scenes) <= LONGEST or scene.state == "failed"]
    names = [escaped(scene.scene) for scene in shown]
    width = max(map(len, names), default=0)
    lines = [
        f"{scene.state:8}{name:{width}}  {escaped(_reason(scene) or scene.folder)}"
        for name, scene in zip(names, shown, strict=True)
    ]
    counts = ", ".join(f"{result.counts[state]} {state}" for state in ("done", "skipped", "failed"))
    return "\n".join([*lines, f"{counts}; {escaped(result.table)}"])
