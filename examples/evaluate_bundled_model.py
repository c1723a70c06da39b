"""Measure the bundled model, or another, on the places that SPLIT.md holds out, beside a classifier of pixel colours.

The model goes through the command line: `resegeo segment` once a picture and segment source, `resegeo evaluate` once
a set. All twelve classes compete; a pixel counts for the class asked for when that class wins. The baseline is
scikit-learn's HistGradientBoostingClassifier on red, green, blue, hue, saturation and value of single pixels, fitted
for each class alone on pixels of the same set's training pictures.

"Best threshold" figures are optimistic: each class alone, with the one threshold, chosen on the very pixels that it is
measured on, which gives the best IoU. They say what could be had, not what is had.

    python examples/evaluate_bundled_model.py --data DIR --out figures.json
"""

from __future__ import annotations

import argparse
import csv
import json
import logging
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from bundled_model_data import CLASSES, MEASURED, Picture, answer_key, measured_pictures
from measuring import FALSE, TRUE, Thresholds, limited, markdown, probabilities, write_classes, write_json, write_scene
from numpy.typing import NDArray
from skimage.color import rgb2hsv
from sklearn.ensemble import HistGradientBoostingClassifier

from resegeo.checkpoints.sources import resolve_model
from resegeo.clip.encoder import load_encoder, set_threads
from resegeo.errors import ResegeoWarning
from resegeo.settings import Settings

LOG = logging.getLogger("evaluate")
SEGMENTS = ("superpixels", "none")
SHOWN = {"road": "road", "solar_panel": "solar panel", "forest": "forest", "naip": "water (NDWI)"}
COLOURS = {"colour": "pixel colours", "colour, balanced": "pixel colours, both answers weighted equally"}
TRAINING_PIXELS = 300_000
"""Pixels a set that the colour classifier is fitted on, drawn without regard to their class."""


