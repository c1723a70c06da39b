"""The few calls that read as the sentence: scene, windows, segments, features, scores, classes, outputs."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from resegeo.canvas import Canvas, ground_sample_distance
from resegeo.classes import ClassList, class_list, load_class_list
from resegeo.errors import IgnoredSettingWarning, InputNotice, ResegeoError, ResegeoWarning, UsageError
from resegeo.features import is_store
from resegeo.plan import Job, Outputs, Plan, make_plan, plan_outputs, store_url
from resegeo.recipe import find_model
from resegeo.region import region_of
from resegeo.scene import Stretch, describe, open_scene
from resegeo.settings import LABEL_KNOBS, POLYGON_KNOBS, SUFFIXES, Settings, resolve_settings
from resegeo.weights import ModelSource, SamSource, geometry, resolve_model, resolve_sam, unknown_words

if TYPE_CHECKING:
    import xarray as xr

    from resegeo.estimation import Estimate
    from resegeo.execute import Progress
    from resegeo.machine import Models
    from resegeo.run import RunOptions, Segmentation

BUNDLED_RANGE = (0.1, 30.0)
"""Ground sample distances in metres that the bundled model was trained on."""

Classes = str | Path | ClassList | Sequence[str | Mapping[str, Any]]


class VocabularyWarning(ResegeoWarning):
    """A prompt that the bundled model was never taught."""


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
    from resegeo.run import RunOptions, run_codes, run_files

    hooks: dict[str, Any] = {"progress": progress, "models": models}
    options = RunOptions(
        device=device,
        threads=threads,
        overwrite=overwrite,
        keep_features=keep_features,
        discard_store=discard_store,
        cluster=str(cluster) if isinstance(cluster, int) else cluster,
        read_ahead=read_ahead,
        **{name: hook for name, hook in hooks.items() if hook is not None},
    )
    laid = lay(
        scene,
        classes,
        output,
        model=model,
        arch=arch,
        activation=activation,
        preset=preset,
        settings=settings,
        bands=bands,
        stretch=stretch,
        assign_crs=assign_crs,
        aoi=aoi,
        bbox=bbox,
        only=only,
        sam_checkpoint=sam_checkpoint,
        sam_arch=sam_arch,
        store=store,
        options=options,
        **knobs,
    )
    _warn(laid.plan)
    if laid.job is None and not laid.stored and cluster is not None:
        raise UsageError("cluster needs a scene that other processes can open: give a path instead of an array.")
    if not isinstance(scene, str | Path) and output is None:
        return _as_array(laid.plan, run_codes(laid.plan, options))
    return run_files(laid.plan, laid.outputs, laid.url, laid.job, options)


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
    from resegeo.run import RunOptions

    names = {field.name for field in fields(RunOptions)}
    chosen = RunOptions(
        **{key: value for key, value in options.items() if key in names and key != "cluster" and value is not None},
        cluster=None if options.get("cluster") is None else str(options["cluster"]),
    )
    rest = {key: value for key, value in options.items() if key not in names}
    laid = lay(scene, classes, output, options=chosen, **rest)
    _warn(laid.plan)
    return estimate_run(laid.plan, laid.url, chosen)


@dataclass(frozen=True)
class Laid:
    """Everything of a run but the running."""

    plan: Plan
    outputs: Outputs
    url: str
    """Of the store."""
    job: Job | None
    """The plan by reference; None for a scene in memory and for a finished store."""
    stored: bool
    """Whether the scene is a finished store."""


def lay(
    scene: str | Path | xr.DataArray,
    classes: Classes,
    output: str | Path | None = None,
    *,
    options: RunOptions,
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
    store: str | None = None,
    **knobs: Any,
) -> Laid:
    """Settle a run from what the user says; the parameters are those of :func:`segment`.

    Raises
    ------
    ResegeoError:
        With one sentence that says what is wrong and how to mend it.

    """
    wanted = _classes(classes)
    if isinstance(scene, str | Path) and is_store(str(scene)):
        url = str(scene).rstrip("/")
        fixed = {
            "--preset": preset if preset != "default" else None,
            "--settings": settings,
            "--bands": bands,
            "--stretch": stretch,
            "--assign-crs": assign_crs,
            "--aoi": aoi,
            "--bbox": bbox,
            "--sam-checkpoint": sam_checkpoint,
            "--sam-arch": sam_arch,
            "--store": store,
            "--cluster": options.cluster,
            "--keep-features": options.keep_features,
            "--discard-store": options.discard_store or None,
        }
        plan = _plan_of_store(url, wanted, (model, arch, activation), only, fixed, knobs)
        word = Path(classes).stem if isinstance(classes, str | Path) else "words"
        if output is None and "://" in url:
            raise UsageError(f"{scene} is a URL: name a folder for the results by -o.")
        folder = output if output is not None else url.rpartition("/")[0] or "."
        return Laid(plan, plan_outputs(plan, folder, name=f"{plan.scene.name}.{word}"), url, None, stored=True)
    opened = open_scene(scene, bands=bands, stretch=stretch, assign_crs=assign_crs)
    found, resolved, sam = choose(
        wanted,
        model,
        arch,
        activation,
        preset=preset,
        settings=settings,
        sam_checkpoint=sam_checkpoint,
        sam_arch=sam_arch,
        progress=options.progress,
        **knobs,
    )
    region = region_of(opened, None if aoi is None else str(aoi), bbox)
    plan = make_plan(opened, wanted, resolved, found, sam=sam, region=region, only=only)
    outputs = plan_outputs(plan, output)
    job = None
    if isinstance(scene, str | Path):
        job = Job(
            scene=_absolute(str(scene)),
            classes=wanted,
            settings=resolved,
            source=found,
            sam=sam,
            bands=None if bands is None else (bands[0], bands[1], bands[2]),
            stretch=opened.stretch,
            assign_crs=assign_crs,
            aoi=None if aoi is None else _absolute(str(aoi)),
            bbox=None if bbox is None else tuple(bbox),
        )
    return Laid(plan, outputs, store_url(plan, outputs, store), job, stored=False)


def choose(
    classes: ClassList,
    model: str | None = None,
    arch: str | None = None,
    activation: str | None = None,
    *,
    preset: str = "default",
    settings: str | Path | None = None,
    sam_checkpoint: str | Path | None = None,
    sam_arch: str | None = None,
    progress: Progress | None = None,
    **knobs: Any,
) -> tuple[ModelSource, Settings, SamSource | None]:
    """Find what :func:`segment`'s options of model and method come to, whatever the scene.

    Raises
    ------
    ResegeoError:
        With one sentence that says what is missing or does not fit.

    """
    found = find_model(model, arch, activation, progress=progress)
    attention = _fitting(classes.attention, found)
    resolved = resolve_settings(knobs, preset=preset, file=settings, attention=attention)
    return found, resolved, _sam_of(resolved, sam_checkpoint, sam_arch, knobs.get("sam_mode"), progress)


def _absolute(path: str) -> str:
    """Make a local path independent of the working folder, which workers need not share."""
    return str(Path(path).resolve()) if Path(path).exists() else path


def _plan_of_store(
    url: str,
    classes: ClassList,
    given_model: tuple[str | None, str | None, str | None],
    only: Sequence[str],
    fixed: Mapping[str, Any],
    knobs: Mapping[str, Any],
) -> Plan:
    """Lay the plan of new words over a finished store."""
    from resegeo.features import Store
    from resegeo.run import stored_channels
    from resegeo.stored import stored_scene

    store = Store.open(url)
    if store is None:
        raise ResegeoError(f"{url} is no store of resegeo, or its making was interrupted. Run `resegeo segment` again.")
    header = store.header
    given = [name for name, value in fixed.items() if value is not None]
    chosen = {key: value for key, value in knobs.items() if value is not None}
    given += ["--" + key.replace("_", "-") for key in chosen if key not in LABEL_KNOBS | POLYGON_KNOBS]
    if given:
        raise UsageError(f"{', '.join(given)}: fixed in {url} with its features; give the scene itself to change that.")
    source = header["scene"]["source"]
    if not header["finished"]:
        raise ResegeoError(
            f"{url} is not finished: {len(store.done())} of {store.items} work items are done. Run `resegeo segment "
            f"{source}` with the same options again; it continues."
        )
    wanted = header["image"]["model"]
    model, arch, activation = given_model
    stored = header["model"]
    if model is None and stored["model"] is not None:
        model, arch, activation = stored["model"], arch or stored["architecture"], activation or stored["activation"]
    found = find_model(model, arch, activation)
    if found.sha256 != wanted["sha256"]:
        raise ResegeoError(
            f"{url} was made with {wanted['name']} (sha256 {wanted['sha256'][:12]}…), not with {found.path} "
            f"(sha256 {found.sha256[:12]}…). Name that file by --model."
        )
    found = replace(found, name=wanted["name"])  # the same file, by whatever name it was found then
    resolved = resolve_settings(
        {**header["settings"], "stride": header["image"]["settings"]["stride"]} | {"overlap": None} | chosen
    )
    scene = stored_scene(header["scene"], store.array("valid"))
    canvas = Canvas(scene, header["canvas"]["down"], header["canvas"]["across"])
    plan = make_plan(scene, classes, resolved, found, only=only, canvas=canvas)
    if resolved.vote_segments and "segments" not in header["arrays"]:
        raise UsageError(f"--vote-segments needs segments, which {url} does not hold; give the scene itself.")
    if not header["features"] and stored_channels(plan, store) is None:
        raise ResegeoError(
            f"{url} holds scores of other words and no features. Words known to it: "
            f"{', '.join(texts[0] for texts in header['prompts'][:8])}…; for others run the scene with --keep-features."
        )
    return plan


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

    Raises
    ------
    ResegeoError:
        When the raster is not one of ours, the format is unknown, or ``output`` exists.

    """
    from resegeo.polygons import polygonize, write_polygons
    from resegeo.raster import read_class_raster_info

    if output.suffix.lower() not in SUFFIXES.values():
        raise UsageError(f"-o {output}: unknown polygon format; the suffix must be {', '.join(SUFFIXES.values())}.")
    if output.exists() and not overwrite:
        raise ResegeoError(f"{output} exists; pass --overwrite to replace it, or name another file by -o.")
    if not output.parent.is_dir():
        raise ResegeoError(f"The folder {output.parent} does not exist; create it, or name another file by -o.")
    classes, _ = read_class_raster_info(Path(raster))
    frame = polygonize(
        Path(raster), classes=classes, keep_background=keep_background, min_area=min_area, simplify=simplify
    )
    write_polygons(frame, output, classes)
    return output


