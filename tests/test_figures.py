from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from resegeo.classes.class_file import class_list
from resegeo.errors import ResegeoError
from resegeo.outputs.picture import _legend, _Page, _thinned, look_at, write_overlay
from resegeo.outputs.raster import write_class_raster
from resegeo.scene.reader import open_scene

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
    write_overlay(tmp_path / "a.png", look_at(scene), tmp_path / "a.classes.tif", CLASSES)
    with Image.open(tmp_path / "a.png") as page:
        assert max(page.size) <= 2048
        pixels = np.array(page.convert("RGB")).astype(int)
    blue = (pixels[..., 2] - pixels[..., 0] > 100).mean()
    red = (pixels[..., 0] - pixels[..., 2] > 100).mean()
    assert blue > 0
    if width > 1:
        assert red > 0
        assert 0.5 < blue / red < 2


def drawn(make_raster, tmp_path, codes, classes, **options):
    height, width = codes.shape
    random = np.random.default_rng(0)
    scene = open_scene(make_raster("a.tif", random.integers(0, 255, (3, height, width)).astype(np.uint8)))
    write_class_raster(
        tmp_path / "a.classes.tif",
        [(0, 0, codes)],
        height=height,
        width=width,
        georeference=scene.georeference,
        classes=classes,
        tags={},
    )
    write_overlay(tmp_path / "a.png", look_at(scene), tmp_path / "a.classes.tif", classes, **options)
    return scene


def test_shares_count_every_valid_pixel_and_not_the_thinned_ones(make_raster, tmp_path):
    codes = np.full((1100, 1200), 1, np.uint8)
    codes[::3, ::3] = 2  # a multiple of most steps by which one might thin
    codes[:100] = 255
    scene = drawn(make_raster, tmp_path, codes, CLASSES, max_side=300)
    page = _Page.plan(1100, 1200, 300, 4)
    rgb, thin, counts = _thinned(look_at(scene), tmp_path / "a.classes.tif", page)
    assert rgb.shape == (*thin.shape, 3)
    assert max(thin.shape) < 300
    share = 100 * (codes == 2).sum() / (codes != 255).sum()
    assert [text for _, text in _legend(counts, CLASSES)] == [f"left  {100 - share:.1f} %", f"right  {share:.1f} %"]


@pytest.mark.parametrize("max_side", [256, 700, 2048])
@pytest.mark.parametrize("count", [1, 60, 300])
def test_any_number_of_classes_and_any_name_fits_the_page(make_raster, tmp_path, count, max_side):
    classes = class_list([f"{'long ' * 60}{n}" for n in range(count)])
    codes = (np.arange(90 * 120).reshape(90, 120) // 30 % (count + 1)).astype(classes.dtype)
    drawn(make_raster, tmp_path, codes, classes, max_side=max_side)
    with Image.open(tmp_path / "a.png") as page:
        assert max(page.size) <= max_side


def test_equal_input_gives_an_equal_picture(make_raster, tmp_path):
    codes = np.ones((80, 90), np.uint8)
    found = []
    for _ in range(2):
        drawn(make_raster, tmp_path, codes, CLASSES)
        found.append((tmp_path / "a.png").read_bytes())
    assert found[0] == found[1]


def test_a_picture_that_cannot_be_written_leaves_a_sentence_and_no_file(make_raster, tmp_path):
    scene = drawn(make_raster, tmp_path, np.ones((20, 20), np.uint8), CLASSES)
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(ResegeoError, match="could not be drawn"):
        write_overlay(tmp_path / "folder.png", look_at(scene), tmp_path / "a.classes.tif", CLASSES)
    assert not list(tmp_path.glob(".tmp-*"))
