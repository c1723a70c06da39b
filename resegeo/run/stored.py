"""A scene as a finished store remembers it: everything but its pixels, so that new words need no scene."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from affine import Affine
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.errors import CRSError
from rasterio.rpc import RPC

from resegeo.errors import shown
from resegeo.run.header import StoredScene
from resegeo.scene.reader import Scene, Stretch
from resegeo.scene.source import GeoReference


def scene_facts(scene: Scene) -> StoredScene:
    """Everything of a scene but its pixels, as plain values."""
    where = scene.georeference
    stretch = scene.stretch
    return StoredScene(
        name=scene.name,
        source=shown(scene.source, 4000),
        height=scene.height,
        width=scene.width,
        count=scene.count,
        dtype=scene.dtype,
        bands=scene.bands,
        nodata=tuple(None if value is None or np.isnan(value) else float(value) for value in scene.nodata),
        stretch=None if stretch is None else (_floats(stretch.low), _floats(stretch.high)),
        fingerprint=scene.fingerprint,
        stamp=scene.stamp,
        crs=None if where.crs is None else where.crs.to_wkt(),
        transform=None if where.transform is None else _floats(where.transform[:6]),
        gcps=tuple((p.row, p.col, p.x, p.y, p.z, p.id, p.info) for p in where.gcps),
        gcps_crs=None if where.gcps_crs is None else where.gcps_crs.to_wkt(),
        rpcs=None if where.rpcs is None else where.rpcs.to_gdal(),
    )


def stored_scene(facts: StoredScene, valid: Any) -> Scene:
    """Rebuild a scene from :func:`scene_facts` and its validity (height, width); its colours read as black.

    Raises
    ------
    ValueError:
        When a CRS, a point or a coefficient in it makes no sense.

    """
    height, width = facts.height, facts.width
    good = da.from_array(valid, chunks=valid.chunks).astype(np.uint8)[None]  # type: ignore[no-untyped-call]
    colours = da.zeros((3, height, width), dtype=np.uint8, chunks=(3, *valid.chunks))
    array = xr.DataArray(da.concatenate([colours, good]), dims=("band", "y", "x"))  # type: ignore[no-untyped-call]
    try:
        georeference = GeoReference(
            crs=None if facts.crs is None else CRS.from_wkt(facts.crs),
            transform=None if facts.transform is None else Affine(*facts.transform),
            gcps=tuple(GroundControlPoint(*values) for values in facts.gcps),
            gcps_crs=None if facts.gcps_crs is None else CRS.from_wkt(facts.gcps_crs),
            rpcs=None if facts.rpcs is None else RPC.from_gdal(dict(facts.rpcs)),
        )
    except (CRSError, TypeError, KeyError, IndexError) as error:
        raise ValueError(f"georeference: {error}") from error
    return Scene(
        name=facts.name,
        source=facts.source,
        height=height,
        width=width,
        count=facts.count,
        dtype=facts.dtype,
        bands=facts.bands,
        georeference=georeference,
        nodata=facts.nodata,
        # Only said, never applied: pixels come as zeros of uint8.
        stretch=None if facts.stretch is None else Stretch(*facts.stretch),
        array=array,
        fingerprint=facts.fingerprint,
        stamp=facts.stamp,
    )


def _floats(values: Iterable[Any]) -> tuple[float, ...]:
    return tuple(float(value) for value in values)
