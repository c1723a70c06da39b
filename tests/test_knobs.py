"""Every knob of the method, by flag and by settings file: it is taken, recorded, and changes what it should."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import rasterio
import yaml
from click.testing import CliRunner

import resegeo
from resegeo.errors import UsageError
from resegeo.settings import PRESETS, Settings, resolve_settings
from resegeo_cli.main import main

WORDS = ["water", "forest", "road", {"name": "houses", "prompts": ["building", "roof"]}]

KNOBS = [
    # flag, setting, value
    (["--gsd", "12"], "gsd", 12.0),
    (["--segments", "none"], "segments", "none"),
    (["--superpixel-area", "256,1024"], "superpixel_area", [256, 1024]),
    (["--superpixel-scale", "half"], "superpixel_scale", "half"),
    (["--sam-mode", "exact"], "sam_mode", "exact"),
    (["--stride", "96"], "stride", 96),
    (["--overlap", "0.25"], "overlap", 0.25),
    (["--free-layers", "5", "--segment-layers", "2", "--local-layers", "1"], "free_layers", 5),
    (["--segment-layers", "3"], "segment_layers", 3),
    (["--local-layers", "0"], "local_layers", 0),
    (["--local-radius", "1"], "local_radius", 1),
    (["--self-self"], "self_self", True),
    (["--last-attention", "vv,qq"], "last_attention", ["qq", "vv"]),
    (["--edge", "overhang"], "edge", "overhang"),
    (["--fill", "black"], "fill", "black"),
    (["--no-taper"], "taper", False),
    (["--logit-scale", "3"], "logit_scale", 3.0),
    (["--subtract-cls", "0.3"], "subtract_cls", 0.3),
    (["--vote-segments"], "vote_segments", True),
    (["--reduction", "mean"], "reduction", "mean"),
    (["--threshold", "0.9"], "threshold", 0.9),
    (["--no-use-thresholds"], "use_thresholds", False),
    (["--precision", "bfloat16"], "precision", "bfloat16"),
    (["--simplify", "1"], "simplify", 1.0),
    (["--keep-background"], "keep_background", True),
    (["--vector", "none"], "vector", []),
]


@pytest.fixture
def scene(make_raster, picture):
    return make_raster("scene.tif", picture(140, 150))


@pytest.mark.parametrize(("flags", "name", "value"), KNOBS, ids=[knob[1] for knob in KNOBS])
def test_a_knob_is_taken_from_a_flag_and_from_a_file_and_recorded(tmp_path, scene, flags, name, value):
    (tmp_path / "classes.yml").write_text("classes: [water, forest, road]\n")
    (tmp_path / "knobs.yml").write_text(yaml.safe_dump({name: value}))
    common = ["segment", str(scene), "--prompts", str(tmp_path / "classes.yml")]
    ways = [flags]
    if len(flags) <= 2:
        ways.append(["--settings", str(tmp_path / "knobs.yml")])
    for number, way in enumerate(ways):
        out = tmp_path / str(number)
        done = CliRunner().invoke(main, [*common, *way, "-o", str(out)])
        assert done.exit_code == 0, done.output
        recorded = json.loads((out / "scene.json").read_text("utf-8"))["resegeo"]["settings"]
        assert recorded[name] == value
        assert recorded[name] != json.loads(json.dumps(asdict(Settings())))[name]


def test_every_setting_has_a_flag():
    """All but the level table, which is a table."""
    flags = {parameter.name for parameter in main.commands["segment"].params}
    assert set(asdict(Settings())) - flags == {"sam_levels"}


def test_the_paper_preset_is_the_papers_and_presets_leave_the_model_alone():
    paper = resolve_settings(preset="paper")
    assert (paper.segments, paper.sam_mode, paper.overlap, paper.edge, paper.fill) == (
        "sam",
        "exact",
        0.0,
        "overhang",
        "black",
    )
    assert (paper.logit_scale, paper.taper, paper.reduction, paper.use_thresholds) == (1.0, False, "max", False)
    assert paper.self_self is False
    assert (paper.last_attention, paper.last_residual, paper.last_mlp) == (("qk",), True, True)
    assert (paper.subtract_cls, paper.vote_segments, paper.resize, paper.templates) == (0.0, False, None, "file")
    assert (paper.interpolate, paper.average) == ("features", "probabilities")
    rows = [
        (level.points_per_side, level.pred_iou_thresh, level.stability_score_thresh, level.min_mask_region_area)
        for level in paper.sam_levels
    ]
    assert rows == [(4, 0.5, 0.5, 500), (2, 0.6, 0.6, 500), (2, 0.5, 0.5, 1000), (2, 0.5, 0.5, 2000)]
    for preset in PRESETS.values():
        assert not {"model", "arch", "sam_checkpoint"} & set(preset)


def test_a_level_table_of_ones_own_is_read_and_a_wrong_one_refused(tmp_path):
    row = {
        "points_per_side": 8,
        "pred_iou_thresh": 0.7,
        "stability_score_thresh": 0.8,
        "min_mask_region_area": 10,
    }
    (tmp_path / "levels.yml").write_text(yaml.safe_dump({"sam_levels": [row, row]}))
    found = resolve_settings(file=tmp_path / "levels.yml")
    assert [level.points_per_side for level in found.sam_levels] == [8, 8]
    for wrong in ([], [{**row, "points": 3}], [{**row, "points_per_side": 0}], [{**row, "pred_iou_thresh": "x"}], 3):
        (tmp_path / "levels.yml").write_text(yaml.safe_dump({"sam_levels": wrong}))
        with pytest.raises(UsageError, match=r"sam_levels|SAM level"):
            resolve_settings(file=tmp_path / "levels.yml")


def test_a_flag_for_overlap_goes_before_a_stride_from_the_file(tmp_path):
    (tmp_path / "knobs.yml").write_text("stride: 17\n")
    assert resolve_settings({"overlap": 0.75}, file=tmp_path / "knobs.yml").step(128) == 32
    assert resolve_settings({}, file=tmp_path / "knobs.yml").step(128) == 17
    with pytest.raises(UsageError, match="give one of them"):
        resolve_settings({"overlap": 0.75, "stride": 3})


def codes(scene, out: Path, **knobs: object) -> np.ndarray:
    result = resegeo.segment(scene, WORDS, out, vector=(), **knobs)
    with rasterio.open(result.raster) as raster:
        return raster.read(1)


@pytest.mark.parametrize(
    "knobs",
    [
        {"self_self": True},
        {"subtract_cls": 5.0},
        {"vote_segments": True},
        {"local_layers": 0},
        {"fill": "black", "edge": "overhang"},
        {"superpixel_area": (256, 1024), "segment_layers": 4},
    ],
    ids=lambda knobs: "+".join(knobs),
)
def test_a_knob_changes_some_labels_and_a_run_gives_the_same_twice(tmp_path, scene, knobs):
    usual, first = codes(scene, tmp_path / "usual"), codes(scene, tmp_path / "first", **knobs)
    assert (usual != first).any()
    assert np.array_equal(first, codes(scene, tmp_path / "second", threads=1, **knobs))


def test_voted_labels_are_the_same_all_over_a_segment(tmp_path, make_raster):
    """One window, parcels as segments: one class each."""
    with rasterio.open(Path(__file__).parents[1] / "examples/demo/sentinel2.tif") as demo:
        # Shores, which run through the parcels.
        scene = make_raster("one.tif", demo.read(window=((150, 278), (200, 328))))
    ids = np.arange(16).reshape(4, 4).repeat(32, axis=0).repeat(32, axis=1).astype(np.int32) + 1
    parcels = make_raster("ids.tif", ids[None])
    free = codes(scene, tmp_path / "free", segments=str(parcels))
    voted = codes(scene, tmp_path / "voted", segments=str(parcels), vote_segments=True)
    assert any(len(np.unique(free[ids == number])) > 1 for number in range(1, 17))
    for number in range(1, 17):
        inside = ids == number
        assert len(np.unique(voted[inside])) == 1
        assert voted[inside][0] == np.bincount(free[inside]).argmax()


@pytest.mark.slow
def test_half_precision_gives_nearly_the_labels_of_full_precision(tmp_path):
    demo = Path(__file__).parents[1] / "examples/demo/sentinel2.tif"
    words = ["water", "wetland", "forest", "cropland", "bare soil", "building"]
    made = []
    for precision in ("float32", "bfloat16"):
        result = resegeo.segment(demo, words, tmp_path / precision, precision=precision, vector=())
        with rasterio.open(result.raster) as raster:
            made.append(raster.read(1))
    assert (made[0] == made[1]).mean() >= 0.995
