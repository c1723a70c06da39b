"""What the parts of the method do: segments, levels, schedules, overlap, label voting; IoU and seconds of each setting.

Every setting is a settings file, as a user would write it, run in this process by `resegeo.segment` on the places that
SPLIT.md holds out and measured by `resegeo.evaluation.evaluate`. All kinds compete. Seconds are those of windows
(reading, segments, model) and labels for one picture, without loading the model; they depend on the machine and on what
else it does. The bundled model was trained with one schedule (six free layers, one of segments, one local): other
schedules show what it bears, not what a model trained with them would give.

    python examples/ablation.py --data DIR --out ablation.json
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import tempfile
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from bundled_model_data import SINGLES, Picture, measured_pictures
from measuring import FALSE, TRUE, limited, markdown, write_classes, write_json, write_scene

import resegeo
from resegeo.errors import ResegeoWarning
from resegeo.evaluation.evaluate import evaluate
from resegeo.settings import Settings

LOG = logging.getLogger("ablation")
FIRST = "superpixels, 1 level"
AREAS = (256, 1024, 4096, 16384)
"""Mean areas of superpixels, finest level first, as the paper's levels go; 1,024 pixels are 16 patches of 8."""


def layers(segment: int, local: int) -> dict[str, int]:
    """Layer counts; the rest is free."""
    return {"segment_layers": segment, "local_layers": local}


SETTINGS: dict[str, Mapping[str, Any]] = {
    "no segments": {"segments": "none"},
    FIRST: {"superpixel_area": [AREAS[1]]},
    "superpixels, finer": {"superpixel_area": [AREAS[0]]},
    "superpixels, coarser": {"superpixel_area": [AREAS[2]]},
    # One segment layer sees one level alone, so K levels come with K segment layers; beside them one level in as many.
    "2 levels in 2 layers": {"superpixel_area": list(AREAS[:2]), **layers(2, 1)},
    "1 level in 2 layers": {"superpixel_area": [AREAS[1]], **layers(2, 1)},
    "3 levels in 3 layers": {"superpixel_area": list(AREAS[:3]), **layers(3, 1)},
    "1 level in 3 layers": {"superpixel_area": [AREAS[1]], **layers(3, 1)},
    "4 levels in 4 layers": {"superpixel_area": list(AREAS), **layers(4, 1)},
    "1 level in 4 layers": {"superpixel_area": [AREAS[1]], **layers(4, 1)},
    "4 levels in 4 layers, coarse first": {"superpixel_area": list(AREAS[::-1]), **layers(4, 1)},
    "plain CLIP: all layers free": {"segments": "none", **layers(0, 0)},
    "segment layer alone": layers(1, 0),
    "local layer alone": layers(0, 1),
    "2 local layers": layers(1, 2),
    "local layer of radius 1": {"local_radius": 1},
    "no segments, overlap 0": {"segments": "none", "overlap": 0.0},
    "no segments, overlap 0, uniform weights": {"segments": "none", "overlap": 0.0, "taper": False},
    "no segments, overlap 0.75": {"segments": "none", "overlap": 0.75},
    "labels voted in superpixels": {"superpixel_area": [AREAS[1]], "vote_segments": True},
    "labels voted in finer superpixels": {"superpixel_area": [AREAS[0]], "vote_segments": True},
}


def missing(knobs: Mapping[str, Any]) -> list[str]:
    """Knobs that this version does not have."""
    there = {field.name for field in dataclasses.fields(Settings)}
    return sorted(set(knobs) - there)


def run(
    pictures: Sequence[tuple[Picture, Path, Path]], knobs: Mapping[str, Any], options: dict[str, Any], folder: Path
) -> dict[str, Any]:
    """Segment and measure all pictures with one setting."""
    folder.mkdir()
    settings = folder / "settings.yml"
    settings.write_text(yaml.safe_dump({"segments": "superpixels", **knobs, "vector": []}), "utf-8")
    pairs: dict[str, list[tuple[Path, Path]]] = {}
    seconds = []
    for picture, scene, truth in pictures:
        done = resegeo.segment(scene, folder.parent / "classes.yml", folder, settings=settings, **options)
        spent = json.loads(done.report.read_text("utf-8"))["seconds"]
        seconds.append(spent["windows"] + spent["labels"])
        pairs.setdefault(picture.source, []).append((done.raster, truth))
    iou = {}
    for source, files in pairs.items():
        name = SINGLES[source]
        accuracy = evaluate(files, legend=f"{TRUE}={name},{FALSE}=background").accuracy
        iou[source] = float(accuracy.iou[accuracy.names.index(name)])
    return {
        "knobs": dict(knobs),
        "iou": iou,
        "mean": float(np.mean(list(iou.values()))),
        "seconds": float(np.mean(seconds)),
    }


def main() -> None:
    """Parse the command line, run every setting, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder with `labelled` and `scenes`")
    parser.add_argument(
        "--out", type=Path, required=True, help="JSON file for the figures, rewritten after each setting"
    )
    parser.add_argument("--model", help="checkpoint file or open_clip tag; by default the bundled model")
    parser.add_argument("--arch", help="open_clip architecture of a checkpoint file")
    parser.add_argument("--only", nargs="+", metavar="SETTING", choices=list(SETTINGS), default=list(SETTINGS))
    parser.add_argument("--limit", type=int, help="at most so many pictures a set, for a quick look")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s")
    LOG.setLevel(logging.INFO)
    warnings.simplefilter("ignore", ResegeoWarning)
    test = limited(measured_pictures(args.data, test=True), args.limit, list(SINGLES))
    figures: dict[str, Any] = {
        "model": args.model or "bundled",
        "limit": args.limit,
        "pictures": {source: sum(p.source == source for p in test) for source in SINGLES},
        "settings": {},
        "skipped": {},
    }
    options = {"model": args.model, "arch": args.arch, "threads": args.threads}
    with tempfile.TemporaryDirectory(prefix="resegeo-ablation-") as name:
        folder = Path(name)
        write_classes(folder / "classes.yml")
        scenes = [(picture, *write_scene(picture, folder)) for picture in test]
        for number, title in enumerate(args.only):
            knobs = SETTINGS[title]
            if unknown := missing(knobs):
                figures["skipped"][title] = f"this version has no setting {', '.join(unknown)}"
                LOG.info("%s: skipped, %s", title, figures["skipped"][title])
                continue
            started = time.monotonic()
            figures["settings"][title] = run(scenes, knobs, options, folder / str(number))
            LOG.info("%s: mean IoU %.3f, %.0f s", title, figures["settings"][title]["mean"], time.monotonic() - started)
            write_json(args.out, figures)
    head = ["setting", *(f"{SINGLES[s]} ({figures['pictures'][s]})" for s in SINGLES), "mean IoU", "seconds"]
    rows = [
        [title, *(found["iou"].get(s) for s in SINGLES), found["mean"], f"{found['seconds']:.1f}"]
        for title, found in figures["settings"].items()
    ]
    write_json(args.out, figures)
    print(markdown(head, rows))
    for title, why in figures["skipped"].items():
        print(f"\nSkipped: {title}; {why}.")


if __name__ == "__main__":
    main()
