"""One 224-pixel window with ViT-L/14 and SAM vit_b: the paper's naive line against resegeo's, on random weights.

    python tests/benchmarks/sam.py [--device cuda] [--clock cpu] [--quick] [--effect]

The naive line runs four mask generators a window, embeds the 19 prompts for every window, and interpolates the
features to every pixel. `exact` is the same segments, words once, and the score head of resegeo.clip.scores; `tile`
shares one SAM pass over 1,024 pixels among the windows in it. Exit code 1 if a ratio falls short. `--quick` cuts both
image encoders to two blocks, to see that everything runs: its ratios mean nothing and are not judged. `--effect` also
measures the share of pixels that judging masks at low resolution puts into another segment.

Random weights alone draw masks that are scattered over the whole picture, of which one would survive, and the
work after the decoder would be missed. So the decoder gets a bump of features around the point, its heads are scaled,
and the levels' thresholds are such that 10 to 60 masks a level survive in a tile; the cost of every layer is that
of the real model.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import open_clip
import torch
from segment_anything import SamAutomaticMaskGenerator, sam_model_registry
from torch.nn import functional

from resegeo.clip.attention import default_schedule, layer_masks, patch_ids
from resegeo.clip.encoder import dense_features
from resegeo.clip.scores import axis_weights, patch_scores, pixel_cosines
from resegeo.segments.sam_levels import SamLevel
from resegeo.segments.sam_masks import SamSegmenter

WINDOW, TILE, PATCH = 224, 1024, 14
EXACT_AT_LEAST, TILE_AT_LEAST = 3.5, 40.0
PROMPTS = ("road", "street", "building", "roof", "house", "grass", "lawn", "tree", "forest", "car", "truck", "water")
PROMPTS += ("river", "bare soil", "field", "low vegetation", "parking lot", "solar panel", "clutter")
LEVELS = (
    SamLevel(4, 0.35, 0.5, 500),
    SamLevel(2, 0.4, 0.6, 500),
    SamLevel(2, 0.35, 0.5, 1000),
    SamLevel(2, 0.35, 0.5, 2000),
)


class Stopwatch:
    """Seconds of each stage; SAM's encoder and decoder are told apart by hooks."""

    def __init__(self, sam: Any, device: str, clock: str = "wall") -> None:
        self._clock = time.process_time if clock == "cpu" else time.perf_counter
        self.seconds: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()
        self._device = device
        decoder = sam.mask_decoder
        for stage, module in (
            ("SAM encoder", sam.image_encoder),
            ("SAM decoder", decoder.transformer),
            ("SAM decoder", decoder.output_upscaling),
        ):
            module.register_forward_pre_hook(lambda *_, stage=stage: self._add(stage, -self.now()))
            module.register_forward_hook(lambda *_, stage=stage: self._add(stage, self.now()))
        decoder.transformer.register_forward_hook(bump)  # after the clock has stopped

    def now(self) -> float:
        if self._device.startswith("cuda"):
            torch.cuda.synchronize()
        return self._clock()

    def _add(self, stage: str, seconds: float) -> None:
        self.seconds[stage] += seconds
        self.calls[stage] += seconds > 0

    def segments(self, function: Any, *arguments: Any, **options: Any) -> Any:
        """Time a function that runs SAM; what is neither encoder nor decoder is its post-processing."""
        before = self.seconds["SAM encoder"] + self.seconds["SAM decoder"]
        start = self.now()
        result = function(*arguments, **options)
        inside = self.seconds["SAM encoder"] + self.seconds["SAM decoder"] - before
        self.seconds["SAM masks"] += self.now() - start - inside
        return result

    def time(self, stage: str, function: Any, *arguments: Any) -> Any:
        start = self.now()
        result = function(*arguments)
        self.seconds[stage] += self.now() - start
        return result

    def take(self) -> dict[str, float]:
        """Hand over what was measured and start anew."""
        taken = dict(self.seconds)
        self.encodings = self.calls["SAM encoder"]
        self.seconds.clear()
        self.calls.clear()
        return taken


