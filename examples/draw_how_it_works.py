"""Draw the figure of README's section "How it works": one window, its segments, one patch's attention, its labels.

    python examples/draw_how_it_works.py [OUT.png]

Everything is computed by the package's own code on the demo scene with the bundled model; two levels of superpixels
stand for the hierarchy. The attention is the mean over heads of the first segment layer, once free and once restricted.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from skimage.segmentation import find_boundaries

from resegeo.checkpoints.sources import resolve_model
from resegeo.classes.class_file import load_class_list
from resegeo.clip.attention import layer_masks, patch_ids
from resegeo.clip.blending import Blender, Grouping, WindowScores, class_codes
from resegeo.clip.encoder import load_encoder
from resegeo.clip.scores import patch_scores, unit
from resegeo.scene.reader import open_scene
from resegeo.scene.resampling import Canvas
from resegeo.scene.windows import Rect
from resegeo.segments.segment_sources import Superpixels
from resegeo.settings import Settings

DEMO = Path(__file__).parent / "demo"
CORNER = (150, 210)
"""Row and column of the window in the demo scene."""

PATCH = (9, 6)
"""Row and column of the patch whose attention is drawn."""

ZOOM, GAP, TEXT = 3, 12, 17


def attention_of(visual: torch.nn.Module, images: torch.Tensor, masks: list, layer: int) -> torch.Tensor:
    """Attention weights (heads' mean) of one layer, (T, T), with the layers before it as they are."""
    x = visual._embeds(images)
    for block, keep in zip(visual.transformer.resblocks[:layer], masks[:layer], strict=True):
        y = block.ln_1(x)
        blocked = None if keep is None else ~keep[0, 0]
        x = x + block.attn(y, y, y, attn_mask=blocked, need_weights=False)[0]
        x = x + block.mlp(block.ln_2(x))
    block = visual.transformer.resblocks[layer]
    y = block.ln_1(x)
    blocked = None if masks[layer] is None else ~masks[layer][0, 0]
    return block.attn(y, y, y, attn_mask=blocked, need_weights=True)[1][0]


def outlined(rgb: NDArray[np.uint8], ids: NDArray[np.int64]) -> NDArray[np.uint8]:
    """The window with the borders of its segments."""
    large = rgb.repeat(ZOOM, axis=0).repeat(ZOOM, axis=1)
    edges = find_boundaries(ids.repeat(ZOOM, axis=0).repeat(ZOOM, axis=1), mode="inner")
    large[edges] = (255, 225, 40)
    return large


def heat(rgb: NDArray[np.uint8], weights: NDArray[np.float32], patch: int) -> NDArray[np.uint8]:
    """Attention over the patches as red over gray; the asking patch has a white frame."""
    gray = rgb.mean(axis=2, keepdims=True).repeat(3, axis=2) * 0.6
    share = (weights / weights.max()).repeat(patch, axis=0).repeat(patch, axis=1)[..., None] ** 0.6
    mixed = gray * (1 - share) + np.array([235, 45, 30]) * share
    large = mixed.astype(np.uint8).repeat(ZOOM, axis=0).repeat(ZOOM, axis=1)
    side = patch * ZOOM
    image = Image.fromarray(large)
    left, top = PATCH[1] * side, PATCH[0] * side
    ImageDraw.Draw(image).rectangle((left, top, left + side, top + side), outline=(255, 255, 255), width=3)
    return np.array(image)


def main() -> None:
    torch.manual_seed(0)
    scene = open_scene(DEMO / "sentinel2.tif")
    classes = load_class_list(DEMO / "classes.yml")
    encoder = load_encoder(resolve_model(), device="cpu")
    size, patch = encoder.image_size, encoder.patch_size
    window = Rect(*CORNER, size, size)
    rgb, valid = scene.read(window.row, window.col, size, size)
    ids = Superpixels(Canvas(scene), (16 * patch**2, 64 * patch**2)).ids(window)
    levels = patch_ids(ids[None], patch)
    schedule = Settings(segment_layers=2).schedule(encoder.depth)
    with torch.inference_mode():
        images = torch.from_numpy(rgb[None]).permute(0, 3, 1, 2).float() / 255
        mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (encoder.mean, encoder.std))
        images = (images - mean) / std
        masks = layer_masks(schedule, torch.from_numpy(levels))
        asked = 1 + PATCH[0] * encoder.grid + PATCH[1]
        free = attention_of(encoder.model.visual, images, [None] * encoder.depth, schedule.free)[asked, 1:]
        held = attention_of(encoder.model.visual, images, masks, schedule.free)[asked, 1:]
    features, cls = encoder.encode_windows(rgb[None], valid[None], levels, schedule)
    texts = encoder.encode_texts(classes.prompt_texts)
    scores = WindowScores(window, patch_scores(features, texts)[0], (unit(cls) @ texts.T)[0])
    grouping = Grouping.of(classes, "max", "classes")
    by_class = Blender(Canvas(scene), grouping, encoder.logit_scale, taper=False).blend(window, [scores])
    codes = class_codes(by_class, valid, classes, [None] * len(classes.classes))
    colours = np.array([classes.color_of(code) for code in range(len(classes.drawn) + 1)], dtype=np.uint8)
    grid = (encoder.grid, encoder.grid)
    panels = [
        ("a window", rgb.repeat(ZOOM, axis=0).repeat(ZOOM, axis=1)),
        ("segments, level 1", outlined(rgb, ids[0])),
        ("segments, level 2", outlined(rgb, ids[1])),
        ("one patch's attention, free", heat(rgb, free.numpy().reshape(grid), patch)),
        ("the same, held to its segment", heat(rgb, held.numpy().reshape(grid), patch)),
        ("labels", colours[codes].repeat(ZOOM, axis=0).repeat(ZOOM, axis=1)),
    ]
    side, line = size * ZOOM, TEXT + 10
    page = Image.new("RGB", (3 * side + 4 * GAP, 2 * (side + line + GAP) + GAP), (255, 255, 255))
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(size=TEXT)
    for number, (title, panel) in enumerate(panels):
        x = GAP + number % 3 * (side + GAP)
        y = GAP + number // 3 * (side + line + GAP)
        draw.text((x, y), title, fill=(20, 20, 20), font=font)
        page.paste(Image.fromarray(panel), (x, y + line))
    page.quantize(192).save(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("how_it_works.png"))


if __name__ == "__main__":
    main()
