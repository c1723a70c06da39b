"""The few calls that read as the sentence: scene, windows, segments, features, scores, classes, outputs."""

from __future__ import annotations

import contextlib
import json
import math
import platform
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from resegeo.canvas import ground_sample_distance
from resegeo.classes import ClassList, class_list, load_class_list
from resegeo.errors import (
    GeoreferenceWarning,
    IgnoredSettingWarning,
    InputNotice,
    ResegeoError,
    ResegeoWarning,
    UsageError,
)
from resegeo.plan import Outputs, Plan, differences, fingerprint, make_plan, plan_outputs
from resegeo.region import region_of
from resegeo.scene import Stretch, describe, open_scene
from resegeo.settings import SUFFIXES, Settings, resolve_settings
from resegeo.weights import ModelSource, SamSource, geometry, resolve_model, resolve_sam, unknown_words

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

    from resegeo.encoder import Encoder
    from resegeo.execute import Progress, WindowCounts
    from resegeo.segments import SegmentSource

BUNDLED_RANGE = (0.1, 30.0)
"""Ground sample distances in metres that the bundled model was trained on."""

Classes = str | Path | ClassList | Sequence[str | Mapping[str, Any]]


class VocabularyWarning(ResegeoWarning):
    """A prompt that the bundled model was never taught."""


@dataclass(frozen=True)
class Segmentation:
    """Paths of a finished run; ``reused`` where an equal earlier run was found and nothing computed."""

    raster: Path
    vectors: tuple[Path, ...]
    picture: Path
    report: Path
    reused: bool

    def files(self) -> tuple[Path, ...]:
        """All paths, in the order in which they are written."""
        return (self.raster, *self.vectors, self.picture, self.report)


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
    progress: Progress | None = None,
    **knobs: Any,
) -> Segmentation | xr.DataArray:
    """Segment a scene by words: what ``resegeo segment`` does.

    Parameters
    ----------
    scene:
        Path or URL of a raster, or a DataArray (band, y, x) with its CRS as rioxarray keeps it.
    classes:
        A class file, a :class:`ClassList`, or a list of names or of mappings as in a class file.
    output:
        Folder for the results, by default ``<stem>_resegeo``. A DataArray without ``output`` is
        answered by a DataArray.
    model, arch:
        See :func:`resegeo.weights.resolve_model`; the bundled model by default.
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
        Replace the results of a run with other options.
    progress:
        Called with stage, steps done, steps in all.

    Returns
    -------
    The paths of the results, or a DataArray (y, x) of class codes with CRS, nodata and the class names
    in ``attrs``.

    Raises
    ------
    ResegeoError:
        With one sentence that says what is wrong and how to mend it.

    """
    report = progress or (lambda stage, done, total: None)
    wanted = _classes(classes)
    opened = open_scene(scene, bands=bands, stretch=stretch, assign_crs=assign_crs)
    found = resolve_model(model, arch)
    attention = _fitting(wanted.attention, found)
    resolved = resolve_settings(knobs, preset=preset, file=settings, attention=attention)
    region = region_of(opened, None if aoi is None else str(aoi), bbox)
    sam = _sam_of(resolved, sam_checkpoint, sam_arch)
    plan = make_plan(opened, wanted, resolved, found, sam=sam, region=region, only=only)
    _warn(plan)
    if output is None and not isinstance(scene, str | Path):
        return _segment_array(plan, device, threads, report)
    return _segment_files(plan, plan_outputs(plan, output), device, threads, report, overwrite=overwrite)


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


def _segment_files(
    plan: Plan, outputs: Outputs, device: str | None, threads: int | None, progress: Progress, *, overwrite: bool
) -> Segmentation:
    """Run a plan into files; the report comes last and marks the run as finished."""
    from resegeo.figures import write_overlay
    from resegeo.raster import write_class_raster

    options = plan.options()
    vectors = _finished(outputs, options, overwrite=overwrite)
    if vectors is not None:
        return Segmentation(outputs.raster, vectors, outputs.picture, outputs.report, reused=True)
    drawable = _can_draw_polygons(plan)
    started, clock = datetime.now(UTC), _Clock()
    ready = _prepare(plan, device, threads, outputs.store / "tiles")
    clock.lap("model")
    with _folder(outputs), _codes(plan, ready, outputs.store, progress, clock) as run:
        pixels = write_class_raster(
            outputs.raster,
            run.blocks,
            height=plan.scene.height,
            width=plan.scene.width,
            georeference=plan.scene.georeference,
            classes=plan.classes,
            tags=_tags(options),
        )
    clock.lap("labels")
    if drawable:
        _write_polygons(plan, outputs, progress)
        clock.lap("polygons")
    progress("picture", 0, 1)
    write_overlay(outputs.picture, plan.scene, outputs.raster, plan.classes)
    progress("picture", 1, 1)
    clock.lap("picture")
    written = outputs.vectors if drawable else ()
    document = {
        "resegeo": options,
        "fingerprint": fingerprint(options),
        "versions": _versions(),
        "scene": describe(plan.scene),
        "model": run.model,
        "schedule": {
            "free": plan.schedule.free,
            "segment": plan.schedule.segment,
            "local": plan.schedule.local,
            "radius": plan.schedule.radius,
        },
        "pixels": {plan.classes.name_of(code): count for code, count in sorted(pixels.items())},
        "outputs": [path.name for path in (outputs.raster, *written, outputs.picture)],
        "windows": {"planned": plan.grid.count, "done": run.counts.done, "skipped": run.counts.skipped, "failed": 0},
        "started": started.isoformat(timespec="seconds"),
        "seconds": clock.laps,
    }
    _write_json(outputs.report, document)
    return Segmentation(outputs.raster, written, outputs.picture, outputs.report, reused=False)


