from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from segment_anything import SamAutomaticMaskGenerator, sam_model_registry
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
from segment_anything.utils.amg import build_point_grid

from resegeo.errors import ResegeoError, UsageError
from resegeo.segments.sam import ARCHITECTURES, load_sam
from resegeo.segments.sam_levels import PAPER_LEVELS, SamLevel
from resegeo.segments.sam_masks import SamSegmenter, tile_points

SIDE, WIDTH = 256, 32

LEVELS = (SamLevel(4, 0.4, 0.3, 0), SamLevel(2, 0.5, 0.3, 60), SamLevel(2, 0.4, 0.3, 400), SamLevel(2, 0.4, 0.3, 3000))
OTHERS = (SamLevel(6, 0.45, 0.5, 100), SamLevel(3, 0.0, 0.4, 0), SamLevel(4, 0.3, 0.0, 50))


class Bump(TwoWayTransformer):
    """The library's transformer plus a bump of features at the point.

    With random weights alone every mask is scattered over the whole picture, their boxes are all the same, and one
    of them survives: an identity test would prove nothing.
    """

    def __init__(self) -> None:
        super().__init__(depth=2, embedding_dim=WIDTH, num_heads=2, mlp_dim=64)
        self.direction = torch.nn.Parameter(torch.randn(WIDTH))

    def forward(
        self, image_embedding: torch.Tensor, image_pe: torch.Tensor, point_embedding: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        queries, keys = super().forward(image_embedding, image_pe, point_embedding)
        position = image_pe.flatten(2).transpose(1, 2)  # (1 or P, N, C)
        near = (
            position @ point_embedding[:, 5, :, None] * (2 / WIDTH)
        )  # the tokens: quality, 4 masks, the point, padding
        return queries, 0.6 * keys + 3 * torch.tanh(4 * near - 2) * self.direction


def small_sam(seed: int = 6) -> Sam:
    """SAM of the library's classes with random weights, scaled so that its masks are spots of many sizes."""
    torch.manual_seed(seed)
    grid = SIDE // 16
    model = Sam(
        ImageEncoderViT(
            img_size=SIDE,
            embed_dim=WIDTH,
            depth=2,
            num_heads=2,
            out_chans=WIDTH,
            use_rel_pos=True,
            window_size=7,
            global_attn_indexes=(1,),
        ),
        PromptEncoder(
            embed_dim=WIDTH, image_embedding_size=(grid, grid), input_image_size=(SIDE, SIDE), mask_in_chans=4
        ),
        MaskDecoder(transformer=Bump(), transformer_dim=WIDTH, iou_head_hidden_dim=32),
    )
    decoder = model.mask_decoder
    with torch.no_grad():
        model.image_encoder.pos_embed.normal_(0, 0.1)
        model.image_encoder.patch_embed.proj.weight.mul_(3)
        model.prompt_encoder.point_embeddings[1].weight.zero_()
        model.prompt_encoder.pe_layer.positional_encoding_gaussian_matrix.mul_(0.6)
        for head in decoder.output_hypernetworks_mlps:
            for layer in head.layers:
                layer.weight.mul_(3)
            head.layers[-1].weight.mul_(8)
        for convolution in (decoder.output_upscaling[0], decoder.output_upscaling[3]):
            mean = convolution.weight.mean((2, 3), keepdim=True)
            convolution.weight.copy_(2 * mean + 0.1 * (convolution.weight - mean))
        decoder.iou_prediction_head.layers[-1].weight.mul_(2.4)
        decoder.iou_prediction_head.layers[-1].bias.fill_(0.45)
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def model() -> Sam:
    return small_sam()


def discs(height: int, width: int, seed: int) -> np.ndarray:
    """A picture of coloured discs and some noise, (H, W, 3) uint8."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    drawn = np.zeros((height, width, 3)) + random.integers(0, 255, 3)
    for _ in range(12):
        centre_y, centre_x, radius = random.integers(0, height), random.integers(0, width), random.integers(12, 60)
        drawn[(y - centre_y) ** 2 + (x - centre_x) ** 2 < radius**2] = random.integers(0, 255, 3)
    return np.clip(drawn + random.normal(0, 10, drawn.shape), 0, 255).astype(np.uint8)


def library_ids(model: Sam, rgb: np.ndarray, level: SamLevel, **options: Any) -> np.ndarray:
    """The oracle: segment-anything's own generator, its masks painted one after the other."""
    generator = SamAutomaticMaskGenerator(
        model,
        pred_iou_thresh=level.pred_iou_thresh,
        stability_score_thresh=level.stability_score_thresh,
        min_mask_region_area=level.min_mask_region_area,
        **options,
    )
    ids = np.zeros(rgb.shape[:2], dtype=np.int64)
    for number, record in enumerate(generator.generate(rgb), start=1):
        ids[record["segmentation"]] = number
    return ids


def paper_ids(model: Sam, rgb: np.ndarray, level: SamLevel) -> np.ndarray:
    return library_ids(
        model, rgb, level, points_per_side=level.points_per_side, crop_n_layers=1, crop_n_points_downscale_factor=2
    )


def paper_or_zero(model: Sam, rgb: np.ndarray, level: SamLevel) -> np.ndarray:
    try:
        return paper_ids(model, rgb, level)
    except IndexError:
        return np.zeros(rgb.shape[:2], dtype=np.int64)


def rich_levels(ids: np.ndarray) -> int:
    """Count levels that show three segments or more."""
    return sum(len(np.unique(level[level > 0])) >= 3 for level in ids)


@contextmanager
def calls(module: torch.nn.Module) -> Iterator[list[Any]]:
    """Count how often a module computes."""
    seen: list[Any] = []
    handle = module.register_forward_hook(lambda *_: seen.append(None))
    try:
        yield seen
    finally:
        handle.remove()


def differing(one: np.ndarray, two: np.ndarray) -> float:
    """Share of pixels of two partitions that lie outside the pairs of segments that are each other's best match."""
    same = np.zeros(one.shape, dtype=bool)
    for label in np.unique(one):
        there = two[one == label]
        partner = np.bincount(there).argmax()
        back = np.bincount(one[two == partner]).argmax()
        if back == label:
            same |= (one == label) & (two == partner)
    return float(1 - same.mean())


@pytest.mark.parametrize("levels", [LEVELS, OTHERS], ids=["table", "other table"])
@pytest.mark.parametrize(("height", "width", "seed"), [(224, 224, 50), (224, 224, 1), (150, 200, 2), (336, 130, 3)])
def test_window_ids_are_those_of_separate_runs_of_the_library(model, levels, height, width, seed):
    rgb = discs(height, width, seed)
    expected = np.stack([paper_or_zero(model, rgb, level) for level in levels])
    assert rich_levels(expected) >= 2
    found = SamSegmenter(model, levels).window_ids(rgb)
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, expected)