def bump(_: Any, inputs: Sequence[torch.Tensor], output: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Raise the image features around the point, so that masks are spots."""
    queries, keys = output
    position, tokens = inputs[1].flatten(2).transpose(1, 2), inputs[2]
    near = position @ tokens[:, 5, :, None] * (2 / keys.shape[-1])
    direction = torch.randn(keys.shape[-1], generator=torch.Generator().manual_seed(0)).to(keys)
    return queries, 0.6 * keys + 3 * torch.tanh(4 * near - 2) * direction


def lively_sam(architecture: str = "vit_b", seed: int = 0) -> Any:
    """SAM with random weights whose masks are spots of many sizes."""
    torch.manual_seed(seed)
    model = sam_model_registry[architecture](None)
    decoder = model.mask_decoder
    with torch.no_grad():
        model.image_encoder.pos_embed.normal_(0, 0.1)
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


def picture(side: int) -> np.ndarray:
    """Coloured discs and noise, (side, side, 3) uint8."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[:side, :side]
    drawn = np.zeros((side, side, 3)) + random.integers(0, 255, 3)
    for _ in range(150):
        centre_y, centre_x, radius = (*random.integers(0, side, 2), random.integers(12, 90))
        drawn[(y - centre_y) ** 2 + (x - centre_x) ** 2 < radius**2] = random.integers(0, 255, 3)
    return np.clip(drawn + random.normal(0, 10, drawn.shape), 0, 255).astype(np.uint8)


class Clip:
    """ViT-L/14 of open_clip with random weights, its masks as in the paper."""

    def __init__(self, device: str, quick: bool) -> None:
        torch.manual_seed(0)
        self.model = open_clip.create_model("ViT-L-14", pretrained=None).eval().requires_grad_(False).to(device)
        self.tokenize = open_clip.get_tokenizer("ViT-L-14")
        self.device = device
        if quick:
            del self.model.visual.transformer.resblocks[2:]
        self.schedule = default_schedule(len(self.model.visual.transformer.resblocks))

    def texts(self) -> torch.Tensor:
        with torch.inference_mode():
            return functional.normalize(self.model.encode_text(self.tokenize(list(PROMPTS)).to(self.device)), dim=-1)

    def features(self, rgb: np.ndarray, ids: np.ndarray) -> torch.Tensor:
        """(g, g, D) of one window under its segments' masks."""
        with torch.inference_mode():
            image = torch.from_numpy(rgb).to(self.device).permute(2, 0, 1)[None].float() / 127.5 - 1
            levels = torch.from_numpy(patch_ids(ids, PATCH))[None].to(self.device)
            tokens = dense_features(self.model.visual, image, layer_masks(self.schedule, levels))
            side = WINDOW // PATCH
            return tokens[0, 1:].reshape(side, side, -1)


def naive_segments(sam: Any, rgb: np.ndarray) -> np.ndarray:
    """Four runs of the library's generator, as the paper's code does."""
    ids = np.zeros((len(LEVELS), *rgb.shape[:2]), dtype=np.int64)
    for map_, level in zip(ids, LEVELS, strict=True):
        generator = SamAutomaticMaskGenerator(
            sam,
            points_per_side=level.points_per_side,
            pred_iou_thresh=level.pred_iou_thresh,
            stability_score_thresh=level.stability_score_thresh,
            crop_n_layers=1,
            crop_n_points_downscale_factor=2,
            min_mask_region_area=level.min_mask_region_area,
        )
        for number, record in enumerate(generator.generate(rgb), start=1):
            map_[record["segmentation"]] = number
    return ids


def naive_head(features: torch.Tensor, texts: torch.Tensor) -> np.ndarray:
    """Interpolate all numbers of a feature to every pixel, (Q, h, w)."""
    with torch.inference_mode():
        maps = features.permute(2, 0, 1)[None]
        dense = functional.interpolate(maps, size=(WINDOW, WINDOW), mode="bilinear", align_corners=False)
        scores = torch.einsum("dhw,qd->qhw", functional.normalize(dense[0], dim=0), texts)
        return np.asarray(scores.cpu().numpy())


def quick_head(features: torch.Tensor, texts: torch.Tensor) -> np.ndarray:
    axis = axis_weights(WINDOW // PATCH, WINDOW)
    return pixel_cosines(patch_scores(features.cpu().numpy()[None], texts.cpu().numpy())[0], axis, axis)


def differing(one: np.ndarray, two: np.ndarray) -> float:
    """Share of pixels of two partitions outside the pairs of segments that are each other's best match."""
    same = np.zeros(one.shape, dtype=bool)
    for label in np.unique(one):
        partner = np.bincount(two[one == label]).argmax()
        if np.bincount(one[two == partner]).argmax() == label:
            same |= (one == label) & (two == partner)
    return float(1 - same.mean())


def report(name: str, seconds: dict[str, float]) -> float:
    total = sum(seconds.values())
    shares = ", ".join(f"{stage} {value:.3g} s ({value / total:.1%})" for stage, value in seconds.items())
    print(f"{name:<28} {total:8.2f} s a window: {shares}", flush=True)
    return total


def counts(ids: np.ndarray) -> str:
    return ", ".join(str(len(np.unique(level[level > 0]))) for level in ids)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--quick", action="store_true", help="two blocks an encoder; ratios are not judged")
    parser.add_argument("--effect", action="store_true", help="measure what low resolution changes, too")
    parser.add_argument(
        "--clock", choices=("wall", "cpu"), default="wall", help="cpu: for a machine shared with others"
    )
    options = parser.parse_args()

    sam = lively_sam().to(options.device)
    if options.quick:
        del sam.image_encoder.blocks[2:]
    clip = Clip(options.device, options.quick)
    watch = Stopwatch(sam, options.device, options.clock)
    segmenter = SamSegmenter(sam, LEVELS)
    tile = picture(TILE)
    window = np.ascontiguousarray(tile[400 : 400 + WINDOW, 300 : 300 + WINDOW])

    texts = clip.texts()
    clip.features(window, np.ones((1, WINDOW, WINDOW), dtype=np.int64))  # first calls also allocate
    SamSegmenter(sam, LEVELS[1:2]).window_ids(window[:32, :32])
    watch.take()

    ids = watch.segments(naive_segments, sam, window)
    embedded = watch.time("words", clip.texts)
    features = watch.time("CLIP", clip.features, window, ids)
    expected = watch.time("score head", naive_head, features, embedded)
    naive = report("naive", watch.take())
    print(f"    {watch.encodings} image encodings; segments a level: {counts(ids)}")

    found_ids = watch.segments(segmenter.window_ids, window)
    features = watch.time("CLIP", clip.features, window, found_ids)
    found = watch.time("score head", quick_head, features, texts)
    exact = report("exact", watch.take())
    print(f"    {watch.encodings} image encodings; same segments: {np.array_equal(found_ids, ids)}")

    tile_ids = watch.segments(segmenter.tile_ids, tile)
    windows = (TILE / WINDOW) ** 2
    shared = watch.take()
    report("one tile of 1,024 pixels", shared)
    print(f"    {watch.encodings} image encoding; segments a level: {counts(tile_ids)}")
    cut = tile_ids[:, 400 : 400 + WINDOW, 300 : 300 + WINDOW]
    watch.time("score head", quick_head, watch.time("CLIP", clip.features, window, cut), texts)
    quick = report("tile, a window's part", {key: value / windows for key, value in shared.items()} | watch.take())

    best = np.sort(expected, axis=0)
    clear = best[-1] - best[-2] > 1e-5
    agree = expected.argmax(axis=0) == found.argmax(axis=0)
    same = bool(agree[clear].all()) and np.array_equal(found_ids, ids)
    print(
        f"labels, naive against exact: {agree[clear].mean():.4%} of the {clear.mean():.2%} of pixels whose two best "
        f"scores differ by more than 1e-5 are the same; scores differ by {np.abs(expected - found).max():.1e} at most"
    )
    print(f"exact: {naive / exact:.2f} times as fast as naive (at least {EXACT_AT_LEAST})")
    print(f"tile: {naive / quick:.1f} times as fast as naive (at least {TILE_AT_LEAST:g})")

    if options.effect:
        full = watch.segments(segmenter.tile_ids, tile, full_resolution=True)
        report("the tile at full resolution", watch.take())
        shares = ", ".join(f"{differing(a, b):.2%}" for a, b in zip(full, tile_ids, strict=True))
        print(f"    segments a level: {counts(full)}; pixels in another segment than at low resolution: {shares}")
    if options.quick:
        return 0
    return 0 if same and naive / exact >= EXACT_AT_LEAST and naive / quick >= TILE_AT_LEAST else 1


if __name__ == "__main__":
    sys.exit(main())
