"""What the two measuring scripts share: scenes and truths as files, class probabilities, thresholds, tables."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from bundled_model_data import CLASSES, FAMILIES, SINGLES, Picture, answer_key
from numpy.typing import NDArray
from PIL import Image

from resegeo.class_file import class_list
from resegeo.classes import ClassList
from resegeo.encoder import Encoder
from resegeo.labels import Blender, WindowScores, class_probabilities
from resegeo.machine import Kept, Machine, Models, open_segments
from resegeo.plan import make_plan
from resegeo.scene import open_scene
from resegeo.settings import Settings
from resegeo.weights import ModelSource
from resegeo.windows import Rect

TEMPLATES = ("an aerial photo of {}", "a satellite image of {}", "a photo of {} from above", "a {}")
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


def classes() -> ClassList:
    """:func:`groups` as a class list."""
    entries = [{"name": name, "prompts": prompts} for name, prompts in groups().items()]
    return class_list(entries, templates=list(TEMPLATES))


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


def limited(pictures: Sequence[Picture], limit: int | None, sets: Sequence[str]) -> list[Picture]:
    """Keep the pictures of ``sets`` that have known pixels, at most ``limit`` a set."""
    kept = []
    for source in sets:
        own = [p for p in pictures if p.source == source and p.codes.any()]
        kept += own[:limit]
    return kept


def probabilities(scene: Path, source: ModelSource, encoder: Encoder, settings: Settings) -> NDArray[np.float32]:
    """Class probabilities (C, H, W) of a small scene, which the command line does not write."""
    plan = make_plan(open_scene(scene), classes(), settings, source)
    prompts = plan.classes.prompt_texts
    segments = open_segments(plan, encoder.device, None, Models())
    machine = Machine(plan, encoder, segments, Kept.asked_by(plan, features=False), encoder.encode_texts(prompts))
    windows = []
    for item in plan.grid.items():
        result = machine.encode(machine.read(item))
        used = [window for window, flag in zip(item.windows, result.windows, strict=True) if flag]
        windows += [
            WindowScores(window, result.values["reduced"][number], result.values["cls"][number])
            for number, window in enumerate(used)
        ]
    blender = Blender(plan.canvas, logit_scale=encoder.logit_scale, taper=settings.taper)
    by_prompt = blender.blend(Rect(0, 0, plan.scene.height, plan.scene.width), windows, len(prompts))
    owners = plan.classes.prompt_class
    return class_probabilities(by_prompt, owners, len(plan.classes.classes), reduction=settings.reduction)


class Thresholds:
    """IoU of one class at every threshold, from two histograms that grow picture by picture."""

    def __init__(self, steps: int = 1000) -> None:
        self._counts = np.zeros((2, steps), dtype=np.int64)

    def add(self, chance: NDArray[np.floating], true: NDArray[np.bool_], known: NDArray[np.bool_]) -> None:
        """Take the probabilities of known pixels."""
        steps = self._counts.shape[1]
        spot = np.clip((chance * steps).astype(int), 0, steps - 1)
        for row, chosen in enumerate((known & ~true, known & true)):
            self._counts[row] += np.bincount(spot[chosen], minlength=steps)

    def iou(self) -> NDArray[np.float64]:
        """IoU (steps,) where pixels of probability ``i / steps`` or more are taken."""
        said_wrongly, hits = (row[::-1].cumsum()[::-1] for row in self._counts)
        return np.asarray(hits / np.maximum(1, self._counts[1].sum() + said_wrongly))

    def best(self) -> tuple[float, float]:
        """Return the best IoU and its threshold: fitted on the pixels that it is measured on, so optimistic."""
        found = self.iou()
        return float(found.max()), float(found.argmax() / len(found))

    def at(self, threshold: float) -> float:
        """Return the IoU at one threshold."""
        return float(self.iou()[round(threshold * self._counts.shape[1])])


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
