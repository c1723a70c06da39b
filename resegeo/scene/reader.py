"""Open a raster: size, CRS, bands, validity, stretch; pixels served lazily as RGB and a valid mask.

Metadata is settled before pixels. The pixels stand behind a dask-backed :class:`xarray.DataArray`
(band, y, x), which :mod:`resegeo.scene.pixels` builds and whose rule of validity stands there; the stretch comes from
:mod:`resegeo.scene.stretch`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.errors import CRSError, RasterioError

from resegeo.errors import (
    GeoreferenceWarning,
    IgnoredSettingWarning,
    ResegeoError,
    UsageError,
    notice,
    shown,
)
from resegeo.scene.band_colours import default_bands
from resegeo.scene.fingerprint import stamp
from resegeo.scene.formats import known_formats
from resegeo.scene.pixels import Pixels, pixels_of
from resegeo.scene.source import GeoReference, Source, array_source, damaged, file_source, stem_of
from resegeo.scene.stretch import alpha_holds_data, sample_squares, value_range

if TYPE_CHECKING:
    import xarray as xr

ALPHA = ("auto", "ignore", "use")
"""What may be said of an alpha band."""


@dataclass(frozen=True)
class Stretch:
    """Values of each used band that become 0 and 255."""

    low: tuple[float, ...]
    high: tuple[float, ...]

    def apply(self, bands: NDArray[Any]) -> NDArray[np.uint8]:
        """Stretch (3, h, w) of any real dtype to uint8; a constant band and NaN become 0."""
        low = np.asarray(self.low, dtype=np.float64)[:, None, None]
        span = np.asarray(self.high, dtype=np.float64)[:, None, None] - low
        with np.errstate(over="ignore", invalid="ignore"):  # a tiny span, or NaN and infinity among the values
            factor = np.divide(255.0, span, out=np.zeros_like(span), where=span > 0)
            values = (bands.astype(np.float64) - low) * factor
        values = np.nan_to_num(values, nan=0.0, posinf=255.0, neginf=0.0)
        return np.asarray(np.clip(np.rint(values), 0, 255).astype(np.uint8))


@dataclass(frozen=True)
class Scene:
    """A raster ready to be windowed. Build it with :func:`open_scene`."""

    name: str
    source: str
    height: int
    width: int
    count: int
    dtype: str
    bands: tuple[int, int, int]
    """The bands used as red, green and blue, from 1."""
    georeference: GeoReference
    nodata: tuple[float | None, ...]
    """Nodata of the three used bands."""
    stretch: Stretch | None
    """None where uint8 passes through."""
    pixels: Pixels
    """The three used bands and, last, validity as 0 and 1 in the same dtype."""
    fingerprint: str
    palette: NDArray[np.uint8] | None = None
    """Colours (256 or 65536, 3) of a palette image, else None."""
    stamp: str | None = None
    """Checksum over size and time of the files, or over ETags; changes with a file that the fingerprint, which looks
    at a sample, may take for the same."""
    files: tuple[str, ...] = ()
    """What the stamp was taken of, see :meth:`is_unchanged`."""
    part: str = ""
    formats: tuple[str, ...] = ()
    """Formats that the user trusts, of other rasters too that are read for it; see :func:`open_scene`."""
    alpha: str | None = None
    """What an alpha band that serves as no colour means here, in words; None where there is none."""
    coloured: bool = True
    """False where only validity is known, and every pixel reads as black."""
    seen: bool = False
    """Whether pixels come as the model saw them: the stretch was applied before, and is only said."""

    @property
    def array(self) -> xr.DataArray:
        """The pixels as a DataArray (band, y, x) over dask."""
        return self.pixels.lazy()

    def is_unchanged(self) -> bool:
        """Whether its files are still those that it was opened from."""
        return not self.files or stamp(self.files, self.part) == self.stamp

    def read(self, row: int, col: int, height: int, width: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Read a rectangle, which may reach beyond the scene.

        Returns
        -------
        RGB (height, width, 3) uint8 and validity (height, width) bool. Invalid pixels and those outside
        are RGB 0 and False.

        """
        rgb = np.zeros((height, width, 3), dtype=np.uint8)
        valid = np.zeros((height, width), dtype=bool)
        inside, values = self._inside(row, col, height, width)
        good = values[-1] != 0
        if self.palette is not None:
            colours = np.moveaxis(self.palette[values[0]], -1, 0)
        elif self.stretch is not None and not self.seen:
            colours = self.stretch.apply(values[:3])
        else:
            colours = values[:3]
        for band, plane in enumerate(colours):  # one by one, four times as fast as all at once
            rgb[inside][..., band] = plane
        if not good.all():
            rgb[inside][~good] = 0
        valid[inside] = good
        return rgb, valid

    def valid(self, row: int, col: int, height: int, width: int) -> NDArray[np.bool_]:
        """Read validity alone: (height, width) bool, False outside the scene."""
        valid = np.zeros((height, width), dtype=bool)
        inside, values = self._inside(row, col, height, width)
        valid[inside] = values[-1] != 0
        return valid

    def _inside(self, row: int, col: int, height: int, width: int) -> tuple[tuple[slice, slice], NDArray[Any]]:
        """Cut a rectangle at the scene's border: where that lies in the rectangle, and its values."""
        top, left = min(max(row, 0), self.height), min(max(col, 0), self.width)
        bottom, right = max(min(row + height, self.height), top), max(min(col + width, self.width), left)
        inside = slice(top - row, bottom - row), slice(left - col, right - col)
        if top == bottom or left == right:
            return (slice(0), slice(0)), np.empty((4, 0, 0), dtype=np.uint8)
        return inside, self._compute(top, left, bottom, right)

    def _compute(self, top: int, left: int, bottom: int, right: int) -> NDArray[Any]:
        try:
            return self.pixels.read(top, left, bottom, right)
        except (RasterioError, OSError) as error:
            where = f"rows {top} to {bottom - 1}, columns {left} to {right - 1}"
            raise damaged(self.source, where, error) from error


