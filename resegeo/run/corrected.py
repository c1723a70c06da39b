"""A correction fitted: the examples of a plan on the features of its store, and the file that keeps the result."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resegeo.clip.blending import Grouping
from resegeo.clip.fitting import USUAL_PENALTY, Fitted, Judged, choose, fit, with_prevalence
from resegeo.errors import InputNotice, ResegeoError, escaped, notice, shown
from resegeo.files import Note, saving, whole
from resegeo.run.clicks import refuse_one_class
from resegeo.run.correction import FORMAT, KEY, identity_of, split, stretch_of, words_of
from resegeo.run.example_features import Words, counts, gather_with_scene
from resegeo.run.plan import Plan
from resegeo.run.store import Store
from resegeo.run.threads import one_thread_each


@dataclass(frozen=True)
class Found:
    """A correction that was fitted, or read."""

    fitted: Fitted | None = field(repr=False)
    """None where labels that lie there already are shown, and only the facts are known."""
    facts: Mapping[str, Any]
    """What the report says of it."""
    elsewhere: Fitted | None = field(default=None, repr=False)
    """What serves other scenes: fitted without colours, which follow the light. None where a file was read."""
    vectors: NDArray[np.float32] | None = field(default=None, repr=False)
    """What the prompts have become, see :meth:`resegeo.clip.blending.Grouping.corrected_by`; None as ``fitted``."""


def fitted_on(plan: Plan, store: Store, texts: NDArray[np.float32], logit_scale: float) -> Found | None:
    """Fit the examples of a plan on the features of its store; None where the plan has none.

    Raises
    ------
    ResegeoError:
        When windows were computed over fewer than two classes.

    """
    correction, settings, classes = plan.correction, plan.settings, plan.classes
    if correction is None:
        return None
    words = Words(
        texts,
        Grouping.of(classes, settings.reduction, settings.softmax_over),
        logit_scale if settings.logit_scale is None else settings.logit_scale,
        settings.subtract_cls,
    )
    if correction.fitted is not None:
        return Found(correction.fitted, correction.facts(), vectors=words.corrected(correction.fitted))
    if correction.places is None or correction.sample is None:
        raise ResegeoError(
            "The labels of this store's run were corrected by examples, and they have to be fitted again for this; "
            "give them by [[examples]], with the class file by [[classes]]."
        )
    with one_thread_each():
        examples, sample, kept = gather_with_scene(
            store,
            plan.canvas,
            plan.grid,
            correction.places,
            correction.sample,
            words,
            taper=settings.taper,
        )
        what = f"[[examples={escaped(correction.name)}]]"
        if not kept.all():
            notice(f"{what}: {(~kept).sum():,} places lie where nothing was computed; they are left out.", InputNotice)
        names = tuple(spec.name for spec in classes.classes)
        found = counts(examples.label, names)
        refuse_one_class(found, what)
        plain = with_prevalence(replace(examples, colours=None), sample)
        fitted, judged = choose(replace(plain, colours=examples.colours) if correction.coloured else plain)
        penalty = USUAL_PENALTY if judged is None else judged.penalty
        elsewhere = fitted if fitted.colours is None else fit(plain, penalty)
    facts = correction.facts() | {
        "counts": dict(found),
        "penalty": penalty,
        "judged": None if judged is None else _judgement(judged, names),
    }
    notice(f"{what}: {_sentence(found, judged, names)}", InputNotice)
    return Found(fitted, facts, elsewhere, words.corrected(fitted))


def _judgement(judged: Judged, names: tuple[str, ...]) -> dict[str, Any]:
    """Cross-validated measures as plain values."""
    return {
        "iou": {names[index]: round(float(value), 4) for index, value in zip(judged.names, judged.iou, strict=True)},
        "f1": {names[index]: round(float(value), 4) for index, value in zip(judged.names, judged.f1, strict=True)},
        "places": judged.places,
        "folds": judged.folds,
        "spatial_folds": judged.spatial,
        "caution": "cross-validated on the examples themselves: places beside each other flatter",
    }


def _sentence(found: Mapping[str, int], judged: Judged | None, names: tuple[str, ...]) -> str:
    """Say what was fitted on, and how well the fit tells examples that it was not shown."""
    total = f"fitted on {sum(found.values()):,} places"
    if judged is None:
        said = ", ".join(f"{shown(name)} {count:,}" for name, count in found.items())
        return f"{total} ({said}), too few to judge the fit; give two or more of every class."
    each = ", ".join(
        f"{shown(names[index])} IoU {iou:.2f} F1 {f1:.2f} ({found[names[index]]:,})"
        for index, iou, f1 in zip(judged.names, judged.iou, judged.f1, strict=True)
    )
    how = "parts of the scene" if judged.spatial else "places"
    return (
        f"{total}; told apart where left out, by {judged.folds} folds of {how}: {each}. This flatters where places lie "
        "beside each other; only points drawn at random measure the map."
    )


def found_again(path: Path, facts: Mapping[str, Any]) -> Found:
    """Read what was fitted from a file whose mark says that :func:`write_fitted` wrote it."""
    from safetensors.numpy import load_file

    elsewhere, there = split(load_file(path))
    return Found(elsewhere if there is None else there, facts, elsewhere)


def write_fitted(path: Path, plan: Plan, found: Found, *, note: Note | None = None) -> None:
    """Write fitted vectors, for other scenes and the same words and model.

    Raises
    ------
    ResegeoError:
        When the file can't be written.

    """
    from safetensors.numpy import save

    assert found.fitted is not None
    assert found.elsewhere is not None
    said = {
        "format": FORMAT,
        "classes": plan.classes.to_json(),
        "words": words_of(plan.settings),
        "model": {"name": plan.source.name, **identity_of(plan.source)},
        "scene": plan.scene.fingerprint,
        "stretch": stretch_of(plan.scene),
        "fitted_on": dict(found.facts),
    }
    arrays = {"residuals": found.elsewhere.residuals, "biases": found.elsewhere.biases}
    if found.fitted.colours is not None:
        arrays |= {f"scene_{name}": getattr(found.fitted, name) for name in ("residuals", "biases", "colours")}
    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}  # other orders are written wrong
    content = save(arrays, metadata={KEY: json.dumps(said, sort_keys=True, ensure_ascii=False)})
    with saving(path), whole(path, note) as beside:
        beside.write_bytes(content)
