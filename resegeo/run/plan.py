"""Every size, path and check of a run, settled before the first pixel is read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from affine import Affine

from resegeo.checkpoints.sources import Geometry, ModelSource, SamSource, geometry, identity, resolve_model
from resegeo.classes.class_list import ClassList
from resegeo.classes.merging import Merged
from resegeo.clip.attention import Schedule
from resegeo.declare import declared
from resegeo.errors import ResegeoError, UsageError
from resegeo.files import is_file, is_there, name_problem, output_folder
from resegeo.outputs.vector_files import layer_files
from resegeo.run.header import Arithmetic, Kept, Layout
from resegeo.run.options import View
from resegeo.scene import windows
from resegeo.scene.fingerprint import stamp
from resegeo.scene.reader import Scene, open_scene
from resegeo.scene.region import Region, region_of, transform_of
from resegeo.scene.resampling import Canvas, canvas_of, ground_sample_distance
from resegeo.scene.source import GeoReference
from resegeo.scene.windows import Rect, WindowGrid, window_grid
from resegeo.settings import LABEL_KNOBS, POLYGON_KNOBS, SUFFIXES, Settings

if TYPE_CHECKING:
    import xarray as xr

    from resegeo.run.correction import Correction

FEATURE_BUDGET = 2e9
"""Bytes up to which features are kept without being asked for."""


@dataclass(frozen=True)
class Outputs:
    """Where a run writes. ``report`` is written last: it is the mark of a finished run."""

    folder: Path
    raster: Path
    picture: Path
    areas: Path
    report: Path
    vectors: tuple[Path, ...]
    fitted: Path
    """What examples come to; written where the run has some of its own."""
    scores: tuple[Path, ...]
    """Scores of all classes, and confidence; written where they are asked for."""
    project: Path
    """For QGIS."""
    item: Path
    """Of STAC."""

    @property
    def companions(self) -> tuple[Path, ...]:
        """What is written for other programs, after the results that it tells of."""
        return (self.project, self.item)

    @property
    def beside(self) -> tuple[Path, ...]:
        """What a run writes only where it is asked for."""
        return (self.fitted, *self.scores)

    def files(self) -> tuple[Path, ...]:
        """Return the files of a finished run, in the order in which they are written."""
        return (self.raster, *self.vectors, self.picture, self.areas, *self.companions, self.report)


@dataclass(frozen=True)
class Job:
    """One scene to segment, by reference: what another process needs to lay the same plan."""

    scene: str
    classes: ClassList
    settings: Settings
    source: ModelSource
    sam: SamSource | None = None
    view: View = field(default_factory=View)


@dataclass(frozen=True)
class Plan:
    """One run, complete: what :mod:`resegeo.run.executors` needs and nothing that depends on who computes."""

    scene: Scene
    canvas: Canvas
    classes: ClassList
    settings: Settings
    """With lengths and areas in pixels."""
    source: ModelSource
    geometry: Geometry
    schedule: Schedule
    grid: WindowGrid
    sam: SamSource | None = None
    """SAM's checkpoint, where the segments come from it."""
    region: Region | None = None
    only: frozenset[int] | None = None
    """Codes to write; pixels of other classes become background. None: all."""
    made_with: Mapping[str, Any] | None = None
    """Over a finished store: the :meth:`image_options` of the run that made it, none of which need be at hand now."""
    correction: Correction | None = None
    """Examples that correct the words."""
    scores: bool = False
    """Whether the scores of all classes are written."""
    merge: Merged | None = None
    """Classes that the map shows as one."""
    crop: Rect | None = None
    """The part of the scene that results show; None: all of it."""
    aoi: str | None = None
    """Checksum of the region inside a finished store; of labels that lie there already it may be all that is known."""
    in_place: bool = False
    """Whether the results of a finished run are shown in another way, in their place."""
    sources: Mapping[str, Any] = field(default_factory=dict)
    """Identity of segment files and model as it was when the plan was made; files may change while a run lasts."""

    def image_options(self) -> dict[str, Any]:
        """Everything that the image side depends on, as plain values: free of words, and of what follows scoring."""
        if self.made_with is not None:
            return dict(self.made_with)
        settings = self.settings.as_dict()
        knobs = {name: settings[name] for name in settings if name not in LABEL_KNOBS | POLYGON_KNOBS}
        # What counts is what they come to.
        for name in ("overlap", "free_layers", "segment_layers", "local_layers"):
            del knobs[name]
        if self.settings.segments != "sam":
            del knobs["sam_mode"], knobs["sam_levels"]
        schedule = self.schedule
        crs = self.scene.georeference.crs or self.scene.georeference.gcps_crs
        return _plain(
            {
                "scene": self.scene.fingerprint,
                "scene_files": self.scene.stamp,
                "bands": self.scene.bands,
                "crs": None if crs is None else crs.to_wkt(),
                "stretch": None
                if self.scene.stretch is None
                else {"low": self.scene.stretch.low, "high": self.scene.stretch.high},
                "segment_files": self.sources["segment_files"],
                "sam": None if self.sam is None else self.sam.sha256,
                "region": None if self.region is None else self.region.fingerprint,
                "settings": knobs
                | {"stride": self.grid.stride}
                | ({"padding": "has segments"} if self.settings.padding_has_segments else {}),
                "schedule": [schedule.free, schedule.segment, schedule.local, schedule.radius],
                "model": {"name": self.source.name, **self.sources["model"]},
            }
        )

    def refuse_changes(self) -> None:
        """See that scene, segment files and model are still those that the plan was made for.

        Raises
        ------
        ResegeoError:
            When one of them was replaced or edited meanwhile.

        """
        if self.made_with is not None:
            return
        changed = [] if self.scene.is_unchanged() else [self.scene.source]
        now = _sources(self.settings, self.source)
        changed += [self.settings.segments] if now["segment_files"] != self.sources["segment_files"] else []
        changed += [f"the configuration of {self.source.name}"] if now["model"] != self.sources["model"] else []
        if changed:
            raise ResegeoError(
                f"{' and '.join(changed)} changed while this run read it: what was computed meanwhile does not count. "
                "Run the same command again with [[overwrite=True]] once nothing writes there any more."
            )

    def label_options(self) -> dict[str, Any]:
        """Everything beyond the image side that the class raster depends on."""
        settings = self.settings.as_dict()
        asked: dict[str, Any] = {} if self.correction is None else {"examples": self.correction.facts()}
        asked |= {"scores": True} if self.scores else {}
        asked |= {} if self.merge is None else {"merge": self.merge.facts()}
        asked |= {} if self.aoi is None else {"aoi": self.aoi}
        if self.crop is not None:
            asked["crop"] = [self.crop.row, self.crop.col, self.crop.height, self.crop.width]
        return _plain(
            asked
            | {
                "classes": self.classes.to_json(),
                "only": None if self.only is None else sorted(self.only),
                "settings": {name: settings[name] for name in sorted(LABEL_KNOBS) if name in settings},
            }
        )

    def options(self) -> dict[str, Any]:
        """Everything that the result depends on, as plain values."""
        image, labels = self.image_options(), self.label_options()
        return image | labels | {"settings": _plain(self.settings.as_dict())}

    @property
    def legend(self) -> ClassList:
        """The classes as the map shows them."""
        return self.classes if self.merge is None else self.merge.classes

    @property
    def frame(self) -> Rect:
        """The part of the scene that results show, in its pixels."""
        return self.crop or Rect(0, 0, self.scene.height, self.scene.width)

    @property
    def georeference(self) -> GeoReference:
        """Where results lie."""
        own = self.scene.georeference
        if self.crop is None:
            return own
        shifted = transform_of(self.scene, "crop") @ Affine.translation(self.crop.col, self.crop.row)
        return GeoReference(own.crs, shifted)

    def beside(self, outputs: Outputs) -> tuple[Path, ...]:
        """Return what the run writes beside raster, polygons and picture."""
        fitted = (outputs.fitted,) if self.correction is not None and self.correction.kind == "places" else ()
        return (*fitted, *(outputs.scores if self.scores else ()))

    @property
    def min_area(self) -> int:
        """Smallest area to be mapped, in pixels."""
        return int(self.settings.min_area)

    @property
    def simplify(self) -> float:
        """Tolerance of the simplification of borders, in pixels."""
        return float(self.settings.simplify)

    @property
    def items(self) -> int:
        """Number of work items."""
        down, across = self.grid.item_shape
        return down * across

    def kept(self, *, features: bool) -> Kept:
        """Say what a new store for this plan keeps."""
        prompts = None if features else self.classes.prompt_texts
        return Kept(prompts, self.settings.vote_segments, Arithmetic(self.settings.precision))

    def layout(self, kept: Kept) -> Layout:
        """Return the sizes from which the arrays of a store follow."""
        return Layout(
            items=self.items,
            windows=windows.ITEM_SIDE**2,
            grid=self.geometry.grid,
            side=self.geometry.image_size,
            dimension=self.geometry.dimension,
            dtype=self.settings.feature_dtype,
            prompts=None if kept.prompts is None else len(kept.prompts),
            segments=kept.segments,
            height=self.scene.height,
            width=self.scene.width,
        )

    def feature_bytes(self) -> int:
        """Size of all features, were they kept."""
        return self.layout(Kept(None, segments=False)).item_bytes

    def score_bytes(self) -> int:
        """Size of the patch scores of all windows."""
        return self.layout(Kept(self.classes.prompt_texts, segments=False)).item_bytes

    def kept_bytes(self, kept: Kept) -> int:
        """Size of the store at most; with the scores of pixels that polygons take."""
        return self.layout(kept).bytes(scores=bool(self.settings.vector))

    def keeps_features(self, *, keep: bool | None, discard: bool) -> bool:
        """Whether a new store keeps features: as asked for, else where they are small and the store stays."""
        if keep is not None or self.correction is not None:  # examples are fitted on features
            return keep is not False
        return not discard and self.feature_bytes() <= FEATURE_BUDGET