def _classes(classes: Classes) -> ClassList:
    if isinstance(classes, ClassList):
        return classes
    return load_class_list(Path(classes)) if isinstance(classes, str | Path) else class_list(classes)


def _fitting(attention: Mapping[str, int] | None, source: ModelSource) -> Mapping[str, int] | None:
    """Return a class file's layer counts where they describe the model's depth; say so where not."""
    depth = geometry(source).depth
    if attention is None or len(attention) < 3 or sum(attention.values()) == depth:
        return attention
    counts = ", ".join(f"{name}={count}" for name, count in attention.items())
    warnings.warn(
        f"The class file's attention layers ({counts}) describe a model of {sum(attention.values())} layers; "
        f"{source.name} has {depth}, so its own schedule is used.",
        IgnoredSettingWarning,
        stacklevel=3,
    )
    return None


def _sam_of(
    settings: Settings,
    checkpoint: str | Path | None,
    architecture: str | None,
    mode: str | None,
    progress: Progress | None,
) -> SamSource | None:
    """Find SAM's checkpoint where the settings ask for SAM; say so where options of SAM are given in vain."""
    if settings.segments == "sam":
        return resolve_sam(None if checkpoint is None else str(checkpoint), architecture, progress=progress)
    if checkpoint is not None or architecture is not None or mode is not None:
        warnings.warn(
            f"SAM is not used, whatever its options say: the segments come from {settings.segments}. "
            "Pass --segments sam to use it.",
            IgnoredSettingWarning,
            stacklevel=3,
        )
    return None


