"""The few calls that read as the sentence: scene, windows, segments, features, scores, classes, outputs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from resegeo.class_file import class_list
from resegeo.errors import ResegeoError, UsageError, shown
from resegeo.files import LONGEST_PATH, name_problem, sweep
from resegeo.options import Method, Options, RunOptions, View
from resegeo.plan import Plan, make_plan, plan_outputs
from resegeo.prepare import Classes, prepare, warn
from resegeo.scene import Stretch, describe, open_scene
from resegeo.settings import SUFFIXES, Settings
from resegeo.weights import resolve_model

if TYPE_CHECKING:
    import xarray as xr

    from resegeo.estimation import Estimate
    from resegeo.execute import Progress
    from resegeo.machine import Models
    from resegeo.run import Segmentation


@overload
def segment(scene: xr.DataArray, classes: Classes, output: None = None, **options: Any) -> xr.DataArray: ...
@overload
def segment(scene: str | Path, classes: Classes, output: str | Path | None = None, **options: Any) -> Segmentation: ...
@overload
def segment(scene: xr.DataArray, classes: Classes, output: str | Path, **options: Any) -> Segmentation: ...


def segment(
    scene: str | Path | xr.DataArray,
    classes: Classes,
    output: str | Path | None = None,
    *,
    model: str | None = None,
    arch: str | None = None,
    activation: str | None = None,
    preset: str = "default",
    settings: str | Path | None = None,
    bands: Sequence[int] | None = None,
    stretch: Stretch | tuple[float, float] | None = None,
    assign_crs: str | None = None,
    aoi: str | Path | None = None,
    bbox: Sequence[float] | None = None,
    only: Sequence[str] = (),
    sam_checkpoint: str | Path | None = None,
    sam_arch: str | None = None,
    device: str | None = None,
    threads: int | None = None,
    overwrite: bool = False,
    keep_features: bool | None = None,
    discard_store: bool = False,
    store: str | None = None,
    cluster: Any = None,
    read_ahead: int = 1,
    progress: Progress | None = None,
    models: Models | None = None,
    **knobs: Any,
) -> Segmentation | xr.DataArray:
    """Segment a scene by words: what ``resegeo segment`` does.

    Parameters
    ----------
    scene:
        Path or URL of a raster, a DataArray (band, y, x) with its CRS as rioxarray keeps it, or the store
        ``….store.zarr`` of a finished run, which gets new words without a look at a pixel.
    classes:
        A class file, a :class:`ClassList`, or a list of names or of mappings as in a class file.
    output:
        Folder for the results, by default ``<stem>_resegeo``. A DataArray without ``output`` is
        answered by a DataArray.
    model, arch, activation:
        See :func:`resegeo.recipe.find_model`; the bundled model by default.
    preset, settings, **knobs:
        Fields of :class:`resegeo.settings.Settings`, from a preset, a YAML file, or by keyword.
    bands:
        The three bands to show the model as red, green, blue, counted from 1.
    stretch:
        (low, high) that become 0 and 255; by default 2nd to 98th percentile of each band (not for uint8).
    assign_crs:
        CRS for a scene that has none.
    aoi, bbox:
        Vector file with polygons, or (left, bottom, right, top) in the scene's CRS: outside is nodata and costs
        nothing, and the labels inside equal those of a run without it.
    only:
        Names of the classes to write; pixels of the others become background.
    sam_checkpoint, sam_arch:
        SAM's weights for ``segments="sam"``, and vit_h, vit_l or vit_b, which the file tells too.
    device, threads:
        Where to compute; by default CUDA or MPS if present, and all cores.
    overwrite:
        Replace the results of a run with other options; what it computed is used where it still holds.
    keep_features:
        Keep the features in the store, so that other words need no new pass; None: where they take less than 2 GB.
    discard_store:
        Remove the store at the end.
    store:
        Folder or URL (s3://…) for the store; by default the folder of the results.
    cluster:
        Number of local worker processes, the address of a ``distributed`` scheduler, or a ``distributed.Client``. A
        script that asks for local workers needs the usual ``if __name__ == "__main__":``, since they are started anew.
    read_ahead:
        Work items that are read while the model is busy with another.
    progress:
        Called with stage, steps done, steps in all.
    models:
        Models that an earlier run loaded; what is missing there is loaded and kept for the next run.

    Returns
    -------
    The paths of the results, or a DataArray (y, x) of class codes with CRS, nodata and the class names
    in ``attrs``.

    Raises
    ------
    ResegeoError:
        With one sentence that says what is wrong and how to mend it.

    """
    from resegeo.run import run_codes, run_files

    hooks: dict[str, Any] = {"progress": progress, "models": models}
    run = RunOptions(
        device=device,
        threads=threads,
        overwrite=overwrite,
        keep_features=keep_features,
        discard_store=discard_store,
        cluster=cluster,
        read_ahead=read_ahead,
        **{name: hook for name, hook in hooks.items() if hook is not None},
    )
    view = View(bands, stretch, assign_crs, aoi, bbox)
    method = Method(model, arch, activation, preset, settings, sam_checkpoint, sam_arch, knobs)
    options = Options(view, method, run, only, store)
    prepared = prepare(scene, classes, output, options)
    warn(prepared.plan)
    if prepared.job is None and not prepared.stored and cluster is not None:
        raise UsageError("cluster needs a scene that other processes can open: give a path instead of an array.")
    if not isinstance(scene, str | Path) and output is None:
        return _as_array(prepared.plan, run_codes(prepared.plan, run))
    return run_files(prepared.plan, prepared.outputs, prepared.url, prepared.job, run)


def estimate(
    scene: str | Path | xr.DataArray, classes: Classes, output: str | Path | None = None, **options: Any
) -> Estimate:
    """Say what :func:`segment` with the same arguments would need: items, memory, disk, time.

    The time is measured by computing a few windows and blocks of the scene itself; nothing is written.

    Raises
    ------
    ResegeoError:
        As :func:`segment` would.

    """
    from resegeo.estimation import estimate_run

    asked = Options.of(options)
    prepared = prepare(scene, classes, output, asked)
    warn(prepared.plan)
    return estimate_run(prepared.plan, prepared.url, asked.run)


def _as_array(plan: Plan, codes: Any) -> xr.DataArray:
    """Codes as a DataArray on the scene's grid."""
    result = plan.scene.array.isel(band=0, drop=True).copy(data=codes)
    result.name = "classes"
    result.attrs = {"classes": {spec.code: spec.name for spec in plan.classes.drawn}}
    georeference = plan.scene.georeference
    if georeference.crs is not None:
        result = result.rio.write_crs(georeference.crs)
    if georeference.transform is not None:
        result = result.rio.write_transform(georeference.transform)
    return result.rio.write_nodata(plan.classes.nodata)  # type: ignore[no-any-return]


def inspect(scene: str | Path | xr.DataArray, *, bands: Sequence[int] | None = None) -> dict[str, object]:
    """Return what ``resegeo info`` prints: facts of the scene, and what ``segment`` would do with it."""
    opened = open_scene(scene, bands=bands)
    plan = make_plan(opened, class_list(["any"]), Settings(), resolve_model())
    size = plan.geometry.image_size
    return {
        **describe(opened),
        "model": plan.source.name,
        "windows": f"{plan.grid.count} of {size} × {size} pixels, stride {plan.grid.stride}",
        "outputs": ", ".join(str(path) for path in plan_outputs(plan, None).files()),
    }


def vectorize(
    raster: str | Path,
    output: Path,
    *,
    keep_background: bool = False,
    min_area: int = 0,
    simplify: float = 0.0,
    overwrite: bool = False,
) -> Path:
    """Write the polygons of a class raster; the suffix of ``output`` is the format.

    They have a ``score_mean`` where report and store of the run that made the raster lie there as it left them.

    Raises
    ------
    ResegeoError:
        When the raster is not one of ours, the format is unknown, or ``output`` exists.

    """
    from resegeo.polygons import polygonize
    from resegeo.products import scores_of
    from resegeo.raster import read_class_raster_info
    from resegeo.vectors import open_elsewhere, parts_of, write_polygons

    if output.suffix.lower() not in SUFFIXES.values():
        raise UsageError(f"-o {output}: unknown polygon format; the suffix must be {', '.join(SUFFIXES.values())}.")
    why = name_problem(output)
    if why is not None:
        raise ResegeoError(f"{why} Name another file by -o.")
    there = next((part for part in parts_of(output) if os.path.lexists(part)), None)
    if there is not None and not overwrite:
        raise ResegeoError(
            f"{shown(there, LONGEST_PATH)} exists; pass --overwrite to replace it, or name another file by -o."
        )
    open_elsewhere(output)
    if not output.parent.is_dir():
        raise ResegeoError(f"The folder {output.parent} does not exist; create it, or name another file by -o.")
    path = Path(raster)
    if name_problem(path) is not None:
        raise ResegeoError(f"{name_problem(path)} Give the class raster a plainer name.")
    sweep(output.parent)
    classes, _ = read_class_raster_info(path)
    frame = polygonize(
        path,
        classes=classes,
        keep_background=keep_background,
        min_area=min_area,
        simplify=simplify,
        scores=scores_of(path),
    )
    write_polygons(frame, output, classes)
    return output