def test_the_fixture_feels_every_step_of_the_library(model):
    """Thresholds, small regions and crops all change the map; otherwise the identity would not test them."""
    rgb = discs(224, 224, 50)
    base = SamLevel(4, 0.4, 0.3, 0)
    ids = paper_ids(model, rgb, base)
    for other in (SamLevel(4, 0.7, 0.3, 0), SamLevel(4, 0.4, 0.7, 0), SamLevel(4, 0.4, 0.3, 400)):
        assert (paper_ids(model, rgb, other) != ids).any()
    assert (library_ids(model, rgb, base, points_per_side=4, crop_n_layers=0) != ids).any()


def test_a_second_window_forgets_the_first(model):
    segmenter = SamSegmenter(model, LEVELS)
    segmenter.window_ids(discs(224, 224, 1))
    rgb = discs(224, 224, 50)
    np.testing.assert_array_equal(segmenter.window_ids(rgb), SamSegmenter(model, LEVELS).window_ids(rgb))
    assert not segmenter._predictor._crops


def test_a_window_costs_five_encodings_and_one_decoding_a_crop_and_point_grid(model):
    with calls(model.image_encoder) as encodings, calls(model.mask_decoder) as decodings:
        SamSegmenter(model, LEVELS).window_ids(discs(224, 224, 50))
    assert len(encodings) == 5
    assert len(decodings) == 5 * 2  # levels 2 to 4 share their points


def test_where_no_mask_survives_the_map_is_zero(model):
    rgb = discs(224, 224, 50)
    nothing = SamLevel(2, 1.0, 1.0, 500)
    with pytest.raises(IndexError):
        paper_ids(model, rgb, nothing)
    found = SamSegmenter(model, (LEVELS[0], nothing)).window_ids(rgb)
    np.testing.assert_array_equal(found[0], paper_ids(model, rgb, LEVELS[0]))
    assert found[0].any()
    assert not found[1].any()
    assert not SamSegmenter(model, [nothing]).tile_ids(rgb).any()
    assert not SamSegmenter(model, [nothing]).tile_ids(rgb, full_resolution=True).any()


