"""Results as tables of text: what the commands print where nobody asks for JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from resegeo.errors import shown

if TYPE_CHECKING:
    from resegeo.composition.average import Composition
    from resegeo.composition.models import Check
    from resegeo.evaluation.evaluate import Evaluation
    from resegeo.evaluation.metrics import Accuracy
    from resegeo.outputs.area_table import ClassArea


def columns(rows: Sequence[Sequence[str]], left: int = 1) -> list[str]:
    """Lay rows out in columns: the first ones to the left, the others, which hold numbers, to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            f"{cell:{'>' if number >= left else '<'}{widths[number]}}" for number, cell in enumerate(row)
        ).rstrip()
        for row in rows
    ]


def of_evaluation(evaluation: Evaluation) -> str:
    """One line a class, then the means, and what was left out."""
    lines = [of_accuracy(evaluation.accuracy), f"not labelled      {evaluation.unlabelled:,}"]
    if evaluation.silent:
        lines.append(f"nodata            {evaluation.silent:,} ({'ignored' if evaluation.ignore_nodata else 'missed'})")
    return "\n".join(lines)


def of_accuracy(accuracy: Accuracy) -> str:
    """One line a class, then the means."""
    found = accuracy
    rows = [("class", "IoU", "F1", "precision", "recall", "truth px", "predicted px")]
    for name, *values, true, said in zip(
        found.names, found.iou, found.f1, found.precision, found.recall, found.true, found.said, strict=True
    ):
        rows.append((name, *map(_ratio, values), f"{true:,}", f"{said:,}"))
    without = f" (without {', '.join(found.aside)})" if set(found.aside) & set(found.names) else ""
    lines = [
        *columns(rows),
        "",
        f"mean IoU          {_ratio(found.mean_iou)}{without}",
        f"mean F1           {_ratio(found.mean_f1)}{without}",
        f"macro accuracy    {_ratio(found.macro_accuracy)}{without}",
        f"weighted IoU      {_ratio(found.frequency_weighted_iou)}{without}",
        f"overall accuracy  {_ratio(found.overall)}",
        f"kappa             {_ratio(found.kappa)}",
        f"pixels compared   {found.pixels:,}",
    ]
    return "\n".join(lines)


def _ratio(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3f}"


