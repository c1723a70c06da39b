from __future__ import annotations

import math

import numpy as np
import open_clip
import pytest
import torch

from resegeo.checkpoints.sources import ModelSource, file_sha256, resolve_model
from resegeo.clip.attention import LastLayer, Schedule, default_schedule, layer_masks
from resegeo.clip.encoder import Encoder, dense_features, load_encoder, pick_device
from resegeo.clip.tokens import tokenizer_of
from resegeo.errors import ResegeoError, UsageError

DEPTH, GRID = 6, 4


def tiny_clip(*, quick_gelu: bool, seed: int = 0):
    torch.manual_seed(seed)
    vision = {"image_size": 32, "patch_size": 8, "width": 64, "layers": DEPTH, "head_width": 16}
    text = {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
    model = open_clip.CLIP(24, vision, text, quick_gelu=quick_gelu).eval().requires_grad_(False)
    for parameter in model.parameters():  # away from the small initial values, so that attention matters
        parameter.mul_(1.5).add_(torch.randn_like(parameter) * 0.02)
    return model


def test_weights_that_run_out_of_the_range_of_numbers_are_refused():
    """Each parameter is a number, but what is computed from them is none."""
    loaded = load_encoder(resolve_model(), device="cpu")
    for parameter in (loaded.model.visual.proj, loaded.model.text_projection):
        parameter.fill_(3e38)
    with pytest.raises(ResegeoError, match="resegeo-small computes values that are no numbers"):
        loaded.encode_texts([["water"]])
    size, grid = loaded.image_size, loaded.grid
    rgb, valid = np.zeros((1, size, size, 3), np.uint8), np.ones((1, size, size), bool)
    levels = np.zeros((1, 1, grid, grid), np.int64)
    with pytest.raises(ResegeoError, match="in float32: its weights belong to another architecture"):
        loaded.encode_windows(rgb, valid, levels, default_schedule(loaded.depth))


def naive_features(visual, image, levels, schedule, *, quick_gelu):
    """Token by token in float64, written from the method's text alone."""
    p = {name: value.double().numpy() for name, value in visual.state_dict().items()}

    def norm(x, name):
        return (x - x.mean()) / math.sqrt(x.var() + 1e-5) * p[f"{name}.weight"] + p[f"{name}.bias"]

    def gelu(x):
        if quick_gelu:
            return x / (1 + np.exp(-1.702 * x))
        return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))

    kernel = p["conv1.weight"]
    tokens = [p["class_embedding"] + p["positional_embedding"][0]]
    for row in range(GRID):
        for col in range(GRID):
            cell = image[:, row * 8 : row * 8 + 8, col * 8 : col * 8 + 8]
            embedded = np.array([(cell * k).sum() for k in kernel])
            tokens.append(embedded + p["positional_embedding"][1 + row * GRID + col])
    tokens = [norm(token, "ln_pre") for token in tokens]
    heads, size = 4, 16

    def may(i, j, layer):
        if layer < schedule.free:
            return True
        if i == 0 or j == 0:
            return i == j
        if layer < schedule.free + schedule.segment:
            level = (layer - schedule.free) * len(levels) // schedule.segment
            return levels[level].ravel()[i - 1] == levels[level].ravel()[j - 1]
        (r, c), (s, d) = divmod(i - 1, GRID), divmod(j - 1, GRID)
        return max(abs(r - s), abs(c - d)) <= schedule.radius

    for layer in range(DEPTH):
        name = f"transformer.resblocks.{layer}"
        qkv = [
            p[f"{name}.attn.in_proj_weight"] @ norm(token, f"{name}.ln_1") + p[f"{name}.attn.in_proj_bias"]
            for token in tokens
        ]
        after = []
        for i, token in enumerate(tokens):
            mixed = np.zeros(64)
            for head in range(heads):
                span = slice(head * size, (head + 1) * size)
                seen = [j for j in range(len(tokens)) if may(i, j, layer)]
                logits = np.array([qkv[i][:64][span] @ qkv[j][64:128][span] / math.sqrt(size) for j in seen])
                weights = np.exp(logits - logits.max())
                weights /= weights.sum()
                for weight, j in zip(weights, seen, strict=True):
                    mixed[span] += weight * qkv[j][128:][span]
            token = token + p[f"{name}.attn.out_proj.weight"] @ mixed + p[f"{name}.attn.out_proj.bias"]
            hidden = p[f"{name}.mlp.c_fc.weight"] @ norm(token, f"{name}.ln_2") + p[f"{name}.mlp.c_fc.bias"]
            after.append(token + p[f"{name}.mlp.c_proj.weight"] @ gelu(hidden) + p[f"{name}.mlp.c_proj.bias"])
        tokens = after
    return np.stack([norm(token, "ln_post") @ p["proj"] for token in tokens])