def _plain(value: dict[str, Any]) -> dict[str, Any]:
    """Bring a value to what JSON gives back."""
    plain: dict[str, Any] = json.loads(json.dumps(value))
    return plain


def look_at(scene: str | Path | xr.DataArray, view: View) -> Scene:
    """Open a scene as it is to be looked at; see :func:`resegeo.open_scene`."""
    asked = {name: getattr(view, name) for name in declared(View) if name not in ("aoi", "bbox")}
    return open_scene(scene, **{name: value for name, value in asked.items() if value is not None})


def plan_job(job: Job) -> Plan:
    """Open what a job names and lay its plan, in whatever process.

    Raises
    ------
    ResegeoError:
        With one sentence that says what does not fit and how to mend it.

    """
    scene = look_at(job.scene, job.view)
    bundled = resolve_model()  # lies where the package is installed, which may be elsewhere here
    source = bundled if bundled.sha256 == job.source.sha256 else job.source
    region = region_of(scene, None if job.view.aoi is None else str(job.view.aoi), job.view.bbox)
    return make_plan(scene, job.classes, job.settings, source, sam=job.sam, region=region)


def make_plan(
    scene: Scene,
    classes: ClassList,
    settings: Settings,
    source: ModelSource,
    *,
    sam: SamSource | None = None,
    region: Region | None = None,
    only: Sequence[str] = (),
    canvas: Canvas | None = None,
    made_with: Mapping[str, Any] | None = None,
    correction: Correction | None = None,
    scores: bool = False,
    merge: Merged | None = None,
    crop: Rect | None = None,
) -> Plan:
    """Lay the window grid over the scene and check that model, settings and scene fit together.

    ``canvas`` is given where it is known already; by default it follows from the settings. ``made_with`` is for a
    finished store, see :class:`Plan`.

    Raises
    ------
    ResegeoError:
        With one sentence that says what does not fit and how to mend it.

    """
    model = geometry(source)
    canvas = canvas or canvas_of(scene, settings.gsd, settings.resize)
    settings = settings.in_pixels(ground_sample_distance(scene))
    legend = classes if merge is None else merge.classes
    legend.codes_of(settings.regularize, "regularize")
    return Plan(
        scene=scene,
        canvas=canvas,
        classes=classes,
        settings=settings,
        source=source,
        geometry=model,
        schedule=settings.schedule(model.depth),
        grid=window_grid(
            canvas.height,
            canvas.width,
            window=model.image_size,
            stride=settings.step(model.image_size),
            overhang=settings.edge == "overhang",
        ),
        sam=sam,
        region=region,
        only=legend.codes_of(only, "only") if only else None,
        made_with=made_with,
        correction=correction,
        scores=scores,
        merge=merge,
        crop=crop,
        aoi=None if region is None or made_with is None else region.fingerprint,  # else it is one of the image side
        sources={} if made_with is not None else _sources(settings, source),
    )