def test_an_index_error_of_other_origin_is_not_hidden(model, monkeypatch):
    def fail(*_: Any) -> None:
        raise IndexError("elsewhere")

    monkeypatch.setattr(model.image_encoder, "forward", fail)
    with pytest.raises(IndexError, match="elsewhere"):
        SamSegmenter(model, LEVELS).window_ids(discs(224, 224, 50))
    segmenter = SamSegmenter(model, LEVELS)
    with pytest.raises(IndexError, match="elsewhere"):
        segmenter.tile_ids(discs(224, 224, 50))
    assert not segmenter._predictor._crops


@pytest.mark.parametrize(("height", "width"), [(256, 256), (180, 256), (512, 300)])
def test_tile_ids_at_full_resolution_are_the_librarys_without_crops(model, height, width):
    rgb = discs(height, width, 50)
    points = [tile_points(level, height, width) for level in LEVELS]
    expected = np.stack(
        [
            library_ids(model, rgb, level, points_per_side=None, point_grids=[grid])
            for level, grid in zip(LEVELS, points, strict=True)
        ]
    )
    assert rich_levels(expected) >= 2
    np.testing.assert_array_equal(SamSegmenter(model, LEVELS).tile_ids(rgb, full_resolution=True), expected)


@pytest.mark.parametrize(("height", "width"), [(256, 256), (180, 256), (512, 300)])
def test_low_resolution_changes_few_pixels(model, height, width):
    rgb = discs(height, width, 50)
    levels = (SamLevel(4, 0.5, 0.5, 0), SamLevel(2, 0.5, 0.5, 0), SamLevel(4, 0.5, 0.5, 400))
    segmenter = SamSegmenter(model, levels)
    exact, quick = segmenter.tile_ids(rgb, full_resolution=True), segmenter.tile_ids(rgb)
    assert rich_levels(quick) >= 2
    shares = [differing(a, b) for a, b in zip(exact, quick, strict=True)]
    assert max(shares[:2]) < 0.1  # measured: 0 to 0.09
    assert shares[2] < 0.2  # small regions are counted in pixels of 4 by 4: 0 to 0.15
    assert differing(exact[0], quick[0, ::-1]) > 0.2  # the measure can tell


@pytest.mark.parametrize(("height", "width"), [(256, 256), (180, 256), (512, 300), (60, 40)])
def test_masks_are_painted_as_the_library_upsamples_them(model, height, width):
    segmenter = SamSegmenter(model)
    predictor = segmenter._predictor
    predictor.set_image(discs(height, width, 0))
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    spots = [(20, 25, 9.0), (10, 30, 4.0), (40, 5, 12.0), (63, 63, 20.0)]  # the last two reach the border
    logits = torch.stack([radius - torch.hypot(y - row, x - col) for row, col, radius in spots])
    logits += 0.1 * torch.rand(logits.shape)
    expected = torch.zeros((height, width), dtype=torch.int64)
    for number, mask in enumerate(predictor.upsample(logits) > 0, start=1):
        expected[mask] = number
    assert len(expected.unique()) >= 4
    found = torch.zeros_like(expected)
    segmenter._paint(found, logits, segmenter._axis(0), segmenter._axis(1))
    assert (found != expected).float().mean() < 1e-3  # rounding may move a pixel that lies on the border


def test_a_tile_costs_one_encoding_and_one_pass_a_point_grid(model):
    with calls(model.image_encoder) as encodings, calls(model.mask_decoder.transformer) as passes:
        SamSegmenter(model, LEVELS, points_per_batch=8).tile_ids(discs(256, 256, 50))
    assert len(encodings) == 1
    counts = [len(tile_points(level, 256, 256)) for level in LEVELS[:2]]
    assert len(passes) == sum(math.ceil(count / 8) for count in counts)


def test_what_is_decoded_quickly_is_what_the_library_decodes(model):
    predictor = SamSegmenter(model)._predictor
    predictor.set_image(discs(256, 256, 50))
    points = torch.rand((20, 1, 2)) * 256
    labels = torch.ones((20, 1), dtype=torch.int)
    logits, quality = predictor.decode(points, labels)
    for least in (0.0, 0.45, 0.55):
        kept = quality > least if least else torch.ones_like(quality, dtype=torch.bool)
        assert kept.any()
        low, scores = predictor.decode_best(points, labels, least)
        torch.testing.assert_close(low, logits[kept], rtol=1e-4, atol=1e-3)
        torch.testing.assert_close(scores, quality[kept])
    low, scores = predictor.decode_best(points, labels, 99.0)
    assert len(low) == len(scores) == 0


