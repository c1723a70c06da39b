"""Measure on Potsdam as ReSeg-CLIP does, or on Potsdam, OpenEarthMap and LoveDA as SegEarth-OV does, from public files.

Never run on the real data: neither they nor the weights could be fetched where this was written. Its parts are tested
on miniature stand-ins with the same folders (tests/test_reproduce_paper.py). What you need under --data:

    potsdam        2_Ortho_RGB.zip and 5_Labels_all_noBoundary.zip of the ISPRS, or the .tif files in any folders below
    openearthmap   OpenEarthMap_wo_xBD as unpacked: val.txt, and for each region images/*.tif and labels/*.tif
    loveda         Val.zip of the record 5706578 at Zenodo, or unpacked: Val/{Urban,Rural}/{images_png,masks_png}/*.png

One command prepares tiles, segments each, evaluates all and writes results.json and results.md under --out; the same
command again goes on where it was.

    python examples/reproduce_paper.py potsdam --data DIR --out DIR --method reseg --model compose:recipe.yml
    python examples/reproduce_paper.py openearthmap --data DIR --out DIR --method segearth --model openai:ViT-B-16

Method `reseg` is the preset `paper` (SAM's exact mode: --sam-checkpoint sam-vit-h). Method `segearth` is the preset
of that name: SegEarth-OV's inference without its learned upsampler SimFeatUp, which is part of its published figures.
Classes, their names, thresholds and sizes are those of SegEarth-OV's configuration files. RemoteCLIP was trained on
captions made of the labels of Potsdam and LoveDA: figures with it are not zero-shot, and the table says so.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.transform import from_origin
from rasterio.windows import Window

import resegeo
from resegeo.classes.class_file import class_list
from resegeo.classes.class_list import ClassList
from resegeo.errors import ResegeoWarning
from resegeo.evaluation.evaluate import evaluate

LOG = logging.getLogger("reproduce")
METHODS: Mapping[str, Mapping[str, Any]] = {
    "reseg": {"preset": "paper"},
    "segearth": {"preset": "segearth"},
}
CONTAMINATED = {"potsdam": "Potsdam", "loveda": "LoveDA"}
"""Data sets whose labels RemoteCLIP's captions were made of."""
PIXEL = 1.0
"""Size that prepared tiles claim, in metres of a made-up place."""


@dataclass(frozen=True)
class Tile:
    """One image and its labels."""

    name: str
    image: Path
    labels: Path
    window: Window | None = None
    """Part of both files; None: all."""


@dataclass(frozen=True)
class Dataset:
    """What SegEarth-OV's configuration says of a data set."""

    classes: Mapping[str, tuple[str, ...]]
    """Class -> prompts; the background's are under ``background``."""
    values: Mapping[str, str]
    """Label value or colour -> class; others are not counted."""
    threshold: float
    side: int | None
    """Pixels along the longer side that the model sees a tile at; None: its own."""
    published: Mapping[str, float] = field(default_factory=dict)
    """Mean IoU in percent, background included, by method."""

    def class_list(self, method: str) -> ClassList:
        """The classes as resegeo takes them."""
        entries = [
            {"name": name, "prompts": list(prompts), "background": name == "background"}
            for name, prompts in self.classes.items()
        ]
        top = {} if method == "reseg" else {"threshold": self.threshold}
        return class_list(entries, **top)


DATASETS: Mapping[str, Dataset] = {
    "potsdam": Dataset(
        {
            "road": ("road", "parking lot"),
            "building": ("building",),
            "low vegetation": ("low vegetation",),
            "tree": ("tree",),
            "car": ("car",),
            "background": ("clutter", "background"),
        },
        {
            "#FFFFFF": "road",
            "#0000FF": "building",
            "#00FFFF": "low vegetation",
            "#00FF00": "tree",
            "#FFFF00": "car",
            "#FF0000": "background",
        },
        0.1,
        448,
        {"segearth": 47.1},
    ),
    "openearthmap": Dataset(
        {
            "background": ("background",),
            "bareland": ("bareland", "barren"),
            "grass": ("grass",),
            "pavement": ("pavement",),
            "road": ("road",),
            "tree": ("tree", "forest"),
            "water": ("water", "river"),
            "cropland": ("cropland",),
            "building": ("building", "roof", "house"),
        },
        {
            "0": "background",
            "1": "bareland",
            "2": "grass",
            "3": "pavement",
            "4": "road",
            "5": "tree",
            "6": "water",
            "7": "cropland",
            "8": "building",
        },
        0.1,
        448,
        {"segearth": 40.3},
    ),
    "loveda": Dataset(
        {
            "background": ("background",),
            "building": ("building", "roof", "house"),
            "road": ("road",),
            "water": ("water",),
            "barren": ("barren",),
            "forest": ("forest",),
            "agricultural": ("agricultural",),
        },
        {
            "1": "background",
            "2": "building",
            "3": "road",
            "4": "water",
            "5": "barren",
            "6": "forest",
            "7": "agricultural",
        },
        0.3,
        448,
        {"segearth": 36.9},
    ),
}

