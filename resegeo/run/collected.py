"""Polygons of finished runs, drawn as these drew them, in one layer with those of other scenes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from resegeo.errors import ResegeoError
from resegeo.outputs.collecting import collection
from resegeo.outputs.polygons import Drawing, draw
from resegeo.run.report import earlier_report
from resegeo.run.results import scene_of, scores_of
from resegeo.settings import POLYGON_KNOBS, Settings


def collect(report: Path, path: Path, *, overwrite: bool = False) -> None:
    """Add the polygons of a finished run to a collecting file; what is there already just so is left.

    Parameters
    ----------
    report:
        Of the run.
    path:
        The GeoPackage.
    overwrite:
        Whether other polygons of the same scene are replaced.

    Raises
    ------
    ResegeoError:
        See :func:`resegeo.outputs.collecting.collection`.

    """
    for error in collect_many([(report, None)], path, overwrite=overwrite):
        if error is not None:
            raise error


def collect_many(
    runs: Iterable[tuple[Path, str | None]], path: Path, *, overwrite: bool = False
) -> list[ResegeoError | None]:
    """Do as :func:`collect` for several runs at once, each with the name of its scene, by default its own.

    Returns
    -------
    For each run why it was not added; the others are.

    """
    found: list[ResegeoError | None] = []
    with collection(path) as collected:
        for report, scene in runs:
            try:
                collected.add(drawn_again(report, scene), overwrite=overwrite, again=True)
                found.append(None)
            except ResegeoError as error:
                found.append(error)
    return found


def drawn_again(report: Path, scene: str | None = None) -> Drawing:
    """Draw the polygons of a finished run as it did.

    Parameters
    ----------
    report:
        Of the run.
    scene:
        What their field ``scene`` says; by default the scene's name.

    Raises
    ------
    ResegeoError:
        When report or class raster are not there any more.

    """
    said = earlier_report(report)
    if not said:
        raise ResegeoError(f"{report} is gone, or no report of a finished run; run segment again.")
    raster = report.with_name(said["outputs"][0])
    knobs = {name: value for name, value in said["resegeo"]["settings"].items() if name in POLYGON_KNOBS}
    settings = Settings(**knobs)
    return draw(
        raster,
        keep_background=settings.keep_background,
        smooth=settings.smooth,
        simplify=settings.simplify,
        regularize=settings.regularize,
        scores=scores_of(raster),
        scene=scene_of(raster) if scene is None else scene,
    )
