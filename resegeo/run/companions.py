"""What lies beside the results of a run for other programs: a project for QGIS and a STAC item."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from resegeo.classes.class_list import ClassList
from resegeo.clip.blending import NO_SCORE, SCORE_STEPS
from resegeo.files import Note, is_there, saving, whole
from resegeo.outputs.area_table import ClassArea
from resegeo.outputs.qgis_project import Layer, write_project
from resegeo.outputs.stac import stac_item
from resegeo.outputs.vector_files import layer_name, regularized_file, regularized_layer
from resegeo.run.plan import Outputs, Plan
from resegeo.run.report import Mark
from resegeo.scene.resampling import pixel_on_the_ground
from resegeo.settings import SUFFIXES

_ASSETS = {
    ".classes.tif": ("classes", "classes of all pixels"),
    ".classes.qml": ("style", "style of the classes for QGIS"),
    ".classes.tif.aux.xml": ("classes_table", "attribute table of the classes for GDAL"),
    ".scores.tif": ("scores", "scores of all classes"),
    ".confidence.tif": ("confidence", "best score, second class, margin"),
    ".fitted.safetensors": ("fitted", "what the examples came to"),
    ".areas.csv": ("areas", "ground that each class covers"),
    ".png": ("picture", "a picture of scene and classes"),
    ".qgz": ("project", "project for QGIS"),
    **{
        f"{file}{suffix}": (f"{key}{'' if suffix == '.gpkg' else suffix.replace('.', '_')}", title)
        for suffix in SUFFIXES.values()
        for file, key, title in (
            ("", "polygons", "polygons of the classes"),
            (".regularized", "regularized", "right-angled outlines"),
        )
    },
}
"""By ending: key and title in the item. The longest ending that fits counts."""


def write_companions(
    plan: Plan,
    outputs: Outputs,
    vectors: Sequence[Path],
    covered: Iterable[ClassArea],
    marks: Mapping[str, Mark],
    note: Note | None = None,
) -> None:
    """Write the project and the item of results that lie there already.

    Parameters
    ----------
    plan, outputs:
        The run and its files.
    vectors:
        The polygon files that were written; the project shows the first.
    covered:
        What each class covers, for the project's legend.
    marks:
        Sizes and checksums of the results, by name of file, for the item.
    note:
        Told of each file before it gets its name.

    Raises
    ------
    ResegeoError:
        When they cannot be written.

    """
    where, frame = plan.georeference, plan.frame
    crs = where.crs or where.gcps_crs
    left, bottom, right, top = _extent(plan)
    layers = [Layer("classes", str(outputs.raster), "classes", visible=not vectors)]
    for path in vectors[:1]:
        layer = layer_name(path.stem) if path.suffix == ".gpkg" else None
        layers.insert(0, Layer("polygons", str(path), "polygons", layer))
        if plan.settings.regularize:
            file = path if layer else regularized_file(path)
            its_layer = regularized_layer(layer) if layer else None
            layers.insert(0, Layer("right-angled outlines", str(file), "polygons", its_layer, visible=False))
    source = _scene(plan.scene.source)
    if source is not None:
        scene, own = plan.scene, None
        # Bytes in their usual order, and one band of them, QGIS shows as they are, with their alpha band or palette.
        if scene.palette is None and (scene.stretch is not None or scene.bands not in ((1, 2, 3), (1, 1, 1))):
            own = scene.bands
        stretch = None if scene.stretch is None else (scene.stretch.low, scene.stretch.high)
        layers.append(Layer("scene", source, "scene", bands=own, stretch=stretch))
    codes = {plan.legend.name_of(code): code for code in (0, *(spec.code for spec in plan.legend.drawn))}
    there = {codes[row.class_name]: row for row in covered if row.class_name in codes and row.pixels}
    with saving(outputs.project):
        write_project(
            outputs.project,
            layers,
            plan.legend,
            crs=crs,
            extent=(left, bottom, right, top),
            title=outputs.raster.name.removesuffix(".classes.tif"),
            areas={code: "" if row.ha is None else f"{row.ha:,.2f} ha" for code, row in there.items()},
            note=note,
        )
    item = stac_item(
        outputs.raster.name.removesuffix(".classes.tif"),
        classes=plan.legend,
        crs=where.crs,
        transform=where.transform,
        height=frame.height,
        width=frame.width,
        assets=_assets(outputs, {**marks, outputs.project.name: Mark.of(outputs.project)}, plan.legend),
        scene=None if source is None else _href(source, outputs.folder),
        properties={"resegeo:model": plan.source.name},
        resolution=_resolution(plan),
    )
    with saving(outputs.item), whole(outputs.item, note=note) as beside:
        beside.write_text(json.dumps(item, indent=1, ensure_ascii=False) + "\n", "utf-8")


def _extent(plan: Plan) -> tuple[float, float, float, float]:
    """Return what the project's map is zoomed to; of a scene without a place its pixels, as QGIS counts them."""
    from resegeo.scene.region import outline

    frame, transform = plan.frame, plan.georeference.transform
    points = plan.georeference.gcps
    if points:
        across, along = [point.x for point in points], [point.y for point in points]
        return min(across), min(along), max(across), max(along)
    if transform is None:
        return 0.0, -float(frame.height), float(frame.width), 0.0
    left, bottom, right, top = outline(frame.height, frame.width, transform).bounds
    return left, bottom, right, top


def _scene(source: str) -> str | None:
    """Return where the scene lies, if it lies anywhere."""
    if "://" in source or source.startswith("/vsi"):
        return source
    return source if is_there(Path(source)) else None


def _href(path: str, folder: Path) -> str:
    if "://" in path or path.startswith("/vsi"):
        return path
    try:
        return Path(os.path.relpath(path, folder)).as_posix()
    except ValueError:  # another drive of Windows
        return Path(path).absolute().as_posix()


def _resolution(plan: Plan) -> float | None:
    """Mean size of a pixel on the ground in metres, to a millimetre."""
    ground = pixel_on_the_ground(plan.georeference, plan.frame.height, plan.frame.width)
    return None if ground is None else max(round(sum(ground) / 2, 3), 0.001)


def _assets(outputs: Outputs, marks: Mapping[str, Mark], classes: ClassList) -> dict[str, dict[str, Any]]:
    """Describe the results by key; files that are parts of others, such as those of a Shapefile, have none."""
    found: dict[str, dict[str, Any]] = {}
    stem = outputs.raster.name.removesuffix(".classes.tif")
    for name, mark in marks.items():
        entry = _ASSETS.get(name.removeprefix(stem))
        if entry is not None:
            key, title = entry
            found[key] = {"href": f"./{name}", "title": title, "bytes": mark.bytes, "sha256": mark.sha256}
    if "scores" in found:
        found["scores"]["raster"] = {
            "data_type": "uint8",
            "nodata": NO_SCORE,
            "bands": [{"name": spec.name} for spec in classes.classes],
            "raster:scale": 1 / SCORE_STEPS,
        }
    return dict(sorted(found.items()))