POTSDAM_SIDE = 512
POTSDAM_VALIDATION = frozenset(
    ("2_13", "2_14", "3_13", "3_14", "4_13", "4_14", "4_15", "5_13", "5_14", "5_15", "6_13", "6_14", "6_15", "7_13")
)


def unpacked(data: Path, work: Path) -> list[Path]:
    """Folders to look in: the data themselves, and what their ZIP archives hold."""
    folders = [data]
    for archive in sorted(data.glob("*.zip")):
        target = work / "unpacked" / archive.stem
        if not target.is_dir():
            LOG.info("unpacking %s", archive.name)
            beside = target.with_name(f".tmp-{target.name}")
            shutil.rmtree(beside, ignore_errors=True)
            with zipfile.ZipFile(archive) as files:
                files.extractall(beside)
            beside.replace(target)
        folders.append(target)
    return folders


def tiles_of(dataset: str, folders: list[Path]) -> Iterator[Tile]:
    """The tiles that SegEarth-OV validates on."""
    found = {"potsdam": _potsdam, "openearthmap": _openearthmap, "loveda": _loveda}[dataset](folders)
    if not found:
        raise SystemExit(f"No tiles of {dataset} below {folders[0]}; see --help for what must be there.")
    yield from found


def _files(folders: list[Path], pattern: str) -> list[Path]:
    return sorted(path for folder in folders for path in folder.rglob(pattern) if "__MACOSX" not in path.parts)


def _potsdam(folders: list[Path]) -> list[Tile]:
    """Squares of 512 pixels side by side; the last of a row is moved back inside."""
    labels = {_place(p): p for p in _files(folders, "top_potsdam_*_label*.tif")}
    found = []
    for image in _files(folders, "top_potsdam_*_RGB.tif"):
        place = _place(image)
        if place not in POTSDAM_VALIDATION or place not in labels:
            continue
        with _opened(image) as raster:
            height, width = raster.height, raster.width
        for row in _starts(height):
            for col in _starts(width):
                window = Window(col, row, min(POTSDAM_SIDE, width), min(POTSDAM_SIDE, height))
                found.append(Tile(f"{place}_{row}_{col}", image, labels[place], window))
    return found


def _place(path: Path) -> str:
    return "_".join(path.stem.split("_")[2:4])


def _starts(length: int) -> list[int]:
    return [min(start, max(0, length - POTSDAM_SIDE)) for start in range(0, length, POTSDAM_SIDE)]


def _openearthmap(folders: list[Path]) -> list[Tile]:
    found = []
    for listing in _files(folders, "val.txt"):
        wanted = set(listing.read_text("utf-8").split())
        for image in sorted(listing.parent.rglob("images/*.tif")):
            labels = image.parent.parent / "labels" / image.name
            if image.name in wanted and labels.is_file():
                found.append(Tile(image.stem, image, labels))
    return found


def _loveda(folders: list[Path]) -> list[Tile]:
    found = []
    for image in _files(folders, "images_png/*.png"):
        labels = image.parent.parent / "masks_png" / image.name
        if "Val" in image.parts and labels.is_file():
            found.append(Tile(f"{image.parent.parent.name}_{image.stem}", image, labels))
    return found


def _opened(path: Path) -> Any:
    return rasterio.open(path)


def prepare(tile: Tile, folder: Path) -> tuple[Path, Path]:
    """Write image and labels of a tile as GeoTIFF; what is there already stays."""
    paths = folder / f"{tile.name}.tif", folder / f"{tile.name}.labels.tif"
    for source, path in zip((tile.image, tile.labels), paths, strict=True):
        if path.exists():
            continue
        with _opened(source) as raster:
            pixels: NDArray[Any] = raster.read(window=tile.window)[:3]
        beside = path.with_name(f".tmp-{path.name}")
        count, height, width = pixels.shape
        with rasterio.open(
            beside,
            "w",
            driver="GTiff",
            count=count,
            height=height,
            width=width,
            dtype=pixels.dtype,
            crs="EPSG:32633",
            transform=from_origin(500_000, 5_800_000, PIXEL, PIXEL),
            compress="deflate",
            photometric="rgb" if count == 3 else "minisblack",
        ) as out:
            out.write(pixels)
        beside.replace(path)
    return paths


def segment(tile: tuple[Path, Path], dataset: Dataset, method: str, out: Path, **options: Any) -> Path:
    """Segment a prepared tile; a finished one is found again."""
    chosen = {name: value for name, value in options.items() if value is not None}
    done = resegeo.segment(
        tile[0],
        dataset.class_list(method),
        out,
        resize=dataset.side if method == "segearth" else None,
        vector=(),
        discard_store=True,
        **METHODS[method],
        **chosen,
    )
    return done.raster


