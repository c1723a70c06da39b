"""Every size, path and check of a run, settled before the first pixel is read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resegeo.attention import Schedule
from resegeo.canvas import Canvas, canvas_of
from resegeo.classes import ClassList
from resegeo.errors import ResegeoError, UsageError
from resegeo.region import Region
from resegeo.scene import Scene
from resegeo.settings import SUFFIXES, Settings
from resegeo.weights import Geometry, ModelSource, SamSource, geometry
from resegeo.windows import WindowGrid, window_grid


@dataclass(frozen=True)
class Outputs:
    """Where a run writes. ``report`` is written last: it is the mark of a finished run."""

    folder: Path
    raster: Path
    picture: Path
    report: Path
    store: Path
    vectors: tuple[Path, ...]

    def files(self) -> tuple[Path, ...]:
        """Return the files of a finished run, in the order in which they are written."""
        return (self.raster, *self.vectors, self.picture, self.report)


@dataclass(frozen=True)
class Plan:
    """One run, complete: what :mod:`resegeo.execute` needs and nothing that depends on who computes."""

    scene: Scene
    canvas: Canvas
    classes: ClassList
    settings: Settings
    source: ModelSource
    geometry: Geometry
    schedule: Schedule
    grid: WindowGrid
    sam: SamSource | None = None
    """SAM's checkpoint, where the segments come from it."""
    region: Region | None = None
    only: frozenset[int] | None = None
    """Codes to write; pixels of other classes become background. None: all."""

    def options(self) -> dict[str, Any]:
        """Everything that the result depends on, as plain values."""
        return {
            "scene": self.scene.fingerprint,
            "bands": list(self.scene.bands),
            "crs": self.scene.georeference.crs.to_wkt() if self.scene.georeference.crs else None,
            "stretch": None
            if self.scene.stretch is None
            else {"low": list(self.scene.stretch.low), "high": list(self.scene.stretch.high)},
            "classes": self.classes.to_json(),
            "segment_files": _stamps(self.settings.segments),
            "sam": None if self.sam is None else self.sam.sha256,
            "region": None if self.region is None else self.region.fingerprint,
            "only": None if self.only is None else sorted(self.only),
            "settings": json.loads(json.dumps(self.settings.as_dict())),
            "model": {
                "name": self.source.name,
                "architecture": self.source.architecture,
                "sha256": self.source.sha256,
            },
        }


def make_plan(
    scene: Scene,
    classes: ClassList,
    settings: Settings,
    source: ModelSource,
    *,
    sam: SamSource | None = None,
    region: Region | None = None,
    only: Sequence[str] = (),
) -> Plan:
    """Lay the window grid over the scene and check that model, settings and scene fit together.

    Raises
    ------
    ResegeoError:
        With one sentence that says what does not fit and how to mend it.

    """
    model = geometry(source)
    canvas = canvas_of(scene, settings.gsd)
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
        only=_codes_of(classes, only) if only else None,
    )


def _codes_of(classes: ClassList, names: Sequence[str]) -> frozenset[int]:
    codes = {spec.name: spec.code for spec in classes.drawn}
    for name in names:
        if name not in codes:
            raise UsageError(f"--only {name}: there is no such class; the class file has {', '.join(codes)}.")
    return frozenset(codes[name] for name in names)


def plan_outputs(plan: Plan, folder: str | Path | None) -> Outputs:
    """Name the files of a run; by default in ``<stem>_resegeo`` in the current folder.

    Raises
    ------
    ResegeoError:
        When the folder is a file, or an output would replace the scene itself.

    """
    stem = plan.scene.name
    where = Path(folder) if folder is not None else Path(f"{stem}_resegeo")
    if where.exists() and not where.is_dir():
        raise ResegeoError(f"The output folder {where} is an existing file; name another one by -o.")
    outputs = Outputs(
        folder=where,
        raster=where / f"{stem}.classes.tif",
        picture=where / f"{stem}.png",
        report=where / f"{stem}.json",
        store=where / f".{stem}.store.zarr",
        vectors=tuple(where / f"{stem}{SUFFIXES[name]}" for name in plan.settings.vector),
    )
    for path in outputs.files():
        if path.exists() and Path(plan.scene.source).exists() and path.samefile(plan.scene.source):
            raise ResegeoError(f"The output {path} would replace the scene itself; name another folder by -o.")
    return outputs


def _stamps(segments: str) -> list[list[int]]:
    """Size and time of the files that ``--segments`` names: a changed file is another run."""
    files = [Path(segments)] if Path(segments).exists() else [Path(part) for part in segments.split(",")]
    return [[file.stat().st_size, file.stat().st_mtime_ns] for file in files if file.is_file()]


def fingerprint(options: Mapping[str, Any]) -> str:
    """Checksum of :meth:`Plan.options`, by which a finished run is recognised."""
    return hashlib.sha256(json.dumps(options, sort_keys=True).encode()).hexdigest()


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Name what changed between two :meth:`Plan.options`, settings one by one."""
    changed = [key for key in now if key != "settings" and before.get(key) != now[key]]
    old, new = before.get("settings", {}), now.get("settings", {})
    return changed + [f"{key} ({old.get(key)} → {new[key]})" for key in new if old.get(key) != new[key]]
