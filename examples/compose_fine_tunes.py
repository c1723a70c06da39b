"""Average short fine-tunes of the bundled model: by separation, uniformly, against the best single one.

Each variant goes on from the same weights with another seed and without one source of pictures (the next variant
without another), so each has seen what others have not. Both towers learn: words that stayed as they are would leave
`separation`, which looks at words alone, nothing to tell variants by. The averages are made by
`resegeo.composition.average`, and everything is measured on the places that SPLIT.md holds out, by `resegeo.segment`
and `resegeo.evaluation.evaluate`, all classes competing. Which single variant is best is read off the very figures it
is compared by, so that line is optimistic.

    python examples/compose_fine_tunes.py --data DIR --out DIR

--data is the folder with `labelled` and `scenes`. A variant that is there already is not trained again.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import time
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bundled_model_crops import Sampler
from bundled_model_data import (
    CLASSES,
    PHRASES,
    SINGLES,
    VIEWS,
    Picture,
    measured_pictures,
)
from bundled_model_losses import jaccard_loss, make_view, partial_loss
from bundled_model_words import PHRASE_SETS, TEMPLATES
from measuring import FALSE, TRUE, groups, limited, write_scene
from safetensors.torch import save_file
from train_bundled_model import batch_of, class_logits

import resegeo
from resegeo.checkpoints.sources import ModelSource, facts_for_file, file_sha256, resolve_model
from resegeo.classes.class_file import class_list
from resegeo.clip.attention import default_schedule, layer_masks
from resegeo.clip.encoder import dense_features, load_encoder
from resegeo.composition.average import compose
from resegeo.errors import ResegeoWarning
from resegeo.evaluation.evaluate import evaluate
from resegeo_cli.tables import of_composition

LOG = logging.getLogger("compose")
ASKED = ("an aerial photo of {}", "a satellite image of {}", "a photo of {} from above", "a {}")
CONVENTIONS = ("logit_scale", "logit_bias")
"""What variants of one ancestor must have in common, see `resegeo.composition.average`."""


def fine_tune(
    ancestor: ModelSource, pictures: Sequence[Picture], path: Path, *, seed: int, steps: int, batch: int, rate: float
) -> ModelSource:
    """Train a copy of ``ancestor`` on ``pictures`` and write it, with where it comes from in its metadata."""
    encoder = load_encoder(ancestor, device="cpu")
    model = encoder.model.train()
    phrases = [encoder.tokenizer([t.format(p) for p in PHRASES[name] for t in TEMPLATES]) for name in CLASSES]
    moving = [value.requires_grad_(True) for name, value in model.named_parameters() if name not in CONVENTIONS]
    sampler = Sampler(list(pictures), encoder.image_size)
    view = make_view(VIEWS["kinds"])
    schedule = default_schedule(encoder.depth)
    optim = torch.optim.AdamW(moving, lr=rate, weight_decay=0.02)
    started, running = time.monotonic(), math.nan
    for step in range(steps):
        rng = np.random.default_rng([seed, step])
        for group in optim.param_groups:
            group["lr"] = rate * min(1.0, (step + 1) / 20) * 0.5 * (1 + math.cos(math.pi * step / steps))
        images, ids, codes, sources, _ = batch_of(sampler, batch, encoder.patch_size, rng, 0.25)
        seen = dense_features(model.visual, images, layer_masks(schedule, ids))
        # One phrase a class, some sets of them, each for its share of the windows.
        drawn = torch.stack([tokens[rng.integers(len(tokens))] for _ in range(PHRASE_SETS) for tokens in phrases])
        texts = model.encode_text(drawn, normalize=True).reshape(PHRASE_SETS, len(phrases), -1)
        texts = texts.repeat(math.ceil(batch / PHRASE_SETS), 1, 1)[:batch]
        row, col = rng.integers(1, 3, 2)
        known = torch.from_numpy(codes[:, row::4, col::4].astype(np.int64))
        logits = class_logits(model, seen, texts, known.shape[1])
        loss = partial_loss(logits, known, view.likely) + jaccard_loss(logits, known, sources, view)
        optim.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(moving, 1.0)
        optim.step()
        value = float(loss.detach())
        running = value if math.isnan(running) else running + 0.05 * (value - running)
        if (step + 1) % 20 == 0:
            pace = (time.monotonic() - started) / (step + 1)
            LOG.info("%s: step %d of %d, loss %.3f, %.2f s a step", path.stem, step + 1, steps, running, pace)
    state = {name: value.detach().contiguous() for name, value in model.state_dict().items()}
    beside = path.with_name(f".tmp-{path.name}")
    save_file(state, beside, metadata=facts_for_file(ancestor))
    beside.replace(path)
    return resolve_model(str(path))


def measure(model: ModelSource, pictures: Sequence[Picture], folder: Path, segments: str) -> dict[str, float]:
    """IoU of the asked class on each set of pictures, and the mean of the sets."""
    words = class_list(
        [{"name": name, "prompts": prompts} for name, prompts in groups().items()], templates=list(ASKED)
    )
    pairs: dict[str, list[tuple[Path, Path]]] = {}
    for picture in pictures:
        scene, truth = write_scene(picture, folder)
        given = None if model.bundled else str(model.path)
        out = folder / model.path.stem
        done = resegeo.segment(
            scene, words, out, model=given, segments=segments, vector=(), discard_store=True, overwrite=True
        )
        pairs.setdefault(picture.source, []).append((done.raster, truth))
    found = {}
    for source, files in pairs.items():
        name = SINGLES[source]
        accuracy = evaluate(files, legend=f"{TRUE}={name},{FALSE}=background").accuracy
        found[source] = float(accuracy.iou[accuracy.names.index(name)])
    return {**found, "mean": float(np.mean(list(found.values())))}


def table(figures: dict[str, Any]) -> str:
    """The figures as markdown; the best of the single variants is named below."""
    rows = figures["iou"]
    columns = list(next(iter(rows.values())))
    lines = ["| IoU | weight by separation | " + " | ".join(columns) + " |", "|---" * (len(columns) + 2) + "|"]
    for name, values in rows.items():
        weight = figures["weights"].get(name)
        cells = ["–" if weight is None else f"{weight:.3f}", *(f"{values[column]:.3f}" for column in columns)]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    singles = [name for name in rows if name.startswith("variant")]
    best = max(singles, key=lambda name: rows[name]["mean"])
    lines += ["", f"Best single variant, chosen on these very figures: {best} ({rows[best]['mean']:.3f})."]
    return "\n".join(lines)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Fine-tune, average, measure."""
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    ancestor = resolve_model(args.ancestor)
    training = [p for p in measured_pictures(args.data, test=False) if p.source in SINGLES]
    for picture in training:
        picture.index()
    left_out = list(SINGLES)
    variants = []
    for number in range(1, args.variants + 1):
        without = left_out[(number - 1) % len(left_out)]
        path = args.out / f"variant-{number}-without-{without}.safetensors"
        if path.exists():
            variants.append(resolve_model(str(path)))
            continue
        own = [picture for picture in training if picture.source != without]
        settings = {"steps": args.steps, "batch": args.batch, "rate": args.rate}
        variants.append(fine_tune(ancestor, own, path, seed=args.seed + number, **settings))
    words = class_list([{"name": name, "prompts": list(PHRASES[name])} for name in CLASSES])
    averages, weights = {}, {}
    for rule in ("uniform", "separation"):
        made = compose(
            variants,
            args.out / f"{rule}.safetensors",
            weights=rule,
            classes=words,
            allow_outlier=args.allow_outlier,
            device="cpu",
        )
        averages[rule] = resolve_model(str(made.path))
        if rule == "separation":
            LOG.info("\n%s", of_composition(made))
            weights = {one.source.name: one.weight for one in made.variants}
    test = limited(measured_pictures(args.data, test=True), args.limit, list(SINGLES))
    folder = args.out / "measured"
    folder.mkdir(exist_ok=True)
    named = {"ancestor": replace(ancestor), **{one.name: one for one in variants}}
    named |= {f"average, {rule}": one for rule, one in averages.items()}
    figures: dict[str, Any] = {
        "ancestor": ancestor.sha256,
        "steps": args.steps,
        "pictures": len(test),
        "weights": weights,
        "sha256": {name: file_sha256(one.path) for name, one in named.items()},
        "iou": {},
    }
    for name, one in named.items():
        figures["iou"][name] = measure(one, test, folder, args.segments)
        LOG.info("%s: %s", name, figures["iou"][name])
    (args.out / "figures.json").write_text(json.dumps(figures, indent=2) + "\n", "utf-8")
    (args.out / "figures.md").write_text(table(figures) + "\n", "utf-8")
    return figures


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--data", type=Path, required=True, help="the folder with `labelled` and `scenes`")
    made.add_argument("--out", type=Path, required=True, help="folder for variants, averages and figures")
    made.add_argument("--ancestor", help="checkpoint to go on from; by default the bundled model")
    made.add_argument("--variants", type=int, default=4)
    made.add_argument("--steps", type=int, default=300)
    made.add_argument("--batch", type=int, default=16)
    made.add_argument("--rate", type=float, default=1e-4)
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--threads", type=int, default=2)
    made.add_argument("--segments", default="none", help="as `resegeo segment --segments`")
    made.add_argument("--limit", type=int, help="at most so many pictures a set, for a quick look")
    made.add_argument("--allow-outlier", action="store_true")
    return made


def main() -> None:
    """Parse the command line and print the table."""
    args = parser().parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s")
    LOG.setLevel(logging.INFO)
    warnings.simplefilter("ignore", ResegeoWarning)
    print(table(run(args)))


if __name__ == "__main__":
    main()
