"""Words on a few windows: which windows, and that prompts fare as they would as classes of their own."""

from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import resegeo
from resegeo.classes.class_file import class_list
from resegeo.errors import ResegeoError, UsageError
from resegeo.run.trial import differing, try_words
from resegeo.scene.windows import Rect
from resegeo_cli.main import main

pytestmark = [
    pytest.mark.usefixtures("quick_model"),
    pytest.mark.filterwarnings("ignore::resegeo.errors.ResegeoWarning"),
]
WORDS = [
    {"name": "water", "prompts": ["water", "lake"]},
    {"name": "forest", "prompts": ["forest", "trees", "forest"]},
    "road",
]
PROMPTS = ["water", "lake", "forest", "trees", "forest", "road"]


def test_windows_that_differ_are_chosen_and_the_most_ordinary_first():
    looks = np.repeat([[0.0], [10.0], [100.0]], [5, 3, 2], axis=0)
    apart = [Rect(0, 10 * number, 10, 10) for number in range(10)]
    chosen = differing(looks, apart, 3)
    assert chosen == differing(looks, apart, 3)
    assert sorted(looks[chosen, 0]) == [0, 10, 100]
    assert looks[chosen[0], 0] in (0, 10)
    assert sorted(differing(looks, apart, 99)) == list(range(10))


def test_what_windows_share_does_not_make_them_differ():
    looks = np.array([[0.0], [0.0], [9.0], [8.0]])
    places = [Rect(0, 0, 10, 10), Rect(0, 90, 10, 10), Rect(0, 1, 10, 10), Rect(0, 50, 10, 10)]
    assert differing(looks[:3], places[:3], 2) == [0, 2]
    assert differing(looks, places, 2)[1] == 3


@pytest.fixture
def scene(make_raster, picture):
    """Of the size of one window."""
    return make_raster("scene.tif", picture(64, 64, seed=3))


def test_prompts_fare_as_if_each_were_a_class_of_its_own(scene, tmp_path):
    found = try_words(scene, class_list(WORDS), tmp_path / "sheet.png", count=1)
    alone = [{"name": prompt, "prompts": [prompt]} for prompt in PROMPTS if prompt != "forest"] + ["forest"]
    result = resegeo.segment(scene, class_list(alone), tmp_path / "alone", vector=())
    codes = result.codes().values
    shares = {entry if isinstance(entry, str) else entry["name"]: 0.0 for entry in alone}
    shares = {name: (codes == code).mean() for code, name in enumerate(shares, 1)}
    assert [each.prompt for each in found.prompts] == PROMPTS
    assert [each.class_name for each in found.prompts] == ["water", "water", "forest", "forest", "forest", "road"]
    for each in found.prompts:
        if each.prompt != "forest":  # which is there twice, and the second loses every tie
            assert each.share == pytest.approx(shares[each.prompt], abs=1e-3)
    twice = found.prompts[2].share + found.prompts[4].share
    assert twice == pytest.approx(shares["forest"], abs=1e-3)


def test_windows_show_the_classes_of_a_run(scene, tmp_path):
    found = try_words(scene, class_list(WORDS), tmp_path / "sheet.png", count=6)
    result = resegeo.segment(scene, class_list(WORDS), tmp_path / "run", vector=())
    codes = result.codes().values
    (window,) = found.windows
    assert (window.rows, window.cols) == ((0, 63), (0, 63))
    for code, name in enumerate(("water", "forest", "road"), 1):
        assert window.shares.get(name, 0) == pytest.approx((codes == code).mean(), abs=1e-4)
    assert list(window.shares.values()) == sorted(window.shares.values(), reverse=True)


def test_a_prompt_that_no_pixel_takes_is_named_with_what_beats_it(scene, tmp_path):
    """Of two equal prompts the first wins every tie."""
    found = try_words(scene, class_list(WORDS), tmp_path / "sheet.png")
    again = found.prompts[4]
    assert again in found.never
    assert (again.share, again.windows) == (0, ())
    assert again.rival in ("water", "lake", "road")
    assert again.nearest == 1 or not found.prompts[2].share


def test_windows_do_not_depend_on_words(make_raster, picture, tmp_path):
    scene = make_raster("large.tif", picture(400, 600, seed=1))
    first = try_words(scene, class_list(WORDS), tmp_path / "a.png", count=3)
    second = try_words(scene, class_list(["cloud", "sand"]), tmp_path / "b.png", count=3)
    assert [(w.rows, w.cols) for w in first.windows] == [(w.rows, w.cols) for w in second.windows]
    assert len({(w.rows, w.cols) for w in first.windows}) == 3
    sizes = []
    for name in ("a.png", "b.png"):
        with Image.open(tmp_path / name) as sheet:
            sizes.append(sheet.size)
    assert sizes[0][0] == sizes[1][0] > 1000


def test_the_command_prints_a_table_notes_and_the_sheet(scene, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "classes.yml").write_text("classes: [{name: a, prompts: [water, water]}, forest]")
    shown = CliRunner().invoke(main, ["try", str(scene), "--prompts", "classes.yml"])
    assert shown.exit_code == 0, shown.output
    assert shown.stdout == "scene.try.png\n"
    assert "competes with" in shown.stderr
    assert "no pixel takes 'water' (a)" in shown.stderr
    assert not (tmp_path / "scene_resegeo").exists()
    told = CliRunner().invoke(main, ["try", str(scene), "--prompts", "classes.yml", "--json", "--overwrite"])
    plain = json.loads(told.stdout)
    assert sum(each["share"] for each in plain["prompts"]) == pytest.approx(1, abs=1e-5)


def test_mistakes_of_a_trial(scene, make_raster, tmp_path):
    classes = class_list(WORDS)
    (tmp_path / "mine.png").write_bytes(b"mine")
    with pytest.raises(ResegeoError, match="exists"):
        try_words(scene, classes, tmp_path / "mine.png")
    with pytest.raises(UsageError, match=r"its suffix is \.png"):
        try_words(scene, classes, tmp_path / "sheet.jpg")
    with pytest.raises(UsageError, match="1 to 40 windows"):
        try_words(scene, classes, count=0)
    empty = make_raster("empty.tif", np.zeros((3, 64, 64), dtype=np.uint8), nodata=0)
    with pytest.raises(ResegeoError, match="has no valid pixel"):
        try_words(empty, classes, tmp_path / "sheet.png")
    resegeo.segment(scene, classes, tmp_path / "run", vector=())
    with pytest.raises(UsageError, match="is a store"):
        try_words(tmp_path / "run/scene.store.zarr", classes, tmp_path / "sheet.png")
    assert (tmp_path / "mine.png").read_bytes() == b"mine"
    assert not (tmp_path / "sheet.png").exists()