def store_url(plan: Plan, outputs: Outputs, where: str | None = None) -> str:
    """Path or URL of the store: in the output folder, or with ``where`` (a folder or URL) in that.

    Raises
    ------
    UsageError:
        When ``where`` is empty, or of an unknown protocol.
    ResegeoError:
        When it is a file, or the package for its protocol is not installed.

    """
    name = f"{plan.scene.name}.store.zarr"
    if where is not None and not where.strip("/ "):
        raise UsageError(
            f"[[store={where!r}]] is no place for a store; name a folder or a URL such as s3://bucket/work."
        )
    if where is not None and is_file(where):
        raise ResegeoError(f"[[store={where}]] is an existing file; name a folder or a URL.")
    if where is not None and "://" in where:
        _protocol(where)
    elif where is not None and name_problem(Path(where)) is not None:
        raise ResegeoError(f"{name_problem(Path(where))} Name another folder by [[store]].")
    return str(outputs.folder / name) if where is None else f"{where.rstrip('/')}/{name}"


def _protocol(where: str) -> None:
    """See that fsspec has a way to a URL; see :class:`ResegeoError`."""
    import fsspec

    protocol = where.partition("://")[0]
    try:
        fsspec.get_filesystem_class(protocol)
    except ValueError as error:
        raise UsageError(
            f"[[store={where}]]: there is no protocol {protocol!r}; name a folder, or a URL such as s3://bucket/work."
        ) from error
    except ImportError as error:
        raise ResegeoError(f"[[store={where}]] needs a package that is not installed ({error}).") from error


