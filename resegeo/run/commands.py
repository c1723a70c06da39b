"""The few calls that read as the sentence: scene, windows, segments, features, scores, classes, outputs."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, Protocol, TypeVar, overload

from resegeo.checkpoints.sources import resolve_model
from resegeo.classes.class_file import class_list
from resegeo.declare import declared, taken
from resegeo.errors import ResegeoError, UsageError, shown
from resegeo.files import LONGEST_PATH, is_folder, name_problem, sweep
from resegeo.process import undisturbed
from resegeo.run.options import Keywords, Options, View, documented
from resegeo.run.plan import look_at, make_plan, plan_outputs
from resegeo.run.prepare import Classes, Run, settle, warn
from resegeo.scene.formats import heard
from resegeo.scene.reader import describe
from resegeo.scene.resampling import ground_sample_distance
from resegeo.settings import SUFFIXES, Settings

if TYPE_CHECKING:
    import xarray as xr

    from resegeo.run.estimation import Estimate
    from resegeo.run.segmentation import Segmentation

P = ParamSpec("P")
R_co = TypeVar("R_co", covariant=True)


class Segments(Protocol[P]):
    """How :func:`segment` is called: its keywords are the fields of :class:`resegeo.run.options.Keywords`."""

    @overload
    def __call__(
        self, scene: xr.DataArray, classes: Classes, output: None = None, *args: P.args, **options: P.kwargs
    ) -> xr.DataArray: ...
    @overload
    def __call__(
        self, scene: xr.DataArray, classes: Classes, output: str | Path, *args: P.args, **options: P.kwargs
    ) -> Segmentation: ...
    @overload
    def __call__(
        self,
        scene: str | Path,
        classes: Classes | None = None,
        output: str | Path | None = None,
        *args: P.args,
        **options: P.kwargs,
    ) -> Segmentation: ...


class Prepares(Protocol[P, R_co]):
    """How a function with the parameters of :func:`segment` is called."""

    def __call__(
        self,
        scene: str | Path | xr.DataArray,
        classes: Classes | None = None,
        output: str | Path | None = None,
        *args: P.args,
        **options: P.kwargs,
    ) -> R_co:
        """Return what the function does."""
        ...


def _segments(keywords: Callable[P, object]) -> Callable[[Callable[..., Any]], Segments[P]]:
    return lambda function: documented(function)


def _prepares(
    keywords: Callable[P, object],
) -> Callable[[Callable[..., R_co]], Prepares[P, R_co]]:
    return lambda function: documented(function)


@_segments(Keywords)
def segment(
    scene: str | Path | xr.DataArray, classes: Classes | None = None, output: str | Path | None = None, **options: Any
) -> Segmentation | xr.DataArray:
    """Segment a scene by words: what ``resegeo segment`` does.

    Options are taken as the command line takes them too: ``vector="gpkg"``, ``stretch="0:255"``.

    Parameters
    ----------
    scene:
        Path or URL of a raster, a DataArray (band, y, x) with its CRS as rioxarray keeps it, or the store
        ``….store.zarr`` of a finished run, which gets new words without a look at a pixel.
    classes:
        A class file, a :class:`ClassList`, or a list of names or of mappings as in a class file. None with a store: its
        finished run is shown in another way, in its place, as ``merge``, ``colors``, ``aoi`` or ``crop`` say.
    output:
        Folder for the results, by default ``<stem>_resegeo``. A DataArray without ``output`` is
        answered by a DataArray.
    **options:
        See :class:`resegeo.run.options.Keywords`. A script that asks for local workers by ``cluster`` needs the usual
        ``if __name__ == "__main__":``, since they are started anew.

    Returns
    -------
    The paths of the results, or a DataArray (y, x) of class codes with CRS, nodata and what they
    mean as CF attributes, see :func:`resegeo.run.segmentation.flags`.

    Raises
    ------
    ResegeoError:
        With one sentence that says what is wrong and how to mend it.

    """
    return prepare(scene, classes, output, **options).execute()


@_prepares(Keywords)
def prepare(
    scene: str | Path | xr.DataArray, classes: Classes | None = None, output: str | Path | None = None, **options: Any
) -> Run:
    """Settle all of a run but the running; the parameters are those of :func:`segment`. Writes nothing.

    Parameters
    ----------
    scene, classes, output:
        As for :func:`segment`.
    **options:
        See :class:`resegeo.run.options.Keywords`.

    Returns
    -------
    The run: ``run.estimate()``, ``run.execute()``, ``run.outputs``.

    Raises
    ------
    ResegeoError:
        With one sentence that says what is wrong and how to mend it.

    """
    with undisturbed():
        run = settle(scene, classes, output, Options.of(options))
        warn(run.plan)
    return run


@_prepares(Keywords)
def estimate(
    scene: str | Path | xr.DataArray, classes: Classes | None = None, output: str | Path | None = None, **options: Any
) -> Estimate:
    """Say what :func:`segment` with the same arguments would need: items, memory, disk, time.

    The time is measured by computing a few windows and blocks of the scene itself; nothing is written.

    Parameters
    ----------
    scene, classes, output:
        As for :func:`segment`.
    **options:
        See :class:`resegeo.run.options.Keywords`.

    Raises
    ------
    ResegeoError:
        As :func:`segment` would.

    """
    return prepare(scene, classes, output, **options).estimate()


@heard
def info(
    scene: str | Path | xr.DataArray,
    *,
    bands: Sequence[int] | None = None,
    formats: Sequence[str] | None = None,
    alpha: Literal["auto", "ignore", "use"] | None = None,
) -> dict[str, object]:
    """Return what ``resegeo info`` prints: facts of the scene, and what ``segment`` would do with it."""
    from resegeo.run.results import smallest_worth

    opened = look_at(scene, View(bands=bands, formats=formats, alpha=alpha))
    least, text = smallest_worth(ground_sample_distance(opened))
    plan = make_plan(opened, class_list(["any"]), Settings(), resolve_model())
    size = plan.geometry.image_size
    return {
        **describe(opened),
        "model": plan.source.name,
        "windows": f"{plan.grid.count} of {size} × {size} pixels, stride {plan.grid.stride}",
        "min_area": f"{text} ({least:,} pixels) is a good start" if text.endswith("m2") else f"{text} is a good start",
        "outputs": ", ".join(str(path) for path in plan_outputs(plan, None).files()),
    }


@heard
def vectorize(
    raster: str | Path,
    output: str | Path,
    *,
    keep_background: bool = False,
    min_area: int | str = 0,
    smooth: bool = False,
    simplify: float | str = 0.0,
    regularize: Sequence[str] = (),
    overwrite: bool = False,
    append: bool = False,
) -> Path:
    """Write the polygons of a class raster; the suffix of ``output`` is the format.

    With ``regularize``, names of classes, right-angled outlines of these lie in a layer of their own, or, in formats of
    one layer, in a file of their own, ``….regularized.shp``.

    They have a ``score_mean`` where report and store of the run that made the raster lie there as it left them. With
    ``append`` they join those of other scenes in a GeoPackage, see
    :func:`resegeo.outputs.collecting.append_polygons`; ``overwrite`` replaces those of the same scene then.

    Raises
    ------
    ResegeoError:
        When the raster is not one of ours, the format is unknown, or ``output`` exists or, with ``append``, holds the
        scene already.

    """
    from resegeo.outputs.collecting import append_polygons, refuse_collecting
    from resegeo.outputs.polygons import draw
    from resegeo.outputs.raster import read_class_raster_info
    from resegeo.outputs.vector_files import STYLES, layer_files, open_elsewhere, parts_of
    from resegeo.outputs.vectors import foreign_style, write_polygons
    from resegeo.run.results import scene_of, scores_of

    output = Path(output)
    known = declared(Settings)
    min_area, simplify = taken(known["min_area"], min_area), taken(known["simplify"], simplify)
    regularize = taken(known["regularize"], regularize)
    if output.suffix.lower() not in SUFFIXES.values():
        raise UsageError(
            f"[[output={shown(output)}]]: unknown polygon format; the suffix must be {', '.join(SUFFIXES.values())}."
        )
    if append:
        refuse_collecting(output, option="output")
    why = name_problem(output)
    if why is not None:
        raise ResegeoError(f"{why} Name another file by [[output]].")
    files = layer_files(output, regularized=bool(regularize))
    parts = (part for path in files for part in parts_of(path) if part.suffix not in STYLES)
    _refuse_existing(next((part for part in parts if os.path.lexists(part)), None), overwrite=overwrite or append)
    open_elsewhere(output)
    if not is_folder(output.parent):
        raise ResegeoError(
            f"The folder {shown(output.parent)} does not exist; create it, or name another file by [[output]]."
        )
    path = Path(raster)
    if name_problem(path) is not None:
        raise ResegeoError(f"{name_problem(path)} Give the class raster a plainer name.")
    sweep(output.parent)
    classes, _ = read_class_raster_info(path)
    drawing = draw(
        path,
        classes=classes,
        keep_background=keep_background,
        min_area=min_area,
        smooth=smooth,
        simplify=simplify,
        regularize=regularize,
        scores=scores_of(path),
        scene=scene_of(path),
    )
    if append:
        append_polygons(drawing, output, overwrite=overwrite)
        return output
    shapes = dict(zip(files, (drawing, drawing.regularized or drawing), strict=False))
    for file, polygons in shapes.items():
        _refuse_existing(foreign_style(polygons, file, classes), overwrite=overwrite)
    for file, polygons in shapes.items():
        write_polygons(polygons, file, classes)
    return output


def _refuse_existing(there: Path | None, *, overwrite: bool) -> None:
    if there is not None and not overwrite:
        raise ResegeoError(
            f"{shown(there, LONGEST_PATH)} exists; pass [[overwrite=True]] to replace it, or name another file by "
            "[[output]]."
        )
