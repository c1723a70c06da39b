"""How much ground each class of a class raster covers: pixels, m², ha, share of the valid area, mean score."""

from __future__ import annotations

import csv
import io
import json
import math
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from resegeo.classes.class_list import ClassList
from resegeo.clip.blending import SCORE_STEPS
from resegeo.errors import ResegeoError
from resegeo.files import Note, saving, whole
from resegeo.outputs.areas import areas, stretched
from resegeo.outputs.raster import read_class_raster_info
from resegeo.scene.formats import open_raster
from resegeo.scene.gcps import mapped, unplaced
from resegeo.scene.source import GeoReference

_PIXELS = 2**20
"""Pixels that are looked at at once."""


@dataclass(frozen=True)
class ClassArea:
    """What a class covers; None where the scene tells no areas, or no scores were kept."""

    class_name: str
    pixels: int
    m2: float | None
    ha: float | None
    share: float | None
    """Of the area that is not nodata, 0 … 1; by pixels where there are no areas."""
    mean_score: float | None
    """Mean over the pixels of the probability of their class, 0 … 1."""


def class_areas(path: Path, classes: ClassList, scores: Any | None = None) -> tuple[ClassArea, ...]:
    """Measure the classes of a class raster.

    Parameters
    ----------
    path:
        The class raster.
    classes:
        Its class list: every class has a row, background and unprocessed where they occur.
    scores:
        Array (h, w) of the pixels' scores, see :func:`resegeo.clip.blending.class_scores`, which may be one on disk.

    Raises
    ------
    ResegeoError:
        When the raster cannot be read.

    """
    _, where = read_class_raster_info(path)
    count = classes.nodata + 1
    pixels, ground, marks = np.zeros(count, dtype=np.int64), np.zeros(count), np.zeros(count)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with open_raster(str(path)) as raster:
                step = max(1, _PIXELS // raster.width)
                for row in range(0, raster.height, step):
                    last = min(row + step, raster.height)
                    codes = raster.read(1, window=((row, last), (0, raster.width)))
                    sizes = np.broadcast_to(pixel_areas(where, row, last, raster.width), codes.shape)
                    flat = codes.ravel()
                    pixels += np.bincount(flat, minlength=count)
                    ground += np.bincount(flat, weights=sizes.ravel(), minlength=count)
                    if scores is not None:
                        marks += np.bincount(flat, weights=np.asarray(scores[row:last]).ravel(), minlength=count)
    except RasterioError as error:
        raise ResegeoError(f"{path} is damaged: its pixels cannot be read. Run `resegeo segment` again.") from error
    placed = bool(np.isfinite(ground[pixels > 0]).all())
    amounts = ground if placed else pixels.astype(np.float64)
    total = float(amounts[: classes.nodata].sum())
    codes_shown = [spec.code for spec in classes.drawn] + [c for c in (0, classes.unprocessed) if pixels[c]]
    return tuple(
        ClassArea(
            classes.name_of(code),
            int(pixels[code]),
            round(float(ground[code]), 2) if placed else None,
            round(float(ground[code]) / 10_000, 4) if placed else None,
            round(float(amounts[code]) / total, 6) if total else None,
            round(float(marks[code] / pixels[code] / SCORE_STEPS), 4)
            if scores is not None and pixels[code] and code != classes.unprocessed
            else None,
        )
        for code in codes_shown
    )


def pixel_areas(where: GeoReference, first: int, last: int, width: int) -> NDArray[np.float64]:
    """Areas in m² of the pixels of rows ``first`` to ``last`` - 1, of a shape that broadcasts to (rows, width).

    Planar in a projected CRS; on the ellipsoid in a geographic one and where the plane tells none, see
    :func:`resegeo.outputs.areas.areas`; by the control points where those place the scene. NaN where nothing does.
    """
    transform, crs = where.transform, where.crs if where.transform is not None else where.gcps_crs
    if crs is None or unplaced(where) is not None or not (crs.is_projected or crs.is_geographic):
        return np.full((1, 1), math.nan)
    if transform is not None and crs.is_projected and stretched(crs) is None:
        return np.full((1, 1), abs(transform.determinant) * crs.linear_units_factor[1] ** 2)
    level = transform is not None and transform.b == transform.d == 0
    columns = np.arange((1 if level else width) + 1, dtype=np.float64)  # all pixels of a level row are as large
    x, y = np.meshgrid(columns, np.arange(first, last + 1, dtype=np.float64))
    corners = np.column_stack([x.ravel(), y.ravel()])
    if transform is None:
        places = mapped(where.gcps, corners)
    else:
        (x, y), t = corners.T, transform
        places = np.stack([t.a * x + t.b * y + t.c, t.d * x + t.e * y + t.f], axis=1)
    grid = places.reshape(last - first + 1, -1, 2)
    rings = np.stack([grid[:-1, :-1], grid[:-1, 1:], grid[1:, 1:], grid[1:, :-1]], axis=2)
    cells = shapely.orient_polygons(shapely.polygons(rings.reshape(-1, 4, 2)))
    return areas(np.asarray(cells, dtype=object), crs).reshape(rings.shape[:2])


def as_csv(rows: Sequence[ClassArea]) -> str:
    """Lay the table out as CSV; what is not known is empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["class", "pixels", "m2", "ha", "share", "mean_score"])
    writer.writerows(["" if value is None else value for value in asdict(row).values()] for row in rows)
    return text.getvalue()


def write_areas(path: Path, rows: Sequence[ClassArea], note: Note | None = None) -> None:
    """Write the table as CSV, whole or not at all; see :func:`as_csv`.

    Raises
    ------
    ResegeoError:
        When the disk is full or the folder can't be written to.

    """
    with saving(path), whole(path, note) as beside:
        beside.write_text(as_csv(rows), "utf-8")


def areas_of(report: Path) -> list[ClassArea]:
    """Return the rows of the table that a report of ours holds."""
    found = json.loads(report.read_text("utf-8"))
    return [ClassArea(**row) for row in found.get("areas", [])]
