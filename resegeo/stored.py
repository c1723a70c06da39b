"""A scene as a finished store remembers it: everything but its pixels, so that new words need no scene."""

from __future__ import annotations

from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from affine import Affine
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.rpc import RPC

from resegeo.scene import Scene, Stretch
from resegeo.sources import GeoReference


def scene_facts(scene: Scene) -> dict[str, Any]:
    """Everything of a scene but its pixels, as plain values."""
    where = scene.georeference
    return {
        "name": scene.name,
        "source": scene.source,
        "height": scene.height,
        "width": scene.width,
        "count": scene.count,
        "dtype": scene.dtype,
        "bands": list(scene.bands),
        "nodata": [None if value is None or np.isnan(value) else float(value) for value in scene.nodata],
        "stretch": None
        if scene.stretch is None
        else {"low": list(scene.stretch.low), "high": list(scene.stretch.high)},
        "fingerprint": scene.fingerprint,
        "stamp": scene.stamp,
        "crs": None if where.crs is None else where.crs.to_wkt(),
        "transform": None if where.transform is None else list(where.transform)[:6],
        "gcps": [[p.row, p.col, p.x, p.y, p.z, p.id, p.info] for p in where.gcps],
        "gcps_crs": None if where.gcps_crs is None else where.gcps_crs.to_wkt(),
        "rpcs": None if where.rpcs is None else where.rpcs.to_gdal(),
    }


def stored_scene(facts: dict[str, Any], valid: Any) -> Scene:
    """Rebuild a scene from :func:`scene_facts` and its validity (height, width); its colours read as black."""
    height, width = facts["height"], facts["width"]
    good = da.from_array(valid, chunks=valid.chunks).astype(np.uint8)[None]  # type: ignore[no-untyped-call]
    colours = da.zeros((3, height, width), dtype=np.uint8, chunks=(3, *valid.chunks))
    array = xr.DataArray(da.concatenate([colours, good]), dims=("band", "y", "x"))  # type: ignore[no-untyped-call]
    stretch = facts["stretch"]
    return Scene(
        name=facts["name"],
        source=facts["source"],
        height=height,
        width=width,
        count=facts["count"],
        dtype=facts["dtype"],
        bands=tuple(facts["bands"]),
        georeference=GeoReference(
            crs=None if facts["crs"] is None else CRS.from_wkt(facts["crs"]),
            transform=None if facts["transform"] is None else Affine(*facts["transform"]),
            gcps=tuple(GroundControlPoint(*values) for values in facts["gcps"]),
            gcps_crs=None if facts["gcps_crs"] is None else CRS.from_wkt(facts["gcps_crs"]),
            rpcs=None if facts["rpcs"] is None else RPC.from_gdal(facts["rpcs"]),
        ),
        nodata=tuple(facts["nodata"]),
        # Only said, never applied: pixels come as zeros of uint8.
        stretch=None if stretch is None else Stretch(tuple(stretch["low"]), tuple(stretch["high"])),
        array=array,
        fingerprint=facts["fingerprint"],
        stamp=facts["stamp"],
    )
