"""Measure the bundled model, or others, on the places that SPLIT.md holds out, beside a classifier of pixel colours.

The models go through the command line (called in this process): `resegeo segment` once a picture, `resegeo evaluate`
once a class. All kinds of the model's vocabulary compete; a kind that is part of the class asked for counts as it
("river" as water, "highway" as road; in Dubai all that is green as vegetation). EuroSAT's chips are segmented by ten
words and take the class of most of their pixels. The baseline is scikit-learn's HistGradientBoostingClassifier on red,
green, blue, hue, saturation and value of single pixels, fitted for each set on pixels of its training pictures.

A linear probe says what a user's examples could make of the features: a logistic regression on the features of patches
of the training pictures, measured on patches of the held-out ones.

    python examples/evaluate_bundled_model.py --data DIR --out figures.json
    python examples/evaluate_bundled_model.py --data DIR --out figures.json --model first.safetensors --kinds 12
"""

from __future__ import annotations

import argparse
import csv
import json
import logging
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from bundled_model_data import (
    CLASSES,
    MEASURED,
    PHRASES,
    Picture,
    answer_key,
    eurosat_chips,
    measured_pictures,
)
from click.testing import CliRunner
from measuring import (
    EUROSAT_WORDS,
    FALSE,
    TRUE,
    groups,
    limited,
    markdown,
    write_classes,
    write_json,
    write_scene,
    write_truth,
)
from numpy.typing import NDArray
from PIL import Image
from skimage.color import rgb2hsv
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression

from resegeo.checkpoints.sources import resolve_model
from resegeo.clip.attention import default_schedule, patch_ids
from resegeo.clip.encoder import Encoder, load_encoder, set_threads
from resegeo.errors import ResegeoWarning
from resegeo_cli.main import main as command_line

LOG = logging.getLogger("evaluate")
COLOURS = {"colour": False, "colour, balanced": True}
TRAINING_PIXELS = 60_000
"""Pixels a set that the colour classifier is fitted on, drawn without regard to their class."""
PROBED = ("road", "solar_panel", "forest", "dubai", "korea", "clouds")


