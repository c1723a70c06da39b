"""A damaged raster is read as far as it goes, or refused by one sentence: soon, and without a crash."""

from __future__ import annotations

import time

import numpy as np
import pytest
import rasterio
from damaged_rasters import damaged_rasters

from resegeo import ResegeoError, open_scene


@pytest.mark.filterwarnings("ignore")
def test_a_damaged_raster_ends_in_pixels_or_in_a_sentence(tmp_path):
    ends, sentences = {"read": 0, "refused": 0}, list[str]()
    with rasterio.Env(GDAL_CACHEMAX=64):
        for what, path in damaged_rasters(tmp_path, 60, seed=7):
            began = time.monotonic()
            try:
                scene = open_scene(path)
                rgb, valid = scene.read(0, 0, min(scene.height, 64), min(scene.width, 64))
                assert rgb.dtype == np.uint8, what
                assert valid.shape == rgb.shape[:2], what
                ends["read"] += 1
            except ResegeoError as error:
                ends["refused"] += 1
                sentences.append(str(error))
            assert time.monotonic() - began < 60, what  # no hang
    assert min(ends.values()) > 10
    assert not any("\n" in sentence for sentence in sentences)
