"""Presets of published methods against their formulas, written here with plain products on random weights.

The oracle follows the papers and knows nothing of the package: windows in steps of a half, the last layer's attention
head by head, cosines interpolated, logits averaged over windows, a softmax over prompts of which a class takes the
best.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import open_clip
import pytest
import rasterio
import torch
from clips import arch_file, clip
from open_clip.zero_shot_metadata import OPENAI_IMAGENET_TEMPLATES
from torch.nn import functional

import resegeo
from resegeo.classes.class_file import class_list
from resegeo.classes.openai_templates import OPENAI_TEMPLATES
from resegeo.clip.blending import Blender, Grouping, WindowScores
from resegeo.clip.scores import patch_scores
from resegeo.declare import declared
from resegeo.errors import ResegeoError, UsageError
from resegeo.scene.reader import open_scene
from resegeo.scene.resampling import Canvas
from resegeo.scene.windows import Rect
from resegeo.settings import LABEL_KNOBS, PRESETS, Settings, resolve_settings

SIDE, PATCH, LAYERS, HEADS = 32, 8, 3, 2
CHANGES = {"layers": LAYERS, "head_width": 32}
WORDS = {"water": ["water", "a lake"], "road": ["road"], "houses": ["house", "roof", "building"]}


@dataclass(frozen=True)
class Published:
    """A method as its paper puts it."""

    terms: tuple[str, ...] = ("qk",)
    residual: bool = True
    mlp: bool = True
    scale: float | None = None
    """None: the model's own."""
    cls: float = 0.0


METHODS = {
    "plain": Published(),
    "maskclip": Published(terms=("v",)),
    "sclip": Published(terms=("qq", "kk"), scale=40.0),
    "clearclip": Published(terms=("qq",), residual=False, mlp=False, scale=50.0),
    "segearth": Published(terms=("qq", "kk", "vv"), residual=False, mlp=False, scale=50.0, cls=0.3),
}


def tokens_of(visual, images: torch.Tensor, how: Published) -> torch.Tensor:
    """All tokens of windows (B, 3, S, S) after the last layer, LayerNorm and projection."""
    patches = functional.conv2d(images, visual.conv1.weight, stride=PATCH).flatten(2).transpose(1, 2)
    x = torch.cat([visual.class_embedding.expand(len(images), 1, -1), patches], dim=1) + visual.positional_embedding
    x = visual.ln_pre(x)
    for number, block in enumerate(visual.transformer.resblocks, 1):
        here = how if number == LAYERS else Published()
        qkv = block.ln_1(x) @ block.attn.in_proj_weight.T + block.attn.in_proj_bias
        parts = dict(zip("qkv", qkv.chunk(3, dim=-1), strict=True))
        heads = []
        for head in range(HEADS):
            q, k, v = (parts[name][..., 32 * head : 32 * head + 32] for name in "qkv")
            own = {"q": q, "k": k, "v": v}
            mixed = torch.zeros_like(v)
            for term in here.terms:
                if term == "v":
                    mixed = mixed + v
                else:
                    mixed = mixed + (own[term[0]] @ own[term[1]].transpose(1, 2) / 32**0.5).softmax(-1) @ v
            heads.append(mixed)
        attended = torch.cat(heads, dim=-1) @ block.attn.out_proj.weight.T + block.attn.out_proj.bias
        x = x + attended if here.residual else attended
        if here.mlp:
            x = x + block.mlp(block.ln_2(x))
    return visual.ln_post(x) @ visual.proj


def words_of(model) -> torch.Tensor:
    """Embedded prompts (Q, D), each the mean of OpenAI's templates."""
    tokenizer = open_clip.SimpleTokenizer(context_length=16)
    rows = []
    for word in (word for words in WORDS.values() for word in words):
        each = functional.normalize(model.encode_text(tokenizer([t(word) for t in OPENAI_IMAGENET_TEMPLATES])), dim=-1)
        rows.append(functional.normalize(each.mean(dim=0), dim=0))
    return torch.stack(rows)