def open_scene(
    source: str | Path | xr.DataArray,
    *,
    bands: Sequence[int] | None = None,
    stretch: Stretch | tuple[float, float] | None = None,
    assign_crs: str | None = None,
    formats: Sequence[str] | None = None,
    alpha: str = "auto",
    name: str | None = None,
) -> Scene:
    """Open a scene and settle everything but its pixels.

    Parameters
    ----------
    source:
        A path, URL or GDAL /vsi path, or a DataArray (band, y, x) or (y, x) with its CRS as rioxarray keeps it.
    bands:
        Bands for red, green and blue, from 1; by default those that say so, else the first three. A palette
        image is then read as plain numbers, and an alpha band that is named as plain data.
    stretch:
        Values that become 0 and 255, as the file stores them, before any scale and offset tags. By default
        uint8 passes through, any other dtype is stretched between the 2nd and 98th percentile of each band
        over a fixed sample of the whole scene at full resolution (which scale and offset would not change), or
        over all of it where the sample holds next to nothing.
    assign_crs:
        CRS for a scene that has none.
    formats:
        GDAL's names of file formats that are trusted though they may reach for other files or hosts, such as VRT,
        netCDF or WMS; see :mod:`resegeo.scene.formats`.
    alpha:
        What an alpha band means that serves as no colour: ``use``: pixels where it is 0 are invalid; ``ignore``:
        nothing; ``auto``: as ``use``, with a notice where its values look like data, as many four-band images call
        their infrared alpha.
    name:
        What results are called; by default as the file, without its suffix.

    Raises
    ------
    ResegeoError:
        When the source can't be read as an image, with one sentence that says why.

    """
    if isinstance(source, str | PathLike):
        raw = file_source(str(source), assigned=assign_crs is not None, formats=formats or ())
    else:
        raw = array_source(source)
    if name is not None:
        if name.strip(". ") == "" or stem_of(f"{name}.tif") != name or "\\" in name or not name.isprintable():
            raise UsageError(f"[[name={shown(name)}]] cannot be part of a file's name; expected one such as tile_7.")
        raw = replace(raw, name=name)
    found = stamp(raw.files, raw.part)  # before the first pixel: a file that is replaced meanwhile is noticed
    given = _given_stretch(stretch)
    used = _choose_bands(raw, bands)
    georeference = _with_crs(raw, assign_crs)
    raw, meant = _with_alpha(raw, used, alpha)
    if bands is not None:
        raw = replace(raw, palette=None, transparent=())
    if raw.palette is not None and given is not None:
        notice(
            f"{raw.label} is a palette image: [[stretch]] does not apply to its colours.",
            IgnoredSettingWarning,
        )
    pixels = pixels_of(raw, used)
    sample = list(sample_squares(raw, used, pixels))
    if given is None and raw.palette is None and pixels.dtype != np.uint8:
        given = Stretch(*value_range(raw, used, pixels, sample))
    elif given is None and raw.palette is None and any(raw.bits):  # 1 or 4 bits of the 8 that their type has
        most = tuple(2.0 ** (raw.bits[band - 1] or 8) - 1 for band in used)
        given = Stretch((0.0,) * 3, most)
    if georeference.crs is None and georeference.gcps_crs is None and georeference.kind != "rpcs":
        notice(
            f"{raw.label} has no CRS. Pass [[assign_crs=EPSG:xxxx]], or accept an output without one.",
            GeoreferenceWarning,
        )
    return Scene(
        name=raw.name,
        source=raw.label,
        height=raw.height,
        width=raw.width,
        count=raw.count,
        dtype=str(raw.dtype(used)),
        bands=used,
        georeference=georeference,
        nodata=raw.nodata_of(used),
        stretch=None if raw.palette is not None else given,
        pixels=pixels,
        fingerprint=_fingerprint(raw, sample, alpha),
        palette=raw.palette,
        stamp=found,
        files=raw.files,
        part=raw.part,
        formats=known_formats(formats),
        alpha=meant,
    )