@pytest.mark.parametrize("quick_gelu", [False, True])
@pytest.mark.parametrize("schedule", [Schedule(2, 3, 1), Schedule(0, 4, 2, radius=1), Schedule(6, 0, 0)])
def test_masked_forward_equals_the_naive_form_in_float64(schedule, quick_gelu):
    visual = tiny_clip(quick_gelu=quick_gelu).visual
    random = np.random.default_rng(3)
    images = random.normal(size=(2, 3, 32, 32))
    levels = random.integers(0, 4, size=(2, 2, GRID, GRID))
    found = dense_features(visual, torch.from_numpy(images).float(), layer_masks(schedule, torch.from_numpy(levels)))
    for window in range(2):
        expected = naive_features(visual, images[window], levels[window], schedule, quick_gelu=quick_gelu)
        assert np.abs(found[window].numpy() - expected).max() < 1e-4


@pytest.mark.parametrize("quick_gelu", [False, True])
def test_all_free_equals_open_clips_own_tokens(quick_gelu):
    visual = tiny_clip(quick_gelu=quick_gelu).visual
    images = torch.randn(3, 3, 32, 32)
    library = visual.forward_intermediates(images, indices=1, output_fmt="NLC", output_extra_tokens=True)
    tokens = torch.cat([library["image_intermediates_prefix"][-1], library["image_intermediates"][-1]], dim=1)
    expected = visual.ln_post(tokens) @ visual.proj
    found = dense_features(visual, images, [None] * DEPTH)
    assert torch.allclose(found, expected, atol=1e-5)
    assert torch.allclose(found[:, 0], visual(images), atol=1e-5)


def test_a_blocked_patch_has_exactly_zero_influence():
    visual = tiny_clip(quick_gelu=False).visual
    levels = torch.ones(1, 1, GRID, GRID, dtype=torch.int64)
    levels[..., 2:, :] = 2
    masks = layer_masks(Schedule(0, 5, 1), levels)
    images = torch.randn(1, 3, 32, 32)
    changed = images.clone()
    changed[:, :, 24:, :8] += 1.0  # the lower left patch, of segment 2
    before, after = (dense_features(visual, x, masks)[0, 1:].reshape(GRID, GRID, -1) for x in (images, changed))
    assert torch.equal(before[:2], after[:2])
    assert not torch.allclose(before[3, 0], after[3, 0], atol=1e-3)
    assert not torch.allclose(before[2, 3], after[2, 3], atol=1e-6)  # its own segment does feel it


def test_a_mask_cast_to_floats_would_be_noticed():
    """The trap: as floats, keep and block become additive 1 and 0, and everything attends everything."""
    visual = tiny_clip(quick_gelu=False).visual
    levels = torch.arange(GRID * GRID).reshape(1, 1, GRID, GRID)
    masks = layer_masks(Schedule(0, 6, 0), levels)
    assert all(mask is not None and mask.dtype == torch.bool for mask in masks)
    images = torch.randn(1, 3, 32, 32)
    right = dense_features(visual, images, masks)
    wrong = dense_features(visual, images, [mask.float() for mask in masks if mask is not None])
    assert not torch.allclose(right, wrong, atol=1e-2)


def test_a_window_does_not_depend_on_its_batch():
    visual = tiny_clip(quick_gelu=False).visual
    images, levels = torch.randn(5, 3, 32, 32), torch.randint(0, 3, (5, 1, GRID, GRID))
    schedule = default_schedule(DEPTH)
    together = dense_features(visual, images, layer_masks(schedule, levels))
    alone = dense_features(visual, images[2:3], layer_masks(schedule, levels[2:3]))
    assert torch.allclose(together[2:3], alone, atol=1e-5)


def test_a_schedule_of_another_depth_is_refused():
    with pytest.raises(UsageError, match="has 4 layers, but the model has 6"):
        dense_features(tiny_clip(quick_gelu=False).visual, torch.zeros(1, 3, 32, 32), [None] * 4)


@pytest.fixture(scope="module")
def bundled() -> Encoder:
    return load_encoder(resolve_model(), device="cpu")


def test_the_bundled_model_loads_through_the_ordinary_path(bundled):
    assert bundled.depth in range(8, 13)
    assert bundled.grid * bundled.patch_size == bundled.image_size
    features, cls = bundled.encode_windows(
        np.zeros((2, bundled.image_size, bundled.image_size, 3), np.uint8),
        np.ones((2, bundled.image_size, bundled.image_size), bool),
        np.ones((2, 1, bundled.grid, bundled.grid), np.int64),
        default_schedule(bundled.depth),
    )
    assert features.shape == (2, bundled.grid, bundled.grid, bundled.dimension)
    assert cls.shape == (2, bundled.dimension)
    assert np.isfinite(features).all()