def test_points_per_batch_changes_nothing_in_a_tile(model):
    rgb = discs(256, 256, 50)
    one, many = (SamSegmenter(model, LEVELS, points_per_batch=count).tile_ids(rgb) for count in (3, 64))
    assert max(differing(a, b) for a, b in zip(one, many, strict=True)) < 1e-3


def test_invalid_pixels_are_in_no_segment(model):
    rgb = discs(256, 256, 50)
    valid = np.ones((256, 256), dtype=bool)
    valid[:, :100] = False
    segmenter = SamSegmenter(model, LEVELS)
    everywhere, found = segmenter.tile_ids(rgb), segmenter.tile_ids(rgb, valid)
    assert everywhere[:, :, :100].any()
    np.testing.assert_array_equal(found, np.where(valid, everywhere, 0))


def test_a_tile_without_valid_pixels_is_not_computed(model):
    with calls(model.image_encoder) as encodings:
        ids = SamSegmenter(model, LEVELS).tile_ids(discs(64, 64, 0), np.zeros((64, 64), dtype=bool))
    assert ids.shape == (4, 64, 64)
    assert not ids.any()
    assert not encodings


@pytest.mark.parametrize(("height", "width", "seed"), [(256, 256, 50), (512, 300, 50), (256, 256, 1)])
def test_small_regions_are_removed_at_low_resolution_too(model, height, width, seed):
    rgb = discs(height, width, seed)
    with_them, without = SamLevel(4, 0.5, 0.5, 0), SamLevel(4, 0.5, 0.5, 400)
    (wanted,) = SamSegmenter(model, [without]).tile_ids(rgb, full_resolution=True)
    left, removed = SamSegmenter(model, [with_them, without]).tile_ids(rgb)
    assert differing(removed, wanted) < differing(left, wanted)


def test_half_precision_gives_nearly_the_same_segments(model):
    rgb = discs(256, 256, 50)
    full, half = (SamSegmenter(model, LEVELS[:1], autocast=dtype) for dtype in (None, torch.bfloat16))
    assert rich_levels(half.window_ids(rgb)) == 1
    assert differing(full.tile_ids(rgb)[0], half.tile_ids(rgb)[0]) < 0.2


def test_points_are_as_dense_in_a_tile_as_in_a_window():
    for level, side in zip(PAPER_LEVELS, (18, 9, 9, 9), strict=True):
        grid = tile_points(level, 1024, 1024)
        assert len(grid) == side * side
        np.testing.assert_allclose(grid, build_point_grid(side), atol=1e-12)
    assert len(tile_points(PAPER_LEVELS[0], 224, 224)) == 16
    assert len(tile_points(PAPER_LEVELS[0], 512, 1024)) == 9 * 18
    np.testing.assert_allclose(tile_points(PAPER_LEVELS[1], 20, 30), [[0.5, 0.5]])


def test_the_default_levels_are_the_papers():
    numbers = [
        (level.points_per_side, level.pred_iou_thresh, level.stability_score_thresh, level.min_mask_region_area)
        for level in PAPER_LEVELS
    ]
    assert numbers == [(4, 0.5, 0.5, 500), (2, 0.6, 0.6, 500), (2, 0.5, 0.5, 1000), (2, 0.5, 0.5, 2000)]


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ((1, 0.5, 0.5, 0), "points_per_side 1 "),
        ((2.5, 0.5, 0.5, 0), "points_per_side 2.5"),
        ((2, 1.5, 0.5, 0), "pred_iou_thresh 1.5"),
        ((2, 0.5, -0.1, 0), "stability_score_thresh -0.1"),
        ((2, 0.5, math.nan, 0), "stability_score_thresh nan"),
        ((2, 0.5, 0.5, -1), "min_mask_region_area -1"),
    ],
)
def test_an_impossible_level_is_refused(values: Sequence[Any], named: str):
    with pytest.raises(UsageError, match=named):
        SamLevel(*values)


