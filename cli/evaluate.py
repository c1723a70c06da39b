"""``resegeo evaluate``."""

from __future__ import annotations

from typing import Any

import click

from .console import Bars, say, shows
from .options import FORMATS


@click.command()
@click.argument("prediction", required=False)
@click.argument("truth", required=False)
@click.option("--pairs", metavar="FILE", help="CSV file with the columns prediction,truth: all pairs in one table.")
@click.option(
    "--map",
    "legend",
    metavar="MAP",
    help='What truth values mean: "255=road,0=background", "#3C1098=building", nonzero=road, outside=background '
    "(polygons), or a YAML file of such lines (255: road), or a data set's file such as config.yml.",
)
@click.option("--field", metavar="NAME", help="Field of the polygons that names the class.  [default: class_name]")
@click.option("--ignore-nodata", is_flag=True, help="Leave out nodata of the prediction instead of counting it missed.")
@click.option(
    "--design", is_flag=True, help="TRUTH holds the labelled points of `resegeo sample`: areas with intervals."
)
@click.option(*FORMATS[0], **FORMATS[1])
@click.option(
    "--ignore-border", metavar="LENGTH", help="Leave out what is so near to another class of the truth: 3px, 1.5m."
)
@click.option(
    "--boundary", metavar="LENGTH", help="Boundary IoU too, so far from the contours: 3px, 1.5m, 2% of the diagonal."
)
@click.option(
    "--bootstrap", type=click.IntRange(min=100), metavar="N", help="Intervals of 95 % by N samples of the images."
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of these samples.")
@click.option("--latex", is_flag=True, help="Print the tables in LaTeX, in per cent.")
@click.option("--images", metavar="FILE", help="Write the figures of each image as CSV.")
@click.option("--confusion", metavar="FILE", help="Write the confusion matrix: as CSV, or as a picture (.png).")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, the confusion matrix included.")
@shows
def evaluate(
    prediction: str | None,
    truth: str | None,
    pairs: str | None,
    design: bool,
    latex: bool,
    images: str | None,
    confusion: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Measure PREDICTION, a class raster of resegeo, by TRUTH: IoU, F1, precision, recall, accuracy, kappa.

    Both may be folders: the class rasters of a batch are matched with the truths by name.

    TRUTH is a label raster, a mask, a picture of colours, or polygons. Its values are class codes of the prediction
    unless --map says what they mean; a class raster of resegeo and polygons bring their names. Pixels whose value has
    no class are not counted. "background" means: none of the truth's classes. Nodata in the prediction counts as
    missed.

    \b
    Examples:
      resegeo evaluate out/scene.classes.tif truth.tif
      resegeo evaluate out/scene.classes.tif mask.png --map "255=road,0=background"
      resegeo evaluate out/scene.classes.tif parcels.gpkg --field crop --map outside=background
      resegeo evaluate out/ truth/ --bootstrap 1000 --images images.csv
      resegeo evaluate --pairs pairs.csv --map colours.yml --json
      resegeo evaluate out/scene.classes.tif points.gpkg --design
    """
    import json
    from pathlib import Path

    from resegeo.errors import UsageError
    from resegeo.evaluation.evaluate import evaluate as run
    from resegeo.evaluation.evaluate import read_pairs, write_confusion, write_images
    from resegeo.evaluation.folders import matched

    from .measures import latex_of, table_of

    if pairs is not None and prediction is not None:
        raise UsageError(f"--pairs {pairs} and {prediction} exclude each other; give one of them.")
    if pairs is None and (prediction is None or truth is None):
        raise UsageError("evaluate needs PREDICTION and TRUTH, or a CSV file by --pairs.")
    if design:
        others = {"latex": latex, "images": images, "confusion": confusion} | {
            name: options[name] for name in ("ignore_border", "boundary", "bootstrap")
        }
        given = [f"--{name.replace('_', '-')}" for name, value in others.items() if value]
        if given:
            raise UsageError(f"{', '.join(given)}: of maps of labels; --design judges points. Leave it out.")
        _judge(prediction, truth, options, as_json=as_json)
        return
    bars = Bars(quiet=click.get_current_context().obj["quiet"])
    try:
        if pairs is not None:
            wanted = read_pairs(pairs)
        elif any(Path(each or "").is_dir() for each in (prediction, truth)):
            wanted = matched(Path(prediction or ""), Path(truth or ""))
        else:
            wanted = [(prediction or "", truth or "")]
        result = run(wanted, progress=bars, **options)
    finally:
        bars.close()
    if confusion is not None:
        write_confusion(result, Path(confusion))
    if images is not None:
        write_images(result, Path(images))
    if latex:
        say(latex_of(result))
    else:
        say(json.dumps(result.as_dict(), indent=2, ensure_ascii=False) if as_json else table_of(result))


def _judge(prediction: str | None, truth: str | None, options: dict[str, Any], *, as_json: bool) -> None:
    """Print what a labelled sample says of a map."""
    import json
    from pathlib import Path

    from resegeo.errors import UsageError
    from resegeo.evaluation.sampling import FIELD, ClassRaster, judge

    from .tables import of_intervals

    if prediction is None or truth is None or options["legend"] is not None or options["formats"] is not None:
        raise UsageError("--design takes PREDICTION and the points of its sample, without --pairs, --map, --formats.")
    found, area = judge(ClassRaster.open(Path(prediction)), truth, field=options["field"] or FIELD)
    plain = found.as_dict(area)
    if as_json:
        say(json.dumps(plain, indent=2, ensure_ascii=False))
        return
    say(of_intervals(plain, [int(row.sum()) for row in found.counts]))
