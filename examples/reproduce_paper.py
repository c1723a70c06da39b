"""Measure on a public data set as a publication does: ReSeg-CLIP, SegEarth-OV and others, from the public files.

Never run on the real data: neither they nor the weights could be fetched where this was written. It is tested on
miniature stand-ins with the same folders (tests/test_reproduce_paper.py). A data set is a file in examples/datasets,
which says what must be there, or one of your own; archives (*.zip) in --data are unpacked first:

    potsdam        2_Ortho_RGB.zip and 5_Labels_all_noBoundary.zip of the ISPRS, or the .tif files in any folders below
    vaihingen      top_mosaic_09cm_area*.tif and their *_noBoundary.tif, in any folders below
    openearthmap   OpenEarthMap_wo_xBD as unpacked: val.txt, and for each region images/*.tif and labels/*.tif
    loveda         Val.zip of the record 5706578 at Zenodo, or unpacked: Val/{Urban,Rural}/{images_png,masks_png}/*.png
    reseg_potsdam  ReSeg-CLIP's own layout: tile/R_G_B_IR.png and tile/L.png

One command segments and measures all, and writes results-METHOD.json and .md under --out; the same command again goes
on where it was.

    python examples/reproduce_paper.py reseg_potsdam --data DIR --out DIR --method paper --model compose:recipe.yml
    python examples/reproduce_paper.py openearthmap --data DIR --out DIR --method segearth --model openai:ViT-B-16

A method is a preset; its own page in the guide says what of each publication is not reproduced. Words, thresholds and
sizes are those of SegEarth-OV's configuration files; a size belongs to the preset that the data set's file names, so
that `paper` sees images at their own. RemoteCLIP was trained on captions made of the labels of Potsdam, Vaihingen and
LoveDA: figures with it are not zero-shot, and the table says so.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import resegeo
from resegeo.datasets.config import Dataset, read_dataset
from resegeo.errors import ResegeoWarning
from resegeo.settings import PRESETS

LOG = logging.getLogger("reproduce")
DATASETS = Path(__file__).parent / "datasets"
CONTAMINATED = ("potsdam", "vaihingen", "loveda")
"""Data sets whose labels RemoteCLIP's captions were made of."""

DIFFERENT: Mapping[str, str] = {
    "segearth": "Without SimFeatUp, the learned upsampler that SegEarth-OV's published figures include.",
    "paper": "ReSeg-CLIP's averaged weights are not public; neither is what its modified CLIP blocks and projects.",
}
"""What of a method is not reproduced."""


def file_of(dataset: str) -> Path:
    """The file of a data set by its name, or as it is given."""
    named = DATASETS / f"{dataset}.yml"
    return named if named.is_file() else Path(dataset)


def unpacked(data: Path, work: Path) -> Path:
    """The folder to look in: the data, or where the ZIP archives in it were unpacked."""
    archives = sorted(data.glob("*.zip"))
    for archive in archives:
        target = work / "unpacked" / archive.stem
        if not target.is_dir():
            LOG.info("unpacking %s", archive.name)
            beside = target.with_name(f".tmp-{target.name}")
            shutil.rmtree(beside, ignore_errors=True)
            with zipfile.ZipFile(archive) as files:
                files.extractall(beside)
            beside.replace(target)
    return work / "unpacked" if archives else data


def notes_of(name: str, model: str, method: str, limit: int | None, dataset: Dataset) -> list[str]:
    """What a reader of the figures must know."""
    notes = [DIFFERENT[method]] if method in DIFFERENT else []
    of_remoteclip = "remoteclip" in model.lower() or model.startswith("compose:")
    if of_remoteclip and any(each in name for each in CONTAMINATED):
        notes.append(
            f"RemoteCLIP was trained on captions made of the labels of {dataset.about}; with it among the weights this "
            "is no zero-shot figure."
        )
    if method != dataset.options["preset"] and dataset.knobs:
        notes.append(f"Without {', '.join(sorted(dataset.knobs))}, which the data set's file says of another method.")
    if limit is not None:
        notes.append(f"Only the first {limit} images: not comparable with published figures.")
    return notes