def describe(scene: Scene) -> dict[str, object]:
    """Return the facts that ``resegeo info`` prints, as plain values."""
    where = scene.georeference
    crs = where.crs or where.gcps_crs
    facts: dict[str, object] = {
        "source": scene.source,
        "size": f"{scene.height} rows × {scene.width} columns",
        "bands": f"{scene.count}, of which {', '.join(map(str, scene.bands))} serve as red, green, blue",
        "dtype": scene.dtype,
        "nodata": next((value for value in scene.nodata if value is not None), None),
        **({} if scene.alpha is None else {"alpha": scene.alpha}),
        "stretch": "none (uint8 as it is)"
        if scene.stretch is None
        else ", ".join(f"{a:g}:{b:g}" for a, b in zip(scene.stretch.low, scene.stretch.high, strict=True)),
        "crs": None if crs is None else (crs.to_string() if crs.to_epsg() else crs.to_wkt()[:80]),
        "georeference": where.kind,
    }
    if where.transform is not None:
        unit = "" if where.crs is None else f" {where.crs.units_factor[0]}"
        columns = np.hypot(where.transform.a, where.transform.d)
        rows = np.hypot(where.transform.b, where.transform.e)
        facts["pixel"] = f"{columns:g} × {rows:g}{unit}"
        facts["upper left"] = f"{where.transform.c:.10g}, {where.transform.f:.10g}"
    return facts


def _choose_bands(raw: Source, bands: Sequence[int] | None) -> tuple[int, int, int]:
    used = default_bands(raw) if bands is None else _given_bands(raw, bands)
    for band in used:
        dtype = raw.dtypes[band - 1]
        if dtype.startswith("complex") or np.dtype(dtype).kind == "c":
            raise ResegeoError(
                f"{raw.label} holds complex numbers ({dtype}); expected real ones. Take magnitudes first."
            )
        if np.dtype(dtype).kind not in "uifb":
            raise ResegeoError(f"{raw.label} holds {dtype} values; expected numbers.")
    return used