def _warn(plan: Plan) -> None:
    """Say what the user should know before the first pixel."""
    for notice in plan.classes.notices:
        warnings.warn(notice, IgnoredSettingWarning, stacklevel=3)
    if plan.source.bundled:
        prompts = [text for texts in plan.classes.prompt_texts for text in texts[:1]]
        unknown = unknown_words(prompts)
        if unknown:
            quoted = ", ".join(f"'{text}'" for text in unknown)
            warnings.warn(
                f"{quoted}: outside the vocabulary of the bundled model (`resegeo classes vocabulary` lists it), so "
                "expect nonsense there. Use a word of the list, or a larger CLIP by --model.",
                VocabularyWarning,
                stacklevel=3,
            )
        own = ground_sample_distance(plan.scene)
        seen = plan.settings.gsd or (None if own is None else math.sqrt(own[0] * own[1]))
        low, high = BUNDLED_RANGE
        near = low if seen is not None and seen < low else high
        if seen is not None and not low * 0.99 <= seen <= high * 1.01:
            warnings.warn(
                f"The model sees pixels of {seen:.4g} m, and the bundled one was trained on {low:g} to {high:g} m, so "
                f"expect little of it. Pass --gsd with a value in that range, such as --gsd {near:g}.",
                InputNotice,
                stacklevel=3,
            )