def colours(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Red, green, blue, hue, saturation, value of pixels (N, 3) -> (N, 6)."""
    return np.concatenate([rgb / 255.0, rgb2hsv(rgb[None])[0]], axis=1).astype(np.float32)


def numbered(picture: Picture) -> NDArray[np.int64]:
    """The classes asked for as 1, 2, …; 0 where none of them is, -1 where nobody knows (H, W)."""
    names = MEASURED[picture.source]
    result = np.zeros(picture.codes.shape, dtype=np.int64)
    for number, name in enumerate(names, 1):
        true, known = answer_key(picture, name)
        result[~known & (result == 0)] = -1
        result[true] = number
    return result


def scores(
    said: Sequence[NDArray[np.int64]], truth: Sequence[NDArray[np.int64]], names: Sequence[str]
) -> dict[str, Any]:
    """IoU of each class over all pixels of which the truth knows."""
    found, true = np.concatenate([a.ravel() for a in said]), np.concatenate([a.ravel() for a in truth])
    found, true = found[true >= 0], true[true >= 0]
    return {
        name: float(((found == n) & (true == n)).sum() / max(1, ((found == n) | (true == n)).sum()))
        for n, name in enumerate(names, 1)
    }


def measure_colours(training: Sequence[Picture], test: Sequence[Picture], *, balanced: bool) -> dict[str, Any]:
    """The baseline's IoU of each class of a set."""
    rng = np.random.default_rng(0)
    pixels, wanted = [], []
    for picture in training:
        answer = numbered(picture).ravel()
        where = np.flatnonzero(answer >= 0)
        chosen = rng.choice(where, min(len(where), TRAINING_PIXELS // len(training)), replace=False)
        pixels.append(picture.rgb.reshape(-1, 3)[chosen])
        wanted.append(answer[chosen])
    model = HistGradientBoostingClassifier(max_iter=100, random_state=0, class_weight="balanced" if balanced else None)
    model.fit(colours(np.concatenate(pixels)), np.concatenate(wanted))
    said = [model.predict(colours(p.rgb.reshape(-1, 3))) for p in test]
    return scores(said, [numbered(p) for p in test], MEASURED[test[0].source])


def measure_chip_colours(training: Sequence[Picture], test: Sequence[Picture]) -> float:
    """The baseline on EuroSAT: its pixels vote."""
    rng = np.random.default_rng(0)
    pixels = np.concatenate([p.rgb.reshape(-1, 3)[rng.integers(p.codes.size, size=20)] for p in training])
    model = HistGradientBoostingClassifier(max_iter=100, random_state=0)
    model.fit(colours(pixels), np.repeat([p.codes[0, 0] for p in training], 20))
    votes = [np.bincount(model.predict(colours(p.rgb.reshape(-1, 3)))).argmax() for p in test]
    return float(np.mean([vote == p.codes[0, 0] for vote, p in zip(votes, test, strict=True)]))


def resegeo(*arguments: str | Path) -> str:
    """Run the command line and return what it prints."""
    done = CliRunner().invoke(command_line, [*map(str, arguments)])
    if done.exit_code:
        raise SystemExit(f"resegeo {' '.join(map(str, arguments))}\n{done.output}\n{done.exception!r}")
    return done.stdout


def read_codes(path: Path) -> NDArray[np.integer[Any]]:
    """The class codes of a class raster: 1 for the first class, and so on."""
    with rasterio.open(path) as raster:
        return np.asarray(raster.read(1))


def measure_model(
    pictures: Sequence[Picture], kinds: Sequence[str], options: Sequence[str], folder: Path
) -> tuple[dict[str, dict[str, float]], dict[str, dict[str, dict[str, float]]]]:
    """Segment every picture, evaluate each class of each set: its IoU, and what its pixels are called."""
    folder.mkdir()
    pairs: dict[tuple[str, str], list[tuple[Path, Path]]] = {}
    started = time.monotonic()
    for green in (False, True):
        write_classes(folder / f"{green}.yml", groups(kinds, vegetation=green))
    for count, picture in enumerate(pictures, 1):
        scene, _ = write_scene(picture, folder)
        prompts = folder / f"{picture.source == 'dubai'}.yml"
        printed = resegeo(
            *("segment", scene, "--prompts", prompts, "-o", folder / "out", "--vector", "none", "-q", *options)
        )
        for name in MEASURED[picture.source]:
            truth = folder / f"{scene.stem}.{name}.png"
            write_truth(picture, name, truth)
            pairs.setdefault((picture.source, name), []).append((Path(printed.splitlines()[0]), truth))
        LOG.info("%d of %d pictures, %.0f s", count, len(pictures), time.monotonic() - started)
    result: dict[str, dict[str, float]] = {}
    called: dict[str, dict[str, dict[str, float]]] = {}
    for (source, name), files in pairs.items():
        table = folder / "pairs.csv"
        with table.open("w", newline="", encoding="utf-8") as lines:
            csv.writer(lines).writerows([("prediction", "truth"), *files])
        legend = f"{TRUE}={name},{FALSE}=background"
        found = json.loads(resegeo("evaluate", "--pairs", table, "--map", legend, "--json", "-q"))
        result.setdefault(source, {})[name] = found["classes"][name]["iou"] or 0.0
        words = list(groups(kinds, vegetation=source == "dubai"))
        counts = np.zeros(256, dtype=np.int64)
        for prediction, truth in files:
            counts += np.bincount(read_codes(prediction)[np.asarray(Image.open(truth)) == TRUE], minlength=256)
        shares = counts[1 : len(words) + 1] / max(1, counts.sum())
        called.setdefault(source, {})[name] = {
            w: round(float(v), 3) for w, v in zip(words, shares, strict=True) if v > 0.02
        }
    return result, called


def measure_chips(chips: Sequence[Picture], options: Sequence[str], folder: Path) -> dict[str, float]:
    """Share of EuroSAT's chips whose pixels vote for their class, by class."""
    folder.mkdir()
    write_classes(folder / "ten.yml", {word: [word] for word in EUROSAT_WORDS.values()})
    hits: dict[str, list[bool]] = {}
    for chip in chips:
        scene, _ = write_scene(chip, folder)
        printed = resegeo(
            *(
                "segment",
                scene,
                "--prompts",
                folder / "ten.yml",
                "-o",
                folder / "out",
                "--vector",
                "none",
                "-q",
                *options,
            )
        )
        vote = np.bincount(read_codes(Path(printed.splitlines()[0])).ravel(), minlength=256)[1:11].argmax()
        kind = chip.name.split("/")[1].split("_")[0]
        hits.setdefault(kind, []).append(list(EUROSAT_WORDS).index(kind) == vote)
    return {kind: float(np.mean(right)) for kind, right in hits.items()}


def patches(encoder: Encoder, picture: Picture, answer: NDArray[np.int64]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Unit features (N, D) and answers (N,) of the patches whose answer is known, from windows side by side."""
    size, patch = encoder.image_size, encoder.patch_size
    height, width = (max(size, length // size * size) for length in picture.codes.shape)
    pad = [(0, max(0, size - length)) for length in picture.codes.shape]
    rgb = np.pad(picture.rgb, [*pad, (0, 0)])[:height, :width]
    answer = np.pad(answer, pad, constant_values=-1)[:height, :width]
    valid = np.pad(np.ones(picture.codes.shape, dtype=bool), pad)[:height, :width]
    spots = [(r, c) for r in range(0, height, size) for c in range(0, width, size)]
    features = []
    for start in range(0, len(spots), 16):
        part = spots[start : start + 16]
        windows, known = (np.stack([a[r : r + size, c : c + size] for r, c in part]) for a in (rgb, valid))
        levels = np.ones((len(part), 1, encoder.grid, encoder.grid), dtype=np.int64)
        features.append(encoder.encode_windows(windows, known, levels, default_schedule(encoder.depth))[0])
    found = np.concatenate(features).reshape(-1, encoder.dimension)
    wanted = np.concatenate([patch_ids(answer[r : r + size, c : c + size], patch).ravel() for r, c in spots])
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    return found[wanted >= 0], wanted[wanted >= 0]


def probe(encoder: Encoder, training: Sequence[Picture], test: Sequence[Picture]) -> dict[str, float]:
    """IoU of each class of a set by a logistic regression on patches, at most 20,000 of them, 40 training pictures."""
    rng = np.random.default_rng(0)
    chosen = [training[i] for i in sorted(rng.permutation(len(training))[:40])]
    pairs = [patches(encoder, p, numbered(p)) for p in chosen]
    features, wanted = (np.concatenate(part) for part in zip(*pairs, strict=True))
    kept = rng.permutation(len(features))[:20_000]
    model = LogisticRegression(C=10.0, max_iter=300, class_weight="balanced").fit(features[kept], wanted[kept])
    judged = [patches(encoder, p, numbered(p)) for p in test]
    return scores([model.predict(f) for f, _ in judged], [w for _, w in judged], MEASURED[test[0].source])


def probe_chips(encoder: Encoder, training: Sequence[Picture], test: Sequence[Picture]) -> float:
    """Share of EuroSAT's chips whose class a logistic regression on their mean features tells."""

    def gathered(chips: Sequence[Picture]) -> tuple[NDArray[Any], NDArray[Any]]:
        answer = np.zeros(chips[0].codes.shape, dtype=np.int64)
        features = [patches(encoder, chip, answer)[0].mean(0) for chip in chips]
        return np.stack(features), np.array([chip.codes[0, 0] for chip in chips])

    model = LogisticRegression(C=10.0, max_iter=300).fit(*gathered(training))
    return float(model.score(*gathered(test)))


def tabulate(figures: dict[str, Any]) -> str:
    """The figures as a markdown table: a line a class, a column a model or classifier."""
    columns = list(figures["measured"])
    rows = []
    for source, names in MEASURED.items():
        for name in names:
            values = [figures["measured"][c].get(source, {}).get(name) for c in columns]
            rows.append([source.replace("_", " "), name, *values])
        if len(names) > 1:
            means = [figures["measured"][c].get(source) for c in columns]
            rows.append(
                [source, "mean", *(float(np.mean([v or 0.0 for v in m.values()])) if m else None for m in means)]
            )
    chips = [figures["measured"][c].get("eurosat") for c in columns]
    rows.append(
        ["eurosat", "majority", *(float(np.mean([v or 0.0 for v in m.values()])) if m else None for m in chips)]
    )
    return markdown(["set", "class", *columns], rows)


SOURCES: dict[str, tuple[str, tuple[float, float]]] = {
    "road": ("aerial images of Japan", (0.2, 0.2)),
    "solar_panel": ("aerial images of Japan", (0.2, 0.2)),
    "forest": ("Sentinel-2 images of Brazil", (10, 10)),
    "naip": ("NAIP images of North Dakota", (5, 5)),
    "dubai": ("images of Dubai", (0.3, 1.0)),
    "korea": ("Sentinel-2 images of Korea", (10, 10)),
    "clouds": ("Landsat and Sentinel-2 scenes with clouds", (20, 30)),
    "ports": ("Sentinel-2 images of a harbour", (10, 10)),
}
"""Sets as the card names them, and their pixel sizes in metres."""


BRIGHTNESS = (20, 215)
"""Mean brightness of the darkest and the brightest picture of the training (23 and 210), somewhat widened."""


def write_card(path: Path, figures: dict[str, Any], title: str) -> None:
    """Write what is known of the bundled model as data, see `resegeo.checkpoints.model_card`."""
    kinds: dict[str, Any] = {
        name: {"words": list(words[1:]), "quality": [], "confused_with": []} for name, words in PHRASES.items()
    }
    measured, called = figures["measured"][title], figures["called"][title]
    mistaken: dict[str, dict[str, float]] = {}
    for source, names in MEASURED.items():
        for name in (n for n in names if n in kinds):
            described, sizes = SOURCES[source]
            entry = {"source": described, "gsd": list(sizes), "iou": round(measured[source][name], 2)}
            kinds[name]["quality"].append(entry)
            for other, share in called[source][name].items():
                if other in kinds and other != name and share >= 0.1:
                    shares = mistaken.setdefault(name, {})
                    shares[other] = max(share, shares.get(other, 0.0))
    for name, shares in mistaken.items():
        kinds[name]["confused_with"] = sorted(shares, key=lambda other: -shares[other])
    facts = {
        "format": 1,
        "name": "resegeo-small",
        "gsd": [0.1, 30],
        "brightness": BRIGHTNESS,
        "default_segments": "none",
        "kinds": kinds,
    }
    write_json(path, facts)


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder with `labelled` and `scenes`")
    parser.add_argument("--out", type=Path, required=True, help="JSON file for the figures; those in it are kept")
    parser.add_argument("--title", default="the model", help="what the figures are called in the file")
    parser.add_argument("--model", help="checkpoint file or open_clip tag; by default the bundled model")
    parser.add_argument("--arch", help="open_clip architecture of a checkpoint file")
    parser.add_argument(
        "--kinds", type=int, default=len(CLASSES), help="how many kinds compete; 12: the first edition's"
    )
    parser.add_argument("--segments", default="none")
    parser.add_argument("--sets", nargs="+", choices=[*MEASURED, "eurosat"], default=[*MEASURED, "eurosat"])
    parser.add_argument("--chips", type=int, default=4, help="one of so many held-out EuroSAT chips")
    parser.add_argument("--limit", type=int, help="at most so many pictures a set, for a quick look")
    parser.add_argument("--colours", action="store_true", help="measure the classifier of colours, and no model")
    parser.add_argument("--probe", action="store_true", help="measure linear probes, and not the words")
    parser.add_argument("--card", type=Path, help="write the card of the figures of --title there; measure nothing")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s")
    LOG.setLevel(logging.INFO)
    warnings.simplefilter("ignore", ResegeoWarning)
    set_threads(args.threads)
    figures: dict[str, Any] = json.loads(args.out.read_text("utf-8")) if args.out.exists() else {"measured": {}}
    if args.card:
        write_card(args.card, figures, args.title)
        return
    sets = [s for s in args.sets if s != "eurosat"]
    test = limited(measured_pictures(args.data, test=True), args.limit, sets)
    figures["pictures"] = {s: sum(p.source == s for p in test) for s in sets}
    chips = eurosat_chips(args.data, test=True)[:: args.chips] if "eurosat" in args.sets else []
    columns: dict[str, dict[str, Any]] = {}
    training: list[Picture] = []
    if args.colours or args.probe:
        training = [p for p in measured_pictures(args.data, test=False) if p.source in sets]
        learned = eurosat_chips(args.data, test=False)[::4]
    parted = {s: ([p for p in training if p.source == s], [p for p in test if p.source == s]) for s in sets}
    if args.colours:
        for title, balanced in COLOURS.items():
            columns[title] = {s: measure_colours(*pair, balanced=balanced) for s, pair in parted.items()}
        if chips:
            columns["colour"]["eurosat"] = {"all": measure_chip_colours(learned, chips)}
    elif args.probe:
        encoder = load_encoder(resolve_model(args.model, args.arch))
        columns[args.title] = {s: probe(encoder, *pair) for s, pair in parted.items() if s in PROBED}
        if chips:
            columns[args.title]["eurosat"] = {"all": probe_chips(encoder, learned, chips)}
    else:
        options = ["--segments", args.segments, "--threads", str(args.threads)]
        options += [*(["--model", args.model] if args.model else []), *(["--arch", args.arch] if args.arch else [])]
        with tempfile.TemporaryDirectory(prefix="resegeo-figures-") as name:
            columns[args.title], called = measure_model(test, CLASSES[: args.kinds], options, Path(name) / "sets")
            figures.setdefault("called", {}).setdefault(args.title, {}).update(called)
            if chips:
                columns[args.title]["eurosat"] = measure_chips(chips, options, Path(name) / "chips")
    for title, found in columns.items():
        figures["measured"].setdefault(title, {}).update(found)
    write_json(args.out, figures)
    print(tabulate(figures))


if __name__ == "__main__":
    main()
