"""What a finished store remembers of its run: the scene but for its pixels, and the model."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.errors import CRSError
from rasterio.rpc import RPC

from resegeo.checkpoints.imported import imported_path
from resegeo.checkpoints.sources import ModelSource, identity
from resegeo.composition.recipe import find_model
from resegeo.errors import ResegeoError, shown
from resegeo.run.header import StoredScene, StoreHeader
from resegeo.run.options import Method
from resegeo.scene.reader import Scene, Stretch
from resegeo.scene.source import GeoReference

if TYPE_CHECKING:
    import xarray as xr


class _KeptPixels:
    """Pixels of which validity (height, width) and perhaps colours (height, width, 3) are kept; else they are black."""

    dtype = np.dtype(np.uint8)

    def __init__(self, valid: Any, colours: Any | None) -> None:
        self._valid, self._colours = valid, colours

    def read(self, top: int, left: int, bottom: int, right: int) -> NDArray[np.uint8]:
        """Read rows top … bottom - 1, columns left … right - 1, validity last."""
        values = np.zeros((4, bottom - top, right - left), dtype=np.uint8)
        values[3] = self._valid[top:bottom, left:right]
        if self._colours is not None:
            values[:3] = np.moveaxis(self._colours[top:bottom, left:right], -1, 0)
        return values

    def lazy(self) -> xr.DataArray:
        """Return the DataArray (band, y, x)."""
        import xarray as xr

        return xr.DataArray(self.read(0, 0, *self._valid.shape), dims=("band", "y", "x"))


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


def stored_scene(facts: StoredScene, valid: Any, colours: Any | None = None) -> Scene:
    """Rebuild a scene from :func:`scene_facts`, its validity (height, width) and its colours (height, width, 3).

    Without those it reads as black.

    Raises
    ------
    ValueError:
        When a CRS, a point or a coefficient in it makes no sense.

    """
    height, width = facts.height, facts.width
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
        stretch=None if facts.stretch is None else Stretch(*facts.stretch),
        pixels=_KeptPixels(valid, colours),
        fingerprint=facts.fingerprint,
        stamp=facts.stamp,
        coloured=colours is not None,
        seen=True,
    )


def _floats(values: Iterable[Any]) -> tuple[float, ...]:
    return tuple(float(value) for value in values)


def model_of_store(url: str, header: StoreHeader, method: Method) -> ModelSource:
    """Find the model that a store was made with: the one that is named, else the bundled or an imported one.

    A store may come from a stranger, so that no path in it is followed, and its model is told by its checksum alone.

    Raises
    ------
    ResegeoError:
        When that is another model, or has to be named.

    """
    wanted = header.image["model"]
    said = f"{shown(wanted['name'])} (sha256 {shown(wanted['sha256'], 13)})"
    model, arch = method.model, method.arch
    activation: str | None = method.activation
    imported = None if model is not None else imported_path(wanted["name"])
    if imported is not None:
        import open_clip

        own = header.model.architecture  # a name of open_clip's, never a file
        model, activation = str(imported), activation or header.model.activation
        arch = arch or (own if own in open_clip.list_models() else None)
    found = find_model(model, arch, activation)
    if found.sha256 != wanted["sha256"]:
        where = "" if header.model.path is None else f", then {shown(header.model.path, 200)}"
        raise ResegeoError(
            f"{url} was made with {said}{where}, not with {found.path} (sha256 {found.sha256[:12]}…). Name that file "
            "by [[model]]."
        )
    changed = [name for name, value in json.loads(json.dumps(identity(found))).items() if wanted.get(name) != value]
    if changed:
        raise ResegeoError(
            f"{url} was made with {said}, whose {' and '.join(changed)} is another now. Name it by [[model]] with the "
            "[[arch]] and [[activation]] of then, or segment the scene itself again with [[overwrite=True]]."
        )
    return replace(found, name=wanted["name"])  # the same file, by whatever name it was found then
