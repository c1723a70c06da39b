"""``resegeo dataset``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from resegeo.errors import escaped

from .console import ScenesBar, complain, in_flags, say, say_path, shows, told
from .options import DATASET, DATASET_RESULTS, REPORT, GroupedCommand, segmenting

if TYPE_CHECKING:
    from resegeo.datasets.dataset import DatasetResult


@click.command(cls=GroupedCommand)
@click.argument("config")
@DATASET
@DATASET_RESULTS
@REPORT
@segmenting
@shows
def dataset(config: str, output: str | None, latex: bool, report: bool, **options: Any) -> None:
    """Segment, draw and measure a data set: CONFIG is ReSeg-CLIP's config.yml, or a data set's file of ours.

    Images lie at any depth below input.dir, each with its labels beside it (R_G_B_IR.png and L.png unless the file says
    otherwise). Each gets pred_mask.png, pred_overlay.png, gt_mask.png and gt_overlay.png; figures of all so far follow
    it, and a table of classes the last. The same command again goes on. Options go before what the file says.

    \b
    Examples:
      resegeo dataset config.yml
      resegeo dataset config.yml -o out/ --model resegeo-small --segments superpixels
      resegeo dataset config.yml --latex > table.tex
    """
    from resegeo.datasets.dataset import segment_dataset

    from . import tables

    bar = ScenesBar(quiet=click.get_current_context().obj["quiet"])
    try:
        result = segment_dataset(config, output, progress=bar, told=bar.say, **options)
    finally:
        bar.close()
    if result.accuracy is not None:
        say(tables.latex(result.accuracy) if latex else tables.of_accuracy(result.accuracy))
    if result.failed or not click.get_current_context().obj["quiet"]:
        say(_rest(result), err=True)
    if report and len(result.tiles) > result.failed:
        from resegeo.evaluation.evaluate import Evaluation
        from resegeo.reports.write import write_report_page

        found = None
        if result.accuracy is not None:
            found = Evaluation(result.accuracy, (), unlabelled=0, silent=0, ignore_nodata=False)
        say_path(write_report_page(result.folder, evaluation=found, spelling=in_flags)[0])
    if result.failed:
        complain(
            "Warning: images failed, or could not be compared with their labels; the same command tries them again."
        )
        raise SystemExit(3)


def _rest(result: DatasetResult) -> str:
    """What failed, and where everything is."""
    lines = [
        f"{escaped(tile.name)}: {tile.reason if tile.error is None else told(tile.error)}"
        for tile in result.tiles
        if tile.reason
    ]
    compared = sum(tile.accuracy is not None for tile in result.tiles)
    counts = f"{len(result.tiles):,} images, {compared:,} compared with labels, {result.failed:,} failed"
    return "\n".join([*lines, f"{counts}; {escaped(result.table)}, pictures in {escaped(result.pictures)}"])
