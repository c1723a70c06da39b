from __future__ import annotations

import pytest

from resegeo.clip.attention import Schedule
from resegeo.errors import UsageError
from resegeo.settings import Settings, resolve_settings


def test_options_go_before_the_file_the_file_before_the_preset(tmp_path):
    file = tmp_path / "settings.yml"
    file.write_text("stride: 40\nreduction: mean\nsegments: none\nsuperpixel_area: 900\n")
    settings = resolve_settings({"reduction": "logsumexp", "stride": None}, preset="paper", file=file)
    assert (settings.reduction, settings.stride, settings.segments) == ("logsumexp", 40, "none")
    assert (settings.logit_scale, settings.superpixel_area) == (1.0, (900,))


def test_the_default_stride_is_half_a_window_and_the_papers_a_whole_one():
    assert Settings().step(224) == 112
    assert resolve_settings({"segments": "none"}, preset="paper").step(224) == 224


def test_layers_not_given_follow_the_papers_shares():
    assert Settings().schedule(24) == Schedule(18, 4, 2)
    assert Settings(segment_layers=6).schedule(24) == Schedule(16, 6, 2)
    assert Settings(free_layers=12, segment_layers=0, local_layers=0).schedule(12) == Schedule(12, 0, 0)
    with pytest.raises(UsageError, match="add up to 23, but the model has 24"):
        Settings(free_layers=17).schedule(24)


@pytest.mark.parametrize(
    ("knob", "value", "words"),
    [
        ("stride", 0, "whole number of 1 or more"),
        ("stride", 1.5, "whole number"),
        ("stride", True, "whole number"),
        ("overlap", 1.0, "from 0 to 0.95"),
        ("logit_scale", -1, "number above 0"),
        ("logit_scale", float("nan"), "number"),
        ("threshold", 1.1, "from 0 to 1"),
        ("edge", "crop", "clamp or overhang"),
        ("reduction", "min", "max, mean or logsumexp"),
        ("vector", ("dxf",), "gpkg, shp"),
        ("taper", "yes", "true or false"),
        ("superpixel_area", (), "is empty"),
        ("segments", 3, "superpixels, sam, none, or a file"),
    ],
)
def test_a_value_out_of_range_is_named_with_what_is_expected(knob, value, words):
    with pytest.raises(UsageError, match=words):
        Settings(**{knob: value})


@pytest.mark.parametrize(
    ("text", "words"),
    [("- 1\n", "holds a list"), ("a: [\n", "line 2: this is not valid YAML"), ("strid: 3\n", "did you mean stride")],
)
def test_a_settings_file_that_is_none_is_named(tmp_path, text, words):
    file = tmp_path / "settings.yml"
    file.write_text(text)
    with pytest.raises(UsageError, match=words):
        resolve_settings(file=file)


def test_an_empty_settings_file_changes_nothing(tmp_path):
    file = tmp_path / "settings.yml"
    file.write_text("# nothing\n")
    assert resolve_settings(file=file) == Settings()
