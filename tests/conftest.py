from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

if "PYTEST_XDIST_WORKER" in os.environ:  # before torch is loaded: two threads each would wait for one another
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
from hypothesis import settings
from rasters import write_raster

# The same examples each time, so that what is green stays so; `--hypothesis-profile=search` draws others.
settings.register_profile("suite", deadline=None, derandomize=True)
settings.register_profile("search", deadline=None, max_examples=1000)
settings.load_profile("suite")


@pytest.fixture(scope="session", autouse=True)
def shared_models() -> Iterator[None]:
    """Load the bundled model once a process, and embed the same words once; other models are loaded as ever."""
    import resegeo.run.compute
    from resegeo.clip.encoder import Encoder

    load, embed = resegeo.run.compute.load_encoder, Encoder.encode_texts
    kept, words = lru_cache(maxsize=4)(load), lru_cache(maxsize=64)(embed)

    def encoder(source: Any, **options: Any) -> Encoder:
        return (kept if source.path.parent.name == "bundled" else load)(source, **options)

    def texts(self: Encoder, prompts: Any) -> np.ndarray:
        return words(self, tuple(map(tuple, prompts))).copy()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("resegeo.run.compute.load_encoder", encoder)
        patch.setattr("resegeo.clip.encoder.Encoder.encode_texts", texts)
        yield


@pytest.fixture
def quick_model(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the bundled model see by tests/fakes.py in this process: enough where its labels are not the point.

    A test marked ``model`` in a module that uses this keeps the true one.
    """
    from fakes import quick

    import resegeo.run.compute

    if request.node.get_closest_marker("model"):
        return
    load = resegeo.run.compute.load_encoder

    def encoder(source: Any, **options: Any) -> Any:
        loaded = load(source, **options)
        return quick(loaded) if source.path.parent.name == "bundled" else loaded

    monkeypatch.setattr("resegeo.run.compute.load_encoder", encoder)


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of real imagery that RESEGEO_TEST_DATA names."""
    folder = os.environ.get("RESEGEO_TEST_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("RESEGEO_TEST_DATA names no folder with real imagery")
    return Path(folder)


@pytest.fixture
def make_raster(tmp_path: Path) -> Callable[..., Path]:
    """Write a small GeoTIFF: bands (b, h, w); any option of rasterio's profile by keyword."""

    def write(name: str, bands: np.ndarray, **profile: Any) -> Path:
        return write_raster(tmp_path / name, bands, **profile)

    return write


@pytest.fixture
def picture() -> Callable[..., np.ndarray]:
    """A smooth random RGB picture (3, h, w) uint8 with areas of different colour."""

    def draw(height: int, width: int, seed: int = 0) -> np.ndarray:
        random = np.random.default_rng(seed)
        coarse = random.integers(0, 255, (3, height // 40 + 1, width // 40 + 1)).astype(np.float64)
        areas = coarse.repeat(40, axis=1).repeat(40, axis=2)[:, :height, :width]
        return np.clip(areas + random.normal(0, 12, areas.shape), 0, 255).astype(np.uint8)

    return draw


@pytest.fixture
def synced(monkeypatch):
    """Inodes that were synced; those of files that were written to afterwards are for tests/attack.py to find."""
    found = set()
    fsync = os.fsync

    def noting(descriptor):
        found.add(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noting)
    return found