def _segment_array(plan: Plan, device: str | None, threads: int | None, progress: Progress) -> xr.DataArray:
    """Run a plan and return its codes as a DataArray on the scene's grid."""
    source = plan.scene.array
    codes = np.full((plan.scene.height, plan.scene.width), plan.classes.nodata, dtype=plan.classes.dtype)
    with (
        tempfile.TemporaryDirectory(prefix="resegeo-") as folder,
        _codes(
            plan,
            _prepare(plan, device, threads, Path(folder) / "tiles"),
            Path(folder) / "store.zarr",
            progress,
            _Clock(),
        ) as run,
    ):
        for row, col, block in run.blocks:
            codes[row : row + block.shape[0], col : col + block.shape[1]] = block
    result = source.isel(band=0, drop=True).copy(data=codes)
    result.name = "classes"
    result.attrs = {"classes": {spec.code: spec.name for spec in plan.classes.drawn}}
    georeference = plan.scene.georeference
    if georeference.crs is not None:
        result = result.rio.write_crs(georeference.crs)
    if georeference.transform is not None:
        result = result.rio.write_transform(georeference.transform)
    return result.rio.write_nodata(plan.classes.nodata)  # type: ignore[no-any-return]


@dataclass
class _Run:
    """What a run yields: blocks of codes, and what can be said of the model once it is loaded."""

    blocks: Iterator[tuple[int, int, Any]]
    counts: WindowCounts
    model: dict[str, Any]


@dataclass(frozen=True)
class _Ready:
    """What is loaded and checked before anything is written."""

    encoder: Encoder
    segments: SegmentSource
    texts: NDArray[np.float32]


def _prepare(plan: Plan, device: str | None, threads: int | None, tiles: Path) -> _Ready:
    """Load the model, open the segment source and embed the words; finished SAM tiles go to the folder ``tiles``."""
    from resegeo.encoder import load_encoder, pick_device, set_threads

    set_threads(threads)
    segments = _segments(plan, pick_device(device), tiles)
    encoder = load_encoder(
        plan.source, device=device, precision=plan.settings.precision, compiled=plan.settings.compile
    )
    return _Ready(encoder, segments, encoder.encode_texts(plan.classes.prompt_texts))


def _segments(plan: Plan, device: str, tiles: Path) -> SegmentSource:
    from resegeo.segments import SamTiles, SamWindows, segment_source

    settings = plan.settings
    if plan.sam is None:
        areas = settings.superpixel_area or (16 * plan.geometry.patch_size**2,)
        return segment_source(settings.segments, plan.canvas, areas=areas)
    import torch

    from resegeo.sam import load_sam
    from resegeo.sam_masks import SamSegmenter

    half = None if settings.precision == "float32" else getattr(torch, settings.precision)
    model = load_sam(plan.sam.path, plan.sam.architecture, device=device)
    segmenter = SamSegmenter(model, settings.sam_levels, autocast=half)
    if settings.sam_mode == "exact":
        return SamWindows(segmenter)
    return SamTiles(plan.canvas, segmenter, folder=tiles)


@contextlib.contextmanager
def _codes(plan: Plan, ready: _Ready, store_path: Path, progress: Progress, clock: _Clock) -> Iterator[_Run]:
    """Encode the scene into a store and offer the labels; the store goes with the context."""
    import rasterio

    from resegeo.execute import encode_scene, label_scene, open_store

    encoder = ready.encoder
    # GDAL's block cache takes 5 % of the machine's memory unless told otherwise.
    with rasterio.Env(GDAL_CACHEMAX=64), open_store(plan, store_path) as store:
        counts = encode_scene(plan, encoder, ready.segments, ready.texts, store, progress)
        clock.lap("windows")
        if counts.done == 0:
            if plan.region is not None:
                raise ResegeoError(f"{plan.scene.source} has no valid pixel inside --aoi or --bbox.")
            raise ResegeoError(
                f"{plan.scene.source} has no valid pixel: all of it is nodata, masked or transparent. "
                "Check its nodata value with `resegeo info`."
            )
        model = {
            "name": encoder.name,
            "architecture": plan.source.architecture,
            "sha256": encoder.sha256,
            "activation": encoder.activation,
            "logit_scale": encoder.logit_scale,
            "device": encoder.device,
        }
        yield _Run(label_scene(plan, store, encoder.logit_scale, progress), counts, model)