def latex(accuracy: Accuracy) -> str:
    """A LaTeX table (booktabs), in per cent with one digit, ready for a paper."""

    def cell(value: float) -> str:
        return "--" if math.isnan(value) else f"{100 * value:.1f}"

    found = accuracy
    escaped = {sign: f"\\{sign}" for sign in "&%_#${}"}
    lines = [r"\begin{tabular}{lrrrr}", r"\toprule", r"Class & IoU & F1 & Precision & Recall \\", r"\midrule"]
    for name, *values in zip(found.names, found.iou, found.f1, found.precision, found.recall, strict=True):
        safe = "".join(escaped.get(sign, sign) for sign in name.replace("\\", "/"))
        lines.append(" & ".join([safe, *map(cell, values)]) + r" \\")
    lines += [
        r"\midrule",
        f"Mean & {cell(found.mean_iou)} & {cell(found.mean_f1)} & & {cell(found.macro_accuracy)} " + r"\\",
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(lines)


def of_areas(areas: Sequence[ClassArea]) -> str:
    """What each class covers."""
    rows = [("class", "pixels", "ha", "share", "score")]
    for area in areas:
        rows.append(
            (
                shown(area.class_name),
                f"{area.pixels:,}",
                "-" if area.ha is None else f"{area.ha:,.4g}" if area.ha < 1000 else f"{area.ha:,.0f}",
                "-" if area.share is None else f"{area.share:.1%}",
                "-" if area.mean_score is None else f"{area.mean_score:.2f}",
            )
        )
    return "\n".join(columns(rows))


def of_intervals(plain: Mapping[str, Any], points: Sequence[int]) -> str:
    """Areas and accuracies with their intervals, from what a labelled sample says of a map; points by class."""
    unit, digits = ("share", 3) if "area_ha" not in next(iter(plain["classes"].values())) else ("ha", 2)
    key = "share" if unit == "share" else "area_ha"
    rows = [("class", f"mapped {unit}", f"estimated {unit}", "user's accuracy", "producer's accuracy", "points")]
    for count, (name, entry) in zip(points, plain["classes"].items(), strict=True):
        rows.append(
            (
                name,
                f"{entry[f'mapped_{unit}']:,.{digits}f}",
                _interval(entry[key], digits),
                _interval(entry["users_accuracy"], 3),
                _interval(entry["producers_accuracy"], 3),
                str(count),
            )
        )
    overall = _interval(plain["overall_accuracy"], 3)
    return "\n".join(
        [*columns(rows), f"\noverall accuracy  {overall}; intervals of 95 % (Olofsson et al. 2014)"],
    )


def _interval(ratio: Mapping[str, float | None], digits: int) -> str:
    value, half = ratio["value"], ratio["half_width_95"]
    if value is None:
        return "–"
    return f"{value:,.{digits}f} ± " + ("?" if half is None else f"{half:,.{digits}f}")


def of_models(models: Sequence[Mapping[str, Any]]) -> str:
    """One line a known or imported model."""
    rows = [("name", "architecture", "activation", "MB", "licence", "here", "notes")]
    for model in models:
        size = "?" if model["bytes"] is None else f"{model['bytes'] / 1e6:.0f}"
        here = {None: "no", "bundled": "bundled"}.get(model["cached"], "yes")
        known = (model[key] or "-" for key in ("architecture", "activation"))
        rows.append((model["name"], *known, size, model["licence"] or "-", here, model["notes"]))
    widths = [max(map(len, column)) for column in list(zip(*rows, strict=True))[:-1]]
    return "\n".join(
        "  ".join([*(f"{cell:{width}}" for cell, width in zip(row, widths, strict=False)), row[-1]]) for row in rows
    )


def of_check(check: Check) -> str:
    """What a checkpoint is, a line a fact."""
    lines = []
    for name, value in check.facts.items():
        if isinstance(value, list):
            if not value:
                continue
            shown = [f"{v['variant']} {v['weight']:.4f}" if isinstance(v, dict) else str(v) for v in value]
            more = f" … {len(shown) - 8} more" if len(shown) > 8 else ""
            value = f"{len(shown)}: {', '.join(shown[:8])}{more}" if name != "composition" else ", ".join(shown)
        lines.append(f"{name.replace('_', ' '):13}  {'unknown' if value is None else value}")
    lines.append(f"{'loads':13}  {'yes' if check.error is None else 'no'}")
    return "\n".join(lines)


def of_composition(composition: Composition) -> str:
    """Weights of the variants, and their distance from the first block by block."""
    variants = composition.variants
    names = [variant.source.name for variant in variants]
    width = max(7, *map(len, names))
    judged = variants[0].separation is not None
    head = f"{'variant':{width}}" + ("  cohesion  confusion  quality" if judged else "") + "  weight  distance"
    lines = [head]
    for name, variant in zip(names, variants, strict=True):
        said = variant.separation
        words = "" if said is None else f"  {said.cohesion:8.4f}  {said.confusion:9.4f}  {said.quality:7.4f}"
        lines.append(f"{name:{width}}{words}  {variant.weight:6.4f}  {variant.distance:8.4f}")
    numbers = [f"({number})" for number in range(2, len(names) + 1)]
    blocks = list(variants[0].blocks)
    wide = max(map(len, blocks))
    lines += ["", f"{'distance from (1)':{wide}}" + "".join(f"  {number:>6}" for number in numbers)]
    for block in blocks:
        values = "".join(f"  {variant.blocks[block]:6.4f}" for variant in variants[1:])
        lines.append(f"{block:{wide}}{values}")
    return "\n".join(lines)