def hollow_state(architecture: str) -> dict[str, torch.Tensor]:
    """A state dict of the real shapes that takes no room: every tensor is one number, seen many times."""
    with torch.device("meta"):
        wanted = sam_model_registry[architecture](None).state_dict()
    return {key: torch.zeros(1).expand(value.shape) for key, value in wanted.items()}


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_checkpoint_is_loaded_to_the_librarys_own_model(tmp_path, suffix):
    from safetensors.torch import save_file

    torch.manual_seed(0)
    expected = sam_model_registry["vit_b"](None)
    path = tmp_path / f"sam{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(expected.state_dict(), path)
    loaded = load_sam(path)
    assert type(loaded) is Sam
    assert not loaded.training
    for (name, wanted), (other, found) in zip(
        [*expected.named_parameters(), *expected.named_buffers()],
        [*loaded.named_parameters(), *loaded.named_buffers()],
        strict=True,
    ):
        assert name == other
        assert found.device.type == "cpu"
        assert torch.equal(found, wanted)
    path.unlink()  # 375 MB


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_architecture_is_told_from_the_file(tmp_path, architecture):
    path = tmp_path / "sam.pth"
    torch.save(hollow_state(architecture), path)
    loaded = load_sam(path, architecture if architecture == "vit_l" else None)
    assert len(loaded.image_encoder.blocks) == {"vit_h": 32, "vit_l": 24, "vit_b": 12}[architecture]


def test_half_precision_weights_are_loaded_as_float32(tmp_path):
    path = tmp_path / "sam.pth"
    torch.save({key: value.half() for key, value in hollow_state("vit_b").items()}, path)
    assert {value.dtype for value in load_sam(path).parameters()} == {torch.float32}


def test_another_architecture_is_refused(tmp_path):
    path = tmp_path / "sam.pth"
    torch.save(hollow_state("vit_b"), path)
    with pytest.raises(UsageError, match=r"sam_arch=.?vit_h.? does not fit .*sam\.pth.?, which holds a vit_b"):
        load_sam(path, "vit_h")
    with pytest.raises(UsageError, match=r"sam_arch=.?vit_x.? does not exist; expected one of vit_h, vit_l, vit_b"):
        load_sam(path, "vit_x")


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    with pytest.raises(ResegeoError, match=r"sam_checkpoint=.?.*none\.pth.?: no such file"):
        load_sam(tmp_path / "none.pth")
    with pytest.raises(ResegeoError, match="a folder, not a file"):
        load_sam(tmp_path)


@pytest.mark.parametrize("name", ["sam.pth", "sam.safetensors"])
@pytest.mark.parametrize("content", [b"", b"hello, this is text", b"PK\x03\x04 cut off", b"\x80\x02 broken"])
def test_a_file_of_another_kind_is_refused(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ResegeoError, match=name) as raised:
        load_sam(path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("old", [True, False])
def test_a_checkpoint_that_is_cut_off_is_said_to_be(tmp_path, old):
    path = tmp_path / "sam.pth"
    torch.save(hollow_state("vit_b"), path, _use_new_zipfile_serialization=not old)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ResegeoError, match=r"sam\.pth.? cannot be read: it is probably cut off"):
        load_sam(path)


def test_a_pickle_that_wants_to_run_code_is_refused_and_not_run(tmp_path):
    import os
    import pickle

    ran = tmp_path / "ran"

    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(ran),)

    for name, save in (
        ("new.pth", torch.save),
        ("old.pth", lambda x, path: path.write_bytes(pickle.dumps(x, protocol=2))),
    ):
        save({"image_encoder.pos_embed": Evil()}, tmp_path / name)
        with pytest.raises(ResegeoError, match="run code stored in the file"):
            load_sam(tmp_path / name)
    assert not ran.exists()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda state: state.clear() or state.update(visual=torch.zeros(1)), "is no SAM checkpoint.*first .*visual"),
        (lambda state: state.clear(), "is no SAM checkpoint"),
        (lambda state: state.update({"image_encoder.pos_embed": torch.zeros(1, 64, 64, 100)}), "width 100"),
        (lambda state: state.update({"image_encoder.pos_embed": torch.zeros(())}), "is no SAM checkpoint"),
        (lambda state: state.pop("mask_decoder.iou_token.weight"), r"1 parameters are missing .*iou_token"),
        (lambda state: state.update(extra=torch.zeros(1)), "1 are unknown .*extra"),
        (lambda state: state.update({"mask_decoder.iou_token.weight": torch.zeros(2)}), "1 have another shape"),
        (lambda state: state.update(epoch=3), "not all of its entries are tensors"),
        (
            lambda state: state.update({"mask_decoder.iou_token.weight": torch.full((1, 256), torch.nan)}),
            r"sam_checkpoint=.*sam\.pth.? holds mask_decoder\.iou_token\.weight with values that are no numbers",
        ),
    ],
)
def test_a_state_dict_that_is_no_sam_is_refused(tmp_path, change, named):
    state = hollow_state("vit_b")
    change(state)
    path = tmp_path / "sam.pth"
    torch.save(state, path)
    with pytest.raises(ResegeoError, match=named):
        load_sam(path)