def expected(model, texts: torch.Tensor, image: np.ndarray, how: Published) -> np.ndarray:
    """Probabilities (C, H, W) of an image (3, H, W)."""
    prompts = [(number, word) for number, words in enumerate(WORDS.values()) for word in words]
    mean = torch.tensor(open_clip.OPENAI_DATASET_MEAN).view(3, 1, 1)
    std = torch.tensor(open_clip.OPENAI_DATASET_STD).view(3, 1, 1)
    pixels = (torch.from_numpy(image).float() / 255 - mean) / std
    _, height, width = image.shape
    total, count = torch.zeros(len(prompts), height, width), torch.zeros(height, width)
    down, across = (
        sorted({min(at, size - SIDE) for at in range(0, size - SIDE // 2, SIDE // 2)}) for size in (height, width)
    )
    for row in down:
        for col in across:
            cut = (..., slice(row, row + SIDE), slice(col, col + SIDE))
            tokens = functional.normalize(tokens_of(model.visual, pixels[cut][None], how), dim=-1)[0]
            cosines = tokens[1:] @ texts.T - how.cls * (tokens[0] @ texts.T)
            grid = cosines.T.reshape(1, len(prompts), SIDE // PATCH, SIDE // PATCH)
            total[cut] += functional.interpolate(grid, size=(SIDE, SIDE), mode="bilinear")[0]
            count[cut] += 1
    scale = model.logit_scale.exp() if how.scale is None else how.scale
    shares = (scale * total / count).softmax(dim=0)
    owner = torch.tensor([number for number, _ in prompts])
    return torch.stack([shares[owner == number].amax(dim=0) for number in range(len(WORDS))]).numpy()


@pytest.fixture(scope="module")
def model():
    return clip(3, vision=CHANGES)


@pytest.fixture
def weights(model, tmp_path):
    """The options that name the model."""
    torch.save(model.state_dict(), tmp_path / "tiny.pt")
    arch = arch_file(tmp_path, vision_cfg=CHANGES)
    return {"model": str(tmp_path / "tiny.pt"), "arch": str(arch), "activation": "gelu"}


@pytest.fixture(scope="module")
def oracle(model, image):
    """Probabilities by method."""
    with torch.no_grad():
        texts = words_of(model)
        return {name: expected(model, texts, image, how) for name, how in METHODS.items()}


@pytest.fixture(scope="module")
def image():
    random = np.random.default_rng(5)
    return random.integers(0, 255, (3, 7, 8)).repeat(7, axis=1).repeat(7, axis=2)[:, :47, :55].astype(np.uint8)


def classes():
    return [{"name": name, "prompts": words} for name, words in WORDS.items()]


@pytest.mark.parametrize("name", METHODS)
def test_a_preset_gives_the_probabilities_of_its_paper(name, oracle, weights, image, make_raster, tmp_path):
    scene = make_raster("scene.tif", image)
    result = resegeo.segment(scene, classes(), tmp_path / "out", preset=name, scores=True, vector=(), **weights)
    with rasterio.open(tmp_path / "out" / "scene.scores.tif") as raster:
        found = raster.read() / 200
    by_method = oracle
    assert np.abs(found - by_method[name]).max() < 0.01  # features are kept as float16, scores in steps of 1/200
    nearest = min(by_method, key=lambda each: np.abs(found - by_method[each]).mean())
    assert nearest == name
    first, second = np.sort(by_method[name], axis=0)[:-3:-1]
    clear = first - second > 0.02
    assert clear.mean() > 0.5
    assert np.array_equal(result.codes().to_numpy()[clear], by_method[name].argmax(axis=0)[clear] + 1)


def test_every_preset_but_the_default_and_the_papers_has_its_oracle():
    assert set(METHODS) == set(PRESETS) - {"default", "paper"}


def test_the_templates_are_openais():
    assert tuple(each("{}") for each in OPENAI_IMAGENET_TEMPLATES) == OPENAI_TEMPLATES


def test_the_templates_of_a_class_file_go_before_a_presets_and_an_option_before_both(weights, image, make_raster):
    scene = make_raster("scene.tif", image)
    own = class_list(["water", "road"], templates=["seen from above: {}"])
    for given, knobs, count in [
        (["water", "road"], {}, 80),
        (own, {}, 1),
        (own, {"templates": "openai"}, 80),
        (["water", "road"], {"templates": "file"}, 1),
    ]:
        plan = resegeo.prepare(scene, given, preset="sclip", **knobs, **weights).plan
        assert {len(texts) for texts in plan.classes.prompt_texts} == {count}
    many = class_list([{"name": "a", "prompts": [f"{n} stones" for n in range(251)]}, "b"])
    with pytest.raises(UsageError, match=r"templates=.*openai.* makes 20,160 texts of 252 prompts, more than 20,000"):
        resegeo.prepare(scene, many, templates="openai", **weights)


def test_a_finished_store_takes_templates_interpolation_and_average_anew(weights, image, make_raster, tmp_path):
    scene = make_raster("scene.tif", image)
    fresh = {"templates": "openai", "interpolate": "scores", "average": "logits"}
    assert fresh.keys() <= LABEL_KNOBS
    resegeo.segment(scene, classes(), tmp_path / "a", vector=(), **weights)
    again = resegeo.segment(
        tmp_path / "a" / "scene.store.zarr", classes(), tmp_path / "b", vector=(), **fresh, **weights
    )
    direct = resegeo.segment(scene, classes(), tmp_path / "c", vector=(), **fresh, **weights)
    assert np.array_equal(again.codes(), direct.codes())
    with pytest.raises(UsageError, match=r"last_attention.*: fixed in"):
        resegeo.segment(tmp_path / "a" / "scene.store.zarr", classes(), tmp_path / "d", last_attention="qq", **weights)


def test_the_image_side_depends_on_the_last_layer_and_the_size_and_not_on_the_order_of_terms(
    weights, image, make_raster
):
    scene = make_raster("scene.tif", image)

    def identity(**knobs):
        return resegeo.prepare(scene, ["water", "road"], **knobs, **weights).plan.image_options()

    usual = identity()
    for knobs in ({"last_attention": "qq"}, {"last_residual": False}, {"last_mlp": False}, {"resize": 40}):
        assert identity(**knobs) != usual
    assert identity(last_attention="vv,qq") == identity(last_attention=("qq", "vv"))
    for knobs in ({"average": "logits"}, {"interpolate": "scores"}, {"templates": "openai"}):
        assert identity(**knobs) == usual


@pytest.mark.parametrize("shape", [(47, 55), (55, 47)])
def test_a_resized_scene_is_seen_as_at_the_ground_size_that_comes_to_the_same(
    shape, weights, image, make_raster, tmp_path
):
    pixels = image[:, : shape[0], : shape[1]] if shape[0] < shape[1] else image.transpose(0, 2, 1)
    placed, bare = make_raster("placed.tif", pixels), make_raster("bare.tif", pixels, crs=None, transform=None)
    by_size = resegeo.segment(bare, classes(), tmp_path / "a", resize=33, vector=(), **weights)
    by_gsd = resegeo.segment(placed, classes(), tmp_path / "b", gsd=10 * 55 / 33, vector=(), **weights)
    assert by_size.codes().shape == shape
    assert np.array_equal(by_size.codes(), by_gsd.codes())
    plan = resegeo.prepare(bare, classes(), resize=33, **weights).plan
    assert max(plan.canvas.height, plan.canvas.width) == 33
    assert resegeo.prepare(bare, classes(), resize=55, **weights).plan.canvas.native


def test_self_self_is_short_for_three_terms_without_residual_and_mlp():
    long = Settings(last_attention="qq,kk,vv", last_residual=False, last_mlp=False)
    assert Settings(self_self=True).last_layer == long.last_layer
    with pytest.raises(UsageError, match=r"self_self.* says all of the last layer"):
        Settings(self_self=True, last_mlp=False)


def test_a_later_knob_at_its_default_is_not_recorded_so_that_earlier_stores_and_results_still_fit():
    later = {name for name, what in declared(Settings).items() if what.about.later}
    image = "resize last_attention last_residual last_mlp superpixel_scale"
    names = f"{image} interpolate average templates smooth regularize"
    assert later == set(names.split())
    assert not later & Settings().as_dict().keys()
    chosen = Settings(last_mlp=False, average="logits").as_dict()
    assert later & chosen.keys() == {"last_mlp", "average"}
    assert resolve_settings(chosen) == Settings(last_mlp=False, average="logits")


def test_sizes_that_make_no_sense_are_refused(weights, image, make_raster, tmp_path):
    scene = make_raster("scene.tif", image)
    with pytest.raises(UsageError, match=r"resize=1.* is too far from the scene's own 55 × 47 pixels"):
        resegeo.prepare(scene, classes(), resize=1, **weights)
    with pytest.raises(UsageError, match=r"gsd.* and .*resize.* say the same in two ways"):
        Settings(gsd=2.0, resize=40)
    file = tmp_path / "s.yml"
    file.write_text("resize: 40\n")
    settings = resolve_settings({"gsd": 2.0}, file=file)
    assert (settings.gsd, settings.resize) == (2.0, None)
    with pytest.raises(ResegeoError, match=r"last_attention is 'qx'; expected qk, qq, kk or vv"):
        Settings(last_attention=("qx",))


@pytest.mark.parametrize("softmax_over", ["classes", "prompts"])
@pytest.mark.parametrize("reduction", ["max", "mean", "logsumexp"])
def test_logits_averaged_over_windows_equal_the_direct_form(softmax_over, reduction, make_raster, picture):
    """Pixel by pixel from interpolated features; with classes, residuals that examples fitted included."""
    canvas = Canvas(open_scene(make_raster("scene.tif", picture(24, 30))))
    random = np.random.default_rng(0)
    owner, count = (0, 0, 1, 2), 3
    added = random.normal(size=(count, 24, 30)).astype(np.float32) if softmax_over == "classes" else None
    vectors = random.normal(size=(4 + (0 if added is None else count), 6)).astype(np.float32)
    vectors[:4] /= np.linalg.norm(vectors[:4], axis=1, keepdims=True)
    grouping = Grouping(owner, count, reduction, softmax_over, corrected=added is not None)
    stored = vectors if added is None else grouping.corrected_by(vectors[:4], vectors[4:], 7.0)
    rects = [Rect(0, 0, 16, 16), Rect(4, 9, 16, 16)]
    features = random.normal(size=(2, 4, 4, 6)).astype(np.float32)
    reduced = patch_scores(features, stored)
    windows = [WindowScores(rect, one, one[:4, 0, 0]) for rect, one in zip(rects, reduced, strict=True)]
    blender = Blender(canvas, grouping, logit_scale=7.0, taper=False, average="logits")
    found = blender.blend(Rect(0, 0, 24, 30), windows, added)
    total, times = np.zeros((len(vectors), 24, 30)), np.zeros((24, 30))
    for rect, f in zip(rects, features, strict=True):
        fine = functional.interpolate(torch.from_numpy(f).permute(2, 0, 1)[None], size=(16, 16), mode="bilinear")[0]
        unit = functional.normalize(fine, dim=0).numpy()
        here = (slice(rect.row, rect.bottom), slice(rect.col, rect.right))
        total[:, *here] += np.einsum("qd,dhw->qhw", vectors, unit)
        times[here] += 1
    with np.errstate(invalid="ignore"):
        logits = total / times
    logits[:4] *= 7.0
    groups = [np.flatnonzero(np.equal(owner, number)) for number in range(count)]
    if softmax_over == "prompts":
        shares = np.exp(logits) / np.exp(logits).sum(axis=0)
        how = {"max": np.max, "mean": np.mean, "logsumexp": np.sum}[reduction]
        direct = np.stack([how(shares[own], axis=0) for own in groups])
    else:
        how = {"max": np.max, "mean": np.mean, "logsumexp": lambda x, axis: np.log(np.exp(x).mean(axis=axis))}[
            reduction
        ]
        by_class = np.stack([how(logits[own], axis=0) for own in groups]) + logits[4:] + added
        direct = np.exp(by_class) / np.exp(by_class).sum(axis=0)
    assert np.array_equal(np.isnan(found), np.isnan(direct))
    assert np.nanmax(np.abs(found - direct)) < 1e-4