def plan_outputs(plan: Plan, folder: str | Path | None, *, name: str | None = None) -> Outputs:
    """Name the files of a run; by default in ``<stem>_resegeo`` in the current folder.

    ``name`` stands in for the scene's stem in the files' names.

    Raises
    ------
    UsageError:
        When the folder's name is empty.
    ResegeoError:
        When the folder is a file, or below one.

    """
    stem = name or plan.scene.name
    where = output_folder(f"{plan.scene.name}_resegeo" if folder is None else folder)
    return Outputs(
        folder=where,
        raster=where / f"{stem}.classes.tif",
        picture=where / f"{stem}.png",
        areas=where / f"{stem}.areas.csv",
        report=where / f"{stem}.json",
        fitted=where / f"{stem}.fitted.safetensors",
        scores=(where / f"{stem}.scores.tif", where / f"{stem}.confidence.tif"),
        project=where / f"{stem}.qgz",
        item=where / f"{stem}.stac.json",
        vectors=tuple(
            path
            for name in plan.settings.vector
            for path in layer_files(where / f"{stem}{SUFFIXES[name]}", regularized=bool(plan.settings.regularize))
        ),
    )


def _segment_stamp(segments: str) -> str | None:
    """Stamp of the files that ``segments`` names: a changed file is another run."""
    files = [segments] if is_there(segments) else segments.split(",")
    beside = [str(Path(file).with_suffix(".prj")) for file in files if file.lower().endswith(".shp")]
    return stamp([*files, *beside])


def _sources(settings: Settings, source: ModelSource) -> dict[str, Any]:
    """Identity of segment files and model as they lie there now."""
    return _plain({"segment_files": _segment_stamp(settings.segments), "model": identity(source)})


def fingerprint(options: Mapping[str, Any]) -> str:
    """Checksum of :meth:`Plan.options`, by which a finished run is recognised."""
    return hashlib.sha256(json.dumps(options, sort_keys=True).encode()).hexdigest()


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Name what changed between two :meth:`Plan.options`, settings one by one."""
    changed = [key for key in dict.fromkeys([*now, *before]) if key != "settings" and before.get(key) != now.get(key)]
    old, new = before.get("settings", {}), now.get("settings", {})
    return changed + [
        f"{key} ({_said(old.get(key))} → {_said(new.get(key))})"
        for key in dict.fromkeys([*new, *old])
        if old.get(key) != new.get(key)
    ]


def _said(value: Any) -> Any:
    return "default" if value is None else value