def test_invalid_pixels_have_no_influence_whatever_they_hold(bundled):
    size = bundled.image_size
    random = np.random.default_rng(0)
    rgb = random.integers(0, 255, (1, size, size, 3)).astype(np.uint8)
    valid = np.ones((1, size, size), bool)
    valid[:, : size // 2] = False
    other = rgb.copy()
    other[:, : size // 2] = 77
    ids = np.ones((1, 1, bundled.grid, bundled.grid), np.int64)
    schedule = default_schedule(bundled.depth)
    one, two = (bundled.encode_windows(pixels, valid, ids, schedule)[0] for pixels in (rgb, other))
    assert np.array_equal(one, two)
    black = bundled.encode_windows(rgb, valid, ids, schedule, fill="black")[0]
    assert not np.allclose(one, black)


def test_templates_of_a_prompt_are_averaged_after_normalisation(bundled):
    texts = ["water", "a photo of water from above"]
    alone = bundled.encode_texts([[text] for text in texts])
    assert np.allclose(np.linalg.norm(alone, axis=1), 1, atol=1e-5)
    mean = alone.mean(axis=0)
    assert np.allclose(bundled.encode_texts([texts])[0], mean / np.linalg.norm(mean), atol=1e-6)


def save(tmp_path, state, name="weights.pt"):
    path = tmp_path / name
    torch.save(state, path)
    return ModelSource("test", "ViT-B-32", path, file_sha256(path))


def test_weights_of_another_architecture_are_refused_by_name_and_shape(tmp_path):
    state = tiny_clip(quick_gelu=False).state_dict()
    with pytest.raises(ResegeoError, match=r"does not fit the architecture ViT-B-32: .*parameters are missing"):
        load_encoder(save(tmp_path, state), device="cpu")


class Malicious:
    ran = False

    def __reduce__(self):
        return (setattr, (Malicious, "ran", True))


def test_a_pickle_that_wants_to_run_code_is_refused_and_nothing_runs(tmp_path):
    with pytest.raises(ResegeoError, match="would run code"):
        load_encoder(save(tmp_path, {"state_dict": Malicious()}), device="cpu")
    assert not Malicious.ran


def test_a_tokenizer_that_cannot_be_had_is_one_sentence(monkeypatch, tmp_path):
    def failing(*args, **kwargs):
        raise OSError("We couldn't connect")

    monkeypatch.setattr(open_clip, "get_tokenizer", failing)
    source = ModelSource("test", "xlm-roberta-base-ViT-B-32", tmp_path / "none.pt", "0")
    with pytest.raises(ResegeoError, match=r"splits words by the tokenizer xlm-roberta-base .*\(OSError\)"):
        tokenizer_of(source)
    with pytest.raises(OSError, match="connect"):  # that of open_clip itself needs no network: another matter
        tokenizer_of(ModelSource("test", "ViT-B-32", tmp_path / "none.pt", "0"))


def test_a_text_file_is_no_checkpoint(tmp_path):
    for name in ("weights.pt", "weights.safetensors"):
        path = tmp_path / name
        path.write_text("hello")
        with pytest.raises(ResegeoError, match="weights"):
            load_encoder(ModelSource("test", "ViT-B-32", path, "0"), device="cpu")


def test_a_device_that_is_not_there_is_named():
    with pytest.raises(UsageError, match=r"device=.?tpu.? is not available .* cpu"):
        pick_device("tpu")


@pytest.mark.parametrize("schedule", [Schedule(5, 1, 0), Schedule(4, 1, 1, radius=1), Schedule(6, 0, 0)])
def test_a_self_self_last_layer_equals_its_formula(schedule):
    """q·q + k·k + v·v of the last layer, head by head in float64, without residual and MLP."""
    visual = tiny_clip(quick_gelu=False).visual
    images = torch.randn(2, 3, 32, 32)
    levels = torch.randint(0, 3, (2, 1, GRID, GRID))
    masks = layer_masks(schedule, levels)
    found = dense_features(visual, images, masks, last=LastLayer(("qq", "kk", "vv"), residual=False, mlp=False))
    x = visual._embeds(images)
    for block, keep in zip(visual.transformer.resblocks[:-1], masks[:-1], strict=True):
        blocked = None if keep is None else ~keep.expand(2, -1, -1, -1).repeat_interleave(4, dim=1).flatten(0, 1)
        y = block.ln_1(x)
        x = x + block.attn(y, y, y, attn_mask=blocked, need_weights=False)[0]
        x = x + block.mlp(block.ln_2(x))
    last = visual.transformer.resblocks[-1]
    y = last.ln_1(x).double()
    weight, bias = last.attn.in_proj_weight.double(), last.attn.in_proj_bias.double()
    q, k, v = (y @ weight.T + bias).split(64, dim=-1)
    keep = torch.ones(1, 1, 17, 17, dtype=torch.bool) if masks[-1] is None else masks[-1]
    expected = torch.zeros(2, 17, 64, dtype=torch.float64)
    for head in range(4):
        span = slice(head * 16, head * 16 + 16)
        for a in (q, k, v):
            logits = (a[..., span] @ a[..., span].transpose(1, 2) / 4).masked_fill(~keep[:, 0], -torch.inf)
            expected[..., span] += logits.softmax(-1) @ v[..., span]
    expected = expected @ last.attn.out_proj.weight.double().T + last.attn.out_proj.bias.double()
    expected = visual.ln_post(expected.float()) @ visual.proj
    assert torch.allclose(found, expected, atol=1e-4)
    assert not torch.allclose(found, dense_features(visual, images, masks), atol=1e-2)


def test_cls_features_are_those_of_the_cls_token(bundled):
    rgb = np.random.default_rng(0).integers(0, 255, (1, 128, 128, 3)).astype(np.uint8)
    ids = np.ones((1, 1, 16, 16), np.int64)
    free = Schedule(bundled.depth, 0, 0)
    _, cls = bundled.encode_windows(rgb, np.ones((1, 128, 128), bool), ids, free)
    images = torch.from_numpy(rgb).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (bundled.mean, bundled.std))
    assert np.allclose(cls, bundled.model.encode_image((images - mean) / std).numpy(), atol=1e-4)


def test_float16_on_the_cpu_is_refused():
    with pytest.raises(UsageError, match="precision float16 is for graphics processors"):
        load_encoder(resolve_model(), device="cpu", precision="float16")


@pytest.mark.slow
def test_the_compiled_form_gives_the_same_features():
    encoder = load_encoder(resolve_model(), device="cpu")
    compiled = load_encoder(resolve_model(), device="cpu", compiled=True)
    rgb = np.random.default_rng(0).integers(0, 255, (2, 128, 128, 3)).astype(np.uint8)
    valid, ids = np.ones((2, 128, 128), bool), np.arange(512).reshape(2, 1, 16, 16) // 40
    schedule = default_schedule(encoder.depth)
    try:
        found = compiled.encode_windows(rgb, valid, ids, schedule)[0]
    except ResegeoError as error:
        pytest.skip(str(error))
    assert np.allclose(found, encoder.encode_windows(rgb, valid, ids, schedule)[0], atol=1e-3)


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("ViT-B-32", (9, 2, 1)),
        ("ViT-B-32-quickgelu", (9, 2, 1)),
        ("ViT-B-16", (9, 2, 1)),
        ("ViT-L-14", (18, 4, 2)),
        ("ViT-L-14-quickgelu", (18, 4, 2)),
        ("ViT-L-14-336", (18, 4, 2)),
        ("ViT-H-14", (24, 5, 3)),
        ("ViT-H-14-quickgelu", (24, 5, 3)),
    ],
)
def test_open_clips_architectures_have_the_papers_schedule_and_the_librarys_tokens(name, layers):
    """Depth, patches and activation of the real architectures; narrow, so that they are quick."""
    config = open_clip.get_model_config(name)
    vision = {**config["vision_cfg"], "width": 32, "head_width": 16}
    text = {"context_length": 8, "vocab_size": 100, "width": 16, "heads": 2, "layers": 1}
    quick = config.get("quick_gelu", False)
    assert quick == ("quickgelu" in name)
    torch.manual_seed(0)
    visual = open_clip.CLIP(8, vision, text, quick_gelu=quick).eval().requires_grad_(False).visual
    depth = len(visual.transformer.resblocks)
    schedule = default_schedule(depth)
    assert (schedule.free, schedule.segment, schedule.local) == layers
    size = visual.image_size[0]
    grid = size // visual.patch_size[0]
    images = torch.randn(1, 3, size, size)
    library = visual.forward_intermediates(images, indices=1, output_fmt="NLC", output_extra_tokens=True)
    tokens = torch.cat([library["image_intermediates_prefix"][-1], library["image_intermediates"][-1]], dim=1)
    expected = visual.ln_post(tokens) @ visual.proj
    assert torch.allclose(dense_features(visual, images, [None] * depth), expected, atol=1e-5)
    levels = torch.arange(grid * grid).reshape(1, 1, grid, grid) // (2 * grid)
    masked = dense_features(visual, images, layer_masks(schedule, levels))
    assert masked.shape == expected.shape
    assert not torch.allclose(masked[:, 1:], expected[:, 1:], atol=1e-3)
