"""Results as the libraries of the field hold them: class codes as a DataArray with CF flags, polygons, scores."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from resegeo.errors import ResegeoError, shown
from resegeo.files import is_folder, is_there
from resegeo.run.report import earlier_report, marks_of
from resegeo.settings import SUFFIXES

if TYPE_CHECKING:
    import geopandas as gpd
    import xarray as xr

    from resegeo.classes.class_list import ClassList

RASTER = ".classes.tif"
"""What the name of a class raster ends in."""


def flags(classes: ClassList) -> dict[str, Any]:
    """Attributes that say what codes mean, by the CF conventions: ``flag_values``, ``flag_meanings``, ``flag_colors``.

    Meanings are separated by blanks, so a blank within a name is an underscore there. Nodata is none of them.
    """
    codes = [0, *(spec.code for spec in classes.drawn), classes.unprocessed]
    return {
        "long_name": "class",
        "flag_values": np.array(codes, dtype=classes.dtype),
        "flag_meanings": " ".join("_".join(classes.name_of(code).split()) for code in codes),
        "flag_colors": " ".join("#{:02x}{:02x}{:02x}".format(*classes.color_of(code)) for code in codes),
    }


@dataclass(frozen=True)
class Segmentation:
    """Paths of a finished run; ``reused`` where an equal earlier run was found and nothing computed."""

    raster: Path
    vectors: tuple[Path, ...]
    picture: Path
    areas: Path
    """Table of areas, CSV."""
    report: Path
    reused: bool
    failed: int = 0
    """Windows that could not be computed; pixels that no other window covers are marked unprocessed."""
    beside: tuple[Path, ...] = ()
    """What was asked for besides: fitted vectors, scores."""

    @classmethod
    def open(cls, folder: str | Path) -> Self:
        """Find the results of a finished run.

        Parameters
        ----------
        folder:
            The folder of the results, or the report in it (``<stem>.json``) where it holds several.

        Raises
        ------
        ResegeoError:
            When there is no finished run, or more than one.

        """
        place = Path(folder)
        found = {path: earlier_report(path) for path in (sorted(place.glob("*.json")) if is_folder(place) else [place])}
        reports = {path: report for path, report in found.items() if report}
        if not reports:
            raise ResegeoError(f"{shown(place)} holds no results of a finished run; name a folder that segment wrote.")
        if len(reports) > 1:
            names = ", ".join(shown(path.name) for path in reports)
            raise ResegeoError(f"{shown(place)} holds the results of several runs; name one of the reports {names}.")
        ((path, report),) = reports.items()
        rest = [path.parent / name for name in report["outputs"] if name in marks_of(report)]
        missing = [each.name for each in rest if not is_there(each)]
        pictures = [each for each in rest if each.suffix == ".png"]
        tables = [each for each in rest if each.name.endswith(".areas.csv")]
        if missing or not pictures or not tables or not rest[0].name.endswith(RASTER):
            lost = shown(", ".join(missing)) or "a class raster"
            raise ResegeoError(f"{shown(path.parent)} lacks {lost}, of which {path.name} tells; run segment again.")
        failed = report["windows"]["failed"] + int(report.get("unreadable_blocks") or 0)
        vectors = tuple(each for each in rest if each.suffix in SUFFIXES.values())
        beside = tuple(each for each in rest[1:] if each not in (*vectors, pictures[0], tables[0]))
        return cls(rest[0], vectors, pictures[0], tables[0], path, reused=True, failed=failed, beside=beside)

    def files(self) -> tuple[Path, ...]:
        """All paths, in the order in which they are written."""
        return (self.raster, *self.vectors, self.picture, *self.beside, self.areas, self.report)

    def codes(self) -> xr.DataArray:
        """Return the class codes (y, x), read where they are used, with CRS, nodata and the flags of the classes.

        Raises
        ------
        ResegeoError:
            When the class raster cannot be read.

        """
        import rioxarray
        from rasterio.errors import NotGeoreferencedWarning, RasterioError

        from resegeo.outputs.raster import read_class_raster_info

        classes, _ = read_class_raster_info(self.raster)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", NotGeoreferencedWarning)
                opened: Any = rioxarray.open_rasterio(self.raster, chunks=True)
        except (RasterioError, OSError) as error:
            raise ResegeoError(f"{self.raster} is damaged: its pixels cannot be read. Run segment again.") from error
        codes: xr.DataArray = opened.isel(band=0, drop=True)
        codes.name = "classes"
        codes.attrs = flags(classes)
        return codes.rio.write_nodata(classes.nodata)  # type: ignore[no-any-return]

    def polygons(self) -> gpd.GeoDataFrame:
        """Return one polygon a connected region of the class raster, drawn anew; see :func:`resegeo.polygonize`.

        ``min_area`` and ``simplify`` of the run shape the files that it wrote, not these.

        Raises
        ------
        ResegeoError:
            When the class raster cannot be read, or lies nowhere.

        """
        from resegeo.outputs.polygons import polygonize
        from resegeo.run.results import scene_of, scores_of

        return polygonize(self.raster, scores=scores_of(self.raster), scene=scene_of(self.raster))

    def scores(self) -> xr.DataArray:
        """Return the probability of each pixel's best class (y, x), 0 to 1 in steps of 0.005, NaN where there is none.

        Raises
        ------
        ResegeoError:
            When the run kept none: they are in its store.

        """
        from resegeo.clip.blending import NO_SCORE, SCORE_STEPS
        from resegeo.run.results import scores_of

        kept = scores_of(self.raster)
        if kept is None:
            raise ResegeoError(
                f"The scores of {shown(self.raster)} are not there: a run keeps them in its store where it draws "
                "polygons. Run segment with [[vector=gpkg]] and without [[discard_store=True]]."
            )
        codes, steps = self.codes(), np.asarray(kept[:])
        found = codes.copy(data=np.where(steps == NO_SCORE, np.nan, steps / SCORE_STEPS).astype(np.float32))
        found.name, found.attrs = "scores", {"long_name": "probability of the best class", "units": "1"}
        return found.rio.write_nodata(np.nan)  # type: ignore[no-any-return]