def results(figures: Mapping[str, Any]) -> str:
    """The results as markdown."""
    rows = [[name, None if value is None else 100 * value] for name, value in figures["iou"].items()]
    rows += [["mean of all classes", 100 * figures["mean_iou"]]]
    if figures["mean_iou_foreground"] is not None:
        rows += [["mean without background", 100 * figures["mean_iou_foreground"]]]
    published = figures["published"]
    rows.append(["published by the method's authors (mean of all classes)", published])
    if published is not None:
        rows.append(["difference", 100 * figures["mean_iou"] - published])
    head = f"{figures['dataset']}, {figures['method']}, {figures['model']}, {figures['tiles']} images"
    lines = [
        "| class | IoU (%) |",
        "|---|---|",
        *(f"| {name} | {'–' if value is None else f'{value:.3f}'} |" for name, value in rows),
    ]
    text = f"# {head}\n\n" + "\n".join(lines)
    return text + "".join(f"\n\n{note}" for note in figures["notes"]) + "\n"


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Segment, measure, write."""
    file = file_of(args.dataset)
    dataset = read_dataset(file)
    sam = args.method == "paper" and args.segments is None
    made = resegeo.segment_dataset(
        file,
        args.out / args.method,
        data=unpacked(args.data, args.out),
        limit=args.limit,
        told=LOG.info,
        preset=args.method,
        model=args.model,
        arch=args.arch,
        activation=args.activation,
        sam_checkpoint=args.sam_checkpoint if sam else None,
        segments=args.segments if args.method == "paper" else None,
        device=args.device,
        vector=(),
        discard_store=True,
    )
    if made.accuracy is None:
        raise SystemExit(f"No image below {args.data} has labels; {file} says what is expected.")
    background = [name for name, code in dataset.categories.items() if code == 0]
    values = dict(zip(made.accuracy.names, made.accuracy.iou, strict=True))
    foreground = [value for name, value in values.items() if name not in background]
    model = args.model or "resegeo-small"
    figures = {
        "dataset": dataset.about or file.stem,
        "method": args.method,
        "model": model,
        "tiles": sum(tile.accuracy is not None for tile in made.tiles),
        "failed": made.failed,
        "published": dataset.published.get(args.method),
        "notes": notes_of(file.stem, model, args.method, args.limit, dataset),
        "iou": {name: None if np.isnan(value) else float(value) for name, value in values.items()},
        "mean_iou": made.accuracy.mean_iou,
        "mean_iou_foreground": float(np.nanmean(foreground)) if background else None,
    }
    (args.out / f"results-{args.method}.json").write_text(json.dumps(figures, indent=2) + "\n", "utf-8")
    (args.out / f"results-{args.method}.md").write_text(results(figures), "utf-8")
    return figures


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = ", ".join(sorted(path.stem for path in DATASETS.glob("*.yml")))
    made.add_argument("dataset", help=f"one of {known}, or a file of your own")
    made.add_argument("--data", type=Path, required=True, help="folder of the downloaded files")
    made.add_argument("--out", type=Path, required=True, help="folder for the results")
    made.add_argument("--method", choices=[name for name in PRESETS if name != "default"], default="paper")
    made.add_argument("--model", help="as `resegeo segment --model`; by default the bundled model")
    made.add_argument("--arch")
    made.add_argument("--activation", choices=["quickgelu", "gelu"])
    made.add_argument("--sam-checkpoint", default="sam-vit-h", help="a name or a file")
    made.add_argument("--segments", help="instead of SAM, such as superpixels")
    made.add_argument("--device")
    made.add_argument("--limit", type=int, help="the first so many images, for a quick look")
    return made


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and print the table."""
    args = parser().parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s")
    LOG.setLevel(logging.INFO)
    warnings.simplefilter("ignore", ResegeoWarning)
    print(results(run(args)), end="")


if __name__ == "__main__":
    main()