def _given_bands(raw: Source, bands: Sequence[int]) -> tuple[int, int, int]:
    if len(bands) != 3 or not all(float(band).is_integer() and 1 <= int(band) <= raw.count for band in bands):
        raise UsageError(
            f"[[bands={','.join(map(str, bands))}]] does not fit {raw.label}, which has {raw.count} band(s); "
            f"expected three numbers from 1 to {raw.count}."
        )
    red, green, blue = map(int, bands)
    return red, green, blue


def _with_alpha(raw: Source, used: Sequence[int], alpha: str) -> tuple[Source, str | None]:
    """Settle what the alpha bands that serve as no colour mean, and say it in words where there are some."""
    if alpha not in ALPHA:
        raise UsageError(f"[[alpha={shown(alpha)}]] is none of {', '.join(ALPHA)}.")
    bands = [band for band, role in enumerate(raw.roles, 1) if role == "alpha" and band not in used]
    named = f"band {', '.join(map(str, bands))}"
    if alpha == "ignore":
        roles = tuple("" if role == "alpha" else role for role in raw.roles)
        return replace(raw, roles=roles), f"{named} is ignored" if bands else None
    meant = f"{named}: pixels where it is 0 are invalid"
    if alpha == "auto" and raw.data is None:
        for band in bands:
            if alpha_holds_data(raw, band):
                meant += f", though band {band} holds many values, as data does"
                notice(
                    f"{shown(raw.label)}: band {band} is called alpha but holds many values, as infrared does; pixels "
                    "where it is 0 count as invalid. Pass [[alpha=ignore]] if it is data, [[alpha=use]] if it is not.",
                )
    return raw, meant if bands else None


def _with_crs(raw: Source, assign_crs: str | None) -> GeoReference:
    where = raw.georeference
    if assign_crs is None:
        return where
    try:
        crs = CRS.from_user_input(assign_crs)
    except CRSError as error:
        raise UsageError(f"[[assign_crs={assign_crs}]] is no CRS; expected something like EPSG:32633.") from error
    if where.crs is not None and where.crs != crs:
        notice(
            f"{raw.label} says its CRS is {where.crs.to_string()[:60]}; [[assign_crs={assign_crs}]] replaces it.",
            GeoreferenceWarning,
        )
    if where.gcps and where.transform is None:
        return GeoReference(None, None, where.gcps, crs, where.rpcs)
    return GeoReference(crs, where.transform, where.gcps, where.gcps_crs, where.rpcs)


def _given_stretch(given: Stretch | Sequence[float] | None) -> Stretch | None:
    if given is None or isinstance(given, Stretch):
        return given
    if len(given) != 2 or not -np.inf < given[0] < given[1] < np.inf:
        raise UsageError(
            f"[[stretch={':'.join(f'{value:g}' for value in given)}]] is no range; expected two numbers of which the "
            "second is larger, such as 200:3000."
        )
    return Stretch((given[0],) * 3, (given[1],) * 3)


def _fingerprint(raw: Source, sample: Sequence[NDArray[Any]], alpha: str) -> str:
    """Checksum of what the scene is, free of its path and dates, so that a copy is the same scene."""
    digest = hashlib.sha256()
    where = raw.georeference
    gcps = [(point.row, point.col, point.x, point.y, point.z) for point in where.gcps]
    rpcs = None if where.rpcs is None else sorted(where.rpcs.to_gdal().items())
    facts = (raw.height, raw.width, raw.count, raw.dtypes, raw.nodata, where.transform, gcps, rpcs, raw.transparent)
    digest.update(repr(facts).encode())
    digest.update(b"alpha ignored" if alpha == "ignore" else b"")
    digest.update(b"" if raw.palette is None else raw.palette.tobytes())
    digest.update((where.crs or where.gcps_crs or CRS()).to_wkt().encode())
    for piece in sample:
        digest.update(np.ascontiguousarray(piece).tobytes())
    return digest.hexdigest()