def measure(pairs: list[tuple[Path, Path]], dataset: Dataset, legend: Path) -> dict[str, Any]:
    """All tiles in one confusion matrix; the mean of mmsegmentation counts the background as a class."""
    lines = [f'"{value}": {name}' for value, name in dataset.values.items()]
    legend.write_text("\n".join(lines) + "\n", "utf-8")
    accuracy = evaluate(pairs, legend=str(legend)).accuracy
    values = [None if np.isnan(value) else float(value) for value in accuracy.iou]  # None: neither there nor predicted
    return {
        "iou": dict(zip(accuracy.names, values, strict=True)),
        "mean_iou": float(np.nanmean(accuracy.iou)),
        "mean_iou_foreground": accuracy.mean_iou,
    }


def results(figures: Mapping[str, Any]) -> str:
    """The results as markdown."""
    rows = [[name, None if value is None else 100 * value] for name, value in figures["iou"].items()]
    rows += [["mean, background included", 100 * figures["mean_iou"]]]
    rows += [["mean without background", 100 * figures["mean_iou_foreground"]]]
    published = figures["published"]
    if published is not None:
        rows.append(["published by the method's authors (mean, background included)", published])
    head = f"{figures['dataset']}, {figures['method']}, {figures['model']}, {figures['tiles']} tiles"
    lines = [
        "| class | IoU (%) |",
        "|---|---|",
        *(f"| {name} | {'–' if value is None else f'{value:.3f}'} |" for name, value in rows),
    ]
    text = f"# {head}\n\n" + "\n".join(lines)
    return text + "".join(f"\n\n{note}" for note in figures["notes"]) + "\n"


def notes_of(dataset: str, model: str, method: str, limit: int | None) -> list[str]:
    """What a reader of the figures must know."""
    notes = []
    if dataset in CONTAMINATED and ("remoteclip" in model.lower() or model.startswith("compose:")):
        notes.append(
            f"RemoteCLIP was trained on captions made of the labels of {CONTAMINATED[dataset]}; with it among the "
            "weights this is no zero-shot figure."
        )
    if method == "segearth":
        notes.append("Without SimFeatUp, the learned upsampler that SegEarth-OV's published figures include.")
    if limit is not None:
        notes.append(f"Only the first {limit} tiles: not comparable with published figures.")
    return notes


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Prepare, segment, evaluate."""
    dataset = DATASETS[args.dataset]
    prepared, out = args.out / "tiles", args.out / args.method
    for folder in (prepared, out):
        folder.mkdir(parents=True, exist_ok=True)
    tiles = list(tiles_of(args.dataset, unpacked(args.data, args.out)))[: args.limit]
    options = {
        "model": args.model,
        "arch": args.arch,
        "activation": args.activation,
        "sam_checkpoint": args.sam_checkpoint if args.method == "reseg" else None,
        "segments": args.segments,
        "device": args.device,
    }
    if args.method == "segearth":
        options.pop("segments")
    pairs = []
    for number, tile in enumerate(tiles, 1):
        scene, labels = prepare(tile, prepared)
        pairs.append((segment((scene, labels), dataset, args.method, out, **options), labels))
        LOG.info("%d of %d tiles", number, len(tiles))
    model = args.model or "resegeo-small"
    figures = {
        "dataset": args.dataset,
        "method": args.method,
        "model": model,
        "tiles": len(tiles),
        "published": dataset.published.get(args.method),
        "notes": notes_of(args.dataset, model, args.method, args.limit),
        **measure(pairs, dataset, args.out / "legend.yml"),
    }
    (args.out / f"results-{args.method}.json").write_text(json.dumps(figures, indent=2) + "\n", "utf-8")
    (args.out / f"results-{args.method}.md").write_text(results(figures), "utf-8")
    return figures


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("dataset", choices=list(DATASETS))
    made.add_argument("--data", type=Path, required=True, help="folder of the downloaded files")
    made.add_argument("--out", type=Path, required=True, help="folder for tiles and results")
    made.add_argument("--method", choices=list(METHODS), default="reseg")
    made.add_argument("--model", help="as `resegeo segment --model`; by default the bundled model")
    made.add_argument("--arch")
    made.add_argument("--activation", choices=["quickgelu", "gelu"])
    made.add_argument("--sam-checkpoint", default="sam-vit-h", help="a name or a file")
    made.add_argument("--segments", help="instead of SAM, such as superpixels")
    made.add_argument("--device")
    made.add_argument("--limit", type=int, help="the first so many tiles, for a quick look")
    return made


def main() -> None:
    """Parse the command line and print the table."""
    args = parser().parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s")
    LOG.setLevel(logging.INFO)
    warnings.simplefilter("ignore", ResegeoWarning)
    print(results(json.loads(json.dumps(run(args)))), end="")


if __name__ == "__main__":
    main()
