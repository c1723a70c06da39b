from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from resegeo.classes import class_list
from resegeo.figures import write_overlay
from resegeo.raster import write_class_raster
from resegeo.scene import open_scene

CLASSES = class_list([{"name": "left", "color": "#ff0000"}, {"name": "right", "color": "#0000ff"}])


@pytest.mark.parametrize(("height", "width"), [(1, 1), (200, 300), (300, 2500), (2500, 300), (1500, 1500)])
def test_the_picture_fits_and_shows_each_class_in_its_colour(make_raster, tmp_path, height, width):
    scene = open_scene(make_raster("a.tif", np.full((3, height, width), 128, np.uint8)))
    codes = np.full((height, width), 1, np.uint8)
    codes[:, width // 2 :] = 2
    write_class_raster(
        tmp_path / "a.classes.tif",
        [(0, 0, codes)],
        height=height,
        width=width,
        georeference=scene.georeference,
        classes=CLASSES,
        tags={},
    )
    write_overlay(tmp_path / "a.png", scene, tmp_path / "a.classes.tif", CLASSES)
    with Image.open(tmp_path / "a.png") as page:
        assert max(page.size) <= 2048
        pixels = np.array(page.convert("RGB")).astype(int)
    blue = (pixels[..., 2] - pixels[..., 0] > 100).mean()
    red = (pixels[..., 0] - pixels[..., 2] > 100).mean()
    assert blue > 0
    if width > 1:
        assert red > 0
        assert 0.5 < blue / red < 2