class _Clock:
    """Seconds a stage."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self.laps[stage] = round(now - self._last, 3)
        self._last = now


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


def _sam_of(settings: Settings, checkpoint: str | Path | None, architecture: str | None) -> SamSource | None:
    """Find SAM's checkpoint where the settings ask for SAM; say so where one is named in vain."""
    if settings.segments == "sam":
        return resolve_sam(None if checkpoint is None else str(checkpoint), architecture)
    if checkpoint is not None:
        warnings.warn(
            f"--sam-checkpoint {checkpoint} is not used: the segments come from {settings.segments}. "
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


def _can_draw_polygons(plan: Plan) -> bool:
    """Whether polygons can be written; what is impossible for good is said before hours are spent."""
    georeference = plan.scene.georeference
    if not plan.settings.vector:
        return False
    if georeference.rpcs is not None and georeference.transform is None and not georeference.gcps:
        warnings.warn(
            f"{plan.scene.source} is georeferenced by RPCs alone: without an elevation model there are no polygons, "
            "the class raster keeps the RPCs.",
            GeoreferenceWarning,
            stacklevel=2,
        )
        return False
    if "geojson" in plan.settings.vector and (georeference.crs or georeference.gcps_crs) is None:
        raise ResegeoError(
            f"{plan.scene.source} has no CRS, and GeoJSON is always in EPSG:4326. Pass --assign-crs EPSG:xxxx, "
            "or choose another format by --vector gpkg."
        )
    return True


def _write_polygons(plan: Plan, outputs: Outputs, progress: Progress) -> None:
    from resegeo.polygons import polygonize, write_polygons

    settings = plan.settings
    progress("polygons", 0, len(outputs.vectors))
    frame = polygonize(
        outputs.raster,
        classes=plan.classes,
        keep_background=settings.keep_background,
        simplify=settings.simplify,
    )
    for done, path in enumerate(outputs.vectors):
        write_polygons(frame, path, plan.classes)
        progress("polygons", done + 1, len(outputs.vectors))


def _finished(outputs: Outputs, options: Mapping[str, Any], *, overwrite: bool) -> tuple[Path, ...] | None:
    """Return the polygon files of an equal run that lies there complete, else None; refuse to replace another."""
    if not outputs.report.exists() or overwrite:
        return None
    try:
        before = json.loads(outputs.report.read_text("utf-8"))
        earlier = before["resegeo"]
        written = [outputs.folder / name for name in before["outputs"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ResegeoError(
            f"{outputs.report} exists and was not written by this program. Name another folder by -o, or pass "
            "--overwrite to replace it."
        ) from error
    if earlier == options and before.get("versions", {}).get("resegeo") == _versions()["resegeo"]:
        complete = all(path.exists() for path in written)
        return tuple(path for path in written if path in outputs.vectors) if complete else None
    changed = differences(earlier, options) or ["version of resegeo"]
    raise ResegeoError(
        f"{outputs.folder} holds the results of another run; different: {', '.join(changed)}. Pass --overwrite to "
        "replace them, or name another folder by -o."
    )


@contextlib.contextmanager
def _folder(outputs: Outputs) -> Iterator[None]:
    """Create the output folder and take back the mark of an earlier run; a folder left empty goes again."""
    new = not outputs.folder.exists()
    try:
        outputs.folder.mkdir(parents=True, exist_ok=True)
        outputs.report.unlink(missing_ok=True)
        with tempfile.TemporaryFile(dir=outputs.folder):
            pass
    except OSError as error:
        raise ResegeoError(
            f"The output folder {outputs.folder} cannot be written to ({error.strerror}); name another one by -o."
        ) from error
    try:
        yield
    except BaseException:
        if new:
            with contextlib.suppress(OSError):  # not empty: what is complete stays
                outputs.folder.rmdir()
        raise


def _tags(options: Mapping[str, Any]) -> dict[str, str]:
    """Provenance for the raster's own tags; no dates, so that equal runs give equal bytes."""
    model = options["model"]
    return {
        "RESEGEO_VERSION": _versions()["resegeo"],
        "RESEGEO_SCENE": str(options["scene"]),
        "RESEGEO_MODEL": f"{model['name']} {model['architecture']} sha256:{model['sha256']}",
        "RESEGEO_SETTINGS": json.dumps(options["settings"], sort_keys=True),
    }


def _versions() -> dict[str, str]:
    import rasterio

    names = ("resegeo", "torch", "open_clip_torch", "rasterio", "scikit-image", "shapely", "numpy")
    found = {"python": platform.python_version(), "gdal": rasterio.__gdal_version__}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # run from a checkout that was never installed
            found[name] = "unknown"
    return found


def _write_json(path: Path, document: Mapping[str, Any]) -> None:
    beside = path.with_name(f".tmp-{path.name}")
    beside.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", "utf-8")
    beside.replace(path)