def colours(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Red, green, blue, hue, saturation, value of pixels (N, 3) -> (N, 6)."""
    return np.concatenate([rgb / 255.0, rgb2hsv(rgb[None])[0]], axis=1).astype(np.float32)


def fit_colours(pictures: Sequence[Picture], seed: int, *, balanced: bool) -> HistGradientBoostingClassifier:
    """Fit the baseline on known pixels of ``pictures``, as many of each picture as its share."""
    rng = np.random.default_rng(seed)
    pixels, answers = [], []
    total = sum(int(answer_key(p)[1].sum()) for p in pictures)
    for picture in pictures:
        true, known = answer_key(picture)
        where = np.flatnonzero(known)
        chosen = rng.choice(where, min(len(where), round(TRAINING_PIXELS * len(where) / total)), replace=False)
        pixels.append(picture.rgb.reshape(-1, 3)[chosen])
        answers.append(true.ravel()[chosen])
    model = HistGradientBoostingClassifier(
        max_iter=200, random_state=seed, class_weight="balanced" if balanced else None
    )
    return model.fit(colours(np.concatenate(pixels)), np.concatenate(answers))


def measure_colours(
    training: Sequence[Picture], test: Sequence[Picture], seed: int, *, balanced: bool
) -> dict[str, Any]:
    """The baseline's IoU at the even chance and at the best threshold."""
    model, counts = fit_colours(training, seed, balanced=balanced), Thresholds()
    for picture in test:
        chance = model.predict_proba(colours(picture.rgb.reshape(-1, 3)))[:, 1].reshape(picture.codes.shape)
        counts.add(chance, *answer_key(picture))
    best, threshold = counts.best()
    return {"iou": counts.at(0.5), "best_threshold_iou": best, "best_threshold": threshold}


def resegeo(*arguments: str | Path) -> str:
    """Run the command line and return what it prints."""
    command = [sys.executable, "-m", "resegeo_cli", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr}")
    return done.stdout


def measure_model(
    pictures: Sequence[Picture], segments: str, model: Sequence[str], threads: int, folder: Path
) -> dict[str, dict[str, Any]]:
    """Segment every picture by the command line and evaluate each set; source -> figures."""
    out = folder / segments
    out.mkdir()
    pairs: dict[str, list[tuple[Path, Path]]] = {}
    started = time.monotonic()
    for number, picture in enumerate(pictures, 1):
        scene, truth = write_scene(picture, folder)
        # What --model needs beside it, and nothing else, is the caller's: the rest is every user's default.
        options = ["--prompts", folder / "classes.yml", "-o", out, "--vector", "none", "--segments", segments, "-q"]
        (raster, *_) = resegeo("segment", scene, *options, "--threads", str(threads), *model).splitlines()
        pairs.setdefault(picture.source, []).append((Path(raster), truth))
        LOG.info("%s: %d of %d pictures, %.0f s", segments, number, len(pictures), time.monotonic() - started)
    result = {}
    for source, files in pairs.items():
        table = out / f"{source}.csv"
        with table.open("w", newline="", encoding="utf-8") as lines:
            csv.writer(lines).writerows([("prediction", "truth"), *files])
        name = MEASURED[source]
        found = json.loads(
            resegeo("evaluate", "--pairs", table, "--map", f"{TRUE}={name},{FALSE}=background", "--json", "-q")
        )
        result[source] = {**found["classes"][name], "pixels_compared": found["pixels_compared"]}
    return result


def best_thresholds(
    pictures: Sequence[Picture], segments: str, model: str | None, arch: str | None, folder: Path
) -> dict[str, tuple[float, float]]:
    """The model's best IoU and threshold, each class alone: source -> (IoU, threshold)."""
    source = resolve_model(model, arch)
    encoder = load_encoder(source)
    counts: dict[str, Thresholds] = {}
    for picture in pictures:
        scene, _ = write_scene(picture, folder)
        chance = probabilities(scene, source, encoder, Settings(segments=segments))
        asked = chance[CLASSES.index(MEASURED[picture.source])]
        counts.setdefault(picture.source, Thresholds()).add(asked, *answer_key(picture))
    return {name: counted.best() for name, counted in counts.items()}


def tabulate(figures: dict[str, Any]) -> str:
    """The result as two markdown tables: what is had, and what the best thresholds would give."""
    sets = list(figures["pictures"])

    def row(kind: str, key: str) -> list[float]:
        values = [figures[kind][source][key] for source in sets]
        return [*values, float(np.mean(values))]

    def table(key: str, kinds: Sequence[str]) -> str:
        strongest = np.max([row(kind, key) for kind in COLOURS], axis=0)
        ratio = np.array(row(figures["segments"][0], key)) / np.maximum(strongest, 1e-9)
        listed = [[COLOURS.get(kind, f"model, {kind}"), *row(kind, key)] for kind in kinds]
        return markdown(head, [*listed, ["model, first line / better of the two", *ratio.tolist()]])

    head = ["IoU", *(f"{SHOWN[s]} ({figures['pictures'][s]})" for s in sets), "mean"]
    kinds = [*figures["segments"], *COLOURS]
    text = table("iou", kinds)
    if figures["thresholds"]:
        text += "\n\nBest threshold per class, each class alone, chosen on these very pixels (optimistic):\n\n"
        text += table("best_threshold_iou", kinds)
    return text


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder with `labelled` and `scenes`")
    parser.add_argument("--out", type=Path, required=True, help="JSON file for the figures")
    parser.add_argument("--model", help="checkpoint file or open_clip tag; by default the bundled model")
    parser.add_argument("--arch", help="open_clip architecture of a checkpoint file")
    parser.add_argument("--segments", nargs="+", default=list(SEGMENTS))
    parser.add_argument("--sets", nargs="+", choices=list(MEASURED), default=list(MEASURED))
    parser.add_argument("--limit", type=int, help="at most so many pictures a set, for a quick look")
    parser.add_argument("--no-thresholds", action="store_true", help="leave out the best thresholds of the model")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s")
    LOG.setLevel(logging.INFO)
    warnings.simplefilter("ignore", ResegeoWarning)
    set_threads(args.threads)
    test = limited(measured_pictures(args.data, test=True), args.limit, args.sets)
    training = measured_pictures(args.data, test=False)
    figures: dict[str, Any] = {
        "model": args.model or "bundled",
        "segments": args.segments,
        "thresholds": not args.no_thresholds,
        "pictures": {s: sum(p.source == s for p in test) for s in args.sets},
        "limit": args.limit,
    }
    for kind in COLOURS:
        figures[kind] = {}
        for source in args.sets:
            own, asked = ([p for p in group if p.source == source] for group in (training, test))
            figures[kind][source] = measure_colours(own, asked, args.seed, balanced=kind != "colour")
            LOG.info("%s, %s: %s", COLOURS[kind], source, figures[kind][source])
    model = [*(["--model", args.model] if args.model else []), *(["--arch", args.arch] if args.arch else [])]
    with tempfile.TemporaryDirectory(prefix="resegeo-figures-") as name:
        folder = Path(name)
        write_classes(folder / "classes.yml")
        for segments in args.segments:
            figures[segments] = measure_model(test, segments, model, args.threads, folder)
            if not args.no_thresholds:
                for source, (best, at) in best_thresholds(test, segments, args.model, args.arch, folder).items():
                    figures[segments][source] |= {"best_threshold_iou": best, "best_threshold": at}
    write_json(args.out, figures)
    print(tabulate(figures))


if __name__ == "__main__":
    main()
