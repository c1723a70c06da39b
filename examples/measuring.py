"""What the measuring scripts share: classes, scenes and truths as files, tables."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from bundled_model_data import CLASSES, EUROSAT, FAMILIES, MEASURED, SINGLES, Picture, answer_key
from numpy.typing import NDArray
from PIL import Image

TEMPLATES = ("an aerial photo of {}", "a satellite image of {}", "a photo of {} from above", "a {}")
EUROSAT_WORDS = dict(
    zip(
        EUROSAT,
        ("annual crop", "forest", "herbaceous vegetation", "highway", "industrial area", "pasture", "permanent crop")
        + ("residential area", "river", "sea or lake"),
        strict=True,
    )
)
TRUE, FALSE, UNKNOWN = 255, 0, 128
"""Values of the truth masks."""


def groups(kinds: Sequence[str] = CLASSES, *, vegetation: bool = False) -> dict[str, list[str]]:
    """Every kind, as classes and their prompts; nothing is left out to make it easier.

    A kind that is part of another stands with it ("river" with "water"); with ``vegetation`` all that is green is one
    class.
    """
    families = {name: FAMILIES[name] for name in CLASSES if len(FAMILIES[name]) > 1}
    if vegetation:
        families = {"vegetation": FAMILIES["vegetation"]} | families
    made: dict[str, list[str]] = {}
    for kind in kinds:
        home = next((name for name, family in families.items() if kind in family), kind)
        made.setdefault(home, []).append(kind)
    return made


def write_classes(path: Path, chosen: dict[str, list[str]] | None = None) -> None:
    """Write :func:`groups`, or others, as a class file."""
    entries = [{"name": name, "prompts": prompts} for name, prompts in (chosen or groups()).items()]
    path.write_text(json.dumps({"classes": entries, "templates": list(TEMPLATES)}), "utf-8")


def write_truth(picture: Picture, name: str, path: Path) -> None:
    """Write where a picture shows a class, where not, and where nobody knows."""
    true, known = answer_key(picture, name)
    Image.fromarray(np.where(true, TRUE, np.where(known, FALSE, UNKNOWN)).astype(np.uint8)).save(path)


def write_scene(picture: Picture, folder: Path) -> tuple[Path, Path]:
    """Write a picture and the truth mask of its set's one class as PNG; return both paths."""
    name = picture.name.replace("/", "_")
    scene, truth = folder / f"{name}.png", folder / f"{name}.truth.png"
    Image.fromarray(picture.rgb).save(scene, compress_level=1)
    if picture.source in SINGLES:
        write_truth(picture, SINGLES[picture.source], truth)
    return scene, truth


def quick_figures(
    pictures: Iterable[Picture],
    chips: Iterable[Picture],
    label: Callable[[NDArray[np.uint8], Sequence[str]], NDArray[np.intp]],
) -> dict[str, float]:
    """IoU of each class a set asks for, all kinds competing, and the share of EuroSAT's chips right by majority.

    ``label`` answers which of some words each pixel of an image (H, W, 3) fits best. No command line, no blending as
    `resegeo` does it: for a look in between.
    """
    counts: dict[str, NDArray[np.int64]] = {}
    for picture in pictures:
        said = label(picture.rgb, CLASSES)
        for name in MEASURED[picture.source]:
            true, known = answer_key(picture, name)
            found = np.isin(said, [CLASSES.index(c) for c in FAMILIES[name]])
            row = np.array([(found & true & known).sum(), ((found | true) & known).sum()])
            key = f"{picture.source}, {name}"
            counts[key] = counts.get(key, 0) + row
    figures = {key: float(both / max(1, either)) for key, (both, either) in counts.items()}
    words, right = list(EUROSAT_WORDS.values()), dict[str, list[bool]]()
    for chip in chips:
        folder = chip.name.split("/")[1].split("_")[0]
        vote = int(np.bincount(label(chip.rgb, words).ravel(), minlength=len(words)).argmax())
        right.setdefault(folder, []).append(words[vote] == EUROSAT_WORDS[folder])
    figures |= {f"eurosat, {folder}": float(np.mean(hits)) for folder, hits in right.items()}
    if right:
        figures["eurosat, all"] = float(np.mean([hit for hits in right.values() for hit in hits]))
    return figures


def limited(pictures: Sequence[Picture], limit: int | None, sets: Sequence[str]) -> list[Picture]:
    """Keep the pictures of ``sets`` that have known pixels, at most ``limit`` a set."""
    kept = []
    for source in sets:
        own = [p for p in pictures if p.source == source and p.codes.any()]
        kept += own[:limit]
    return kept


def markdown(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table; numbers with three digits, None as a dash."""

    def shown(cell: Any) -> str:
        return "–" if cell is None else f"{cell:.3f}" if isinstance(cell, float) else str(cell)

    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(map(shown, row)) + " |" for row in rows])


def write_json(path: Path, document: dict[str, Any]) -> None:
    """Write a result, whole or not at all."""
    part = path.with_name(f".tmp-{path.name}")
    part.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", "utf-8")
    part.replace(path)
