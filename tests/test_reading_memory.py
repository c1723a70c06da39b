"""What reading takes of memory is stated: measured by what is allocated, for several kinds of scenes."""

from __future__ import annotations

import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from resegeo import prepare
from resegeo.run.compute import Models, open_segments, read_item
from resegeo.run.pipeline import Room, item_bytes, tile_bytes, turns

WORDS = ["water", "forest"]
KINDS: list[tuple[str, dict[str, Any]]] = [
    ("uint8", {"segments": "none"}),
    ("uint16", {"segments": "none", "resize": 700}),
    ("uint8", {"segments": "superpixels"}),
    ("uint8", {"segments": "superpixels", "superpixel_area": (1024, 4096)}),
]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    import rasterio
    from rasterio.transform import from_origin

    folder = tmp_path_factory.mktemp("scenes")
    bands = np.random.default_rng(0).integers(1, 255, (3, 16, 16)).repeat(44, axis=1).repeat(44, axis=2)
    for dtype in ("uint8", "uint16"):
        profile = {"count": 3, "height": 704, "width": 704, "dtype": dtype, "crs": "EPSG:32633"}
        place = from_origin(5e5, 5e6, 10, 10)
        with rasterio.open(folder / f"{dtype}.tif", "w", driver="GTiff", transform=place, **profile) as raster:
            raster.write(bands.astype(dtype))
    return folder


def peak(plan: Any, ahead: int) -> int:
    """Bytes that reading so many items at a time allocates at most."""
    segments = open_segments(plan, "cpu", None, Models(), threads=2)
    items = [plan.grid.item(index) for index in range(ahead)]
    tracemalloc.start()
    try:
        with ThreadPoolExecutor(ahead) as pool:
            batches = list(pool.map(lambda item: read_item(plan, segments, item), items))
        assert all(batch.windows.all() for batch in batches)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("dtype", "options"), KINDS)
def test_reading_takes_no_more_memory_than_is_stated_and_not_much_less(tmp_path, scenes, dtype, options):
    plan = prepare(scenes / f"{dtype}.tif", WORDS, tmp_path, **options).plan
    peak(plan, 1)  # libraries that are imported by the first
    stated = item_bytes(plan) + tile_bytes(plan)
    assert stated / 3 <= peak(plan, 1) <= stated


def test_reading_ahead_takes_no_more_memory_than_is_stated(tmp_path, scenes):
    plan = prepare(scenes / "uint8.tif", WORDS, tmp_path, segments="superpixels").plan
    found = peak(plan, 3)
    stated = Room(3).bytes(plan, threads=2)
    assert stated / 4 <= found <= stated
    assert stated >= 3 * item_bytes(plan) + 2 * tile_bytes(plan)
    assert turns(2) == 2
