"""The page: HTML with everything inside, which asks no server for anything and runs no script but our own.

All text from files passes :func:`_text`; the page's own policy (CSP) lets a browser run the one script that it knows
by its checksum, and load nothing.
"""

from __future__ import annotations

import base64
import hashlib
import html
import math
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from resegeo.errors import escaped
from resegeo.reports.facts import Facts
from resegeo.reports.layers import COLOURS, RIGHT, SCENE, WRONG, Stack

_MEASURES = {
    "mean_iou": "mean IoU",
    "mean_f1": "mean F1",
    "overall_accuracy": "overall accuracy",
    "macro_accuracy": "macro accuracy",
    "frequency_weighted_iou": "weighted IoU",
    "kappa": "kappa",
    "mean_boundary_iou": "boundary IoU",
}


def page(facts: Facts, stack: Stack) -> str:
    """Write the page of one run."""
    body = [
        _head(facts),
        _tiles(facts),
        '<div class="columns">',
        f'<section class="card"><h2>Map</h2>{_map(facts, stack)}</section>',
        f"<div>{_legend(facts)}{_confidence(facts)}</div>",
        "</div>",
        _cautions(facts["cautions"]),
        _evaluation(facts["evaluation"]) if facts["evaluation"] else "",
        _made(facts),
    ]
    return document(facts["title"], body, facts["versions"].get("resegeo", "?"))


def overview(
    title: str,
    scenes: Sequence[tuple[Facts, str, str]],
    cautions: Iterable[str],
    evaluation: Mapping[str, Any] | None = None,
) -> str:
    """Write the page of many runs.

    Parameters
    ----------
    title:
        Of the page.
    scenes:
        Facts, small picture and relative link of each.
    cautions:
        What holds for all of them.
    evaluation:
        Figures of all together.

    """
    cards = "".join(
        f'<figure><a href="{_text(link)}"><img src="{picture}" alt="{_text(facts["title"])}"></a>'
        f'<figcaption><a href="{_text(link)}">{_text(facts["title"])}</a><br>{_ground(facts)}, '
        f"{_judged(facts)}{len(facts['cautions'])} cautions</figcaption></figure>"
        for facts, picture, link in scenes
    )
    rows = [row for facts, _, _ in scenes for row in facts["classes"]]
    total = _summed(rows)
    merged: Facts = {"classes": total, "ha": _total(total, "ha"), "pixels": sum(row["pixels"] for row in total)}
    body = [
        f'<header><h1>{_text(title)}</h1><p class="soft">{len(scenes)} scenes</p></header>',
        _legend(merged),
        _cautions(list(cautions)),
        "" if evaluation is None else _evaluation(evaluation),
        f'<section class="card"><h2>Scenes</h2><div class="scenes">{cards}</div></section>',
    ]
    return document(title, body, scenes[0][0]["versions"].get("resegeo", "?"))


def _judged(facts: Facts) -> str:
    found = facts["evaluation"]
    return "" if not found else f"mean IoU {_number(found['mean_iou'])}, "


def document(title: str, body: Iterable[str], version: str) -> str:
    """Put the parts of a page into a document that stands alone."""
    style, script = (_part(name) for name in ("page.css", "page.js"))
    known = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{known}'"
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{_text(title)}</title>",
            f"<style>\n{style}</style></head><body><main>",
            *(part for part in body if part),
            f"<footer>Made by resegeo {_text(version)}. This page holds all that it shows; it asks no server for "
            "anything.</footer>",
            f"</main><script>{script}</script></body></html>\n",
        ]
    )


def _part(name: str) -> str:
    return files("resegeo.reports").joinpath(name).read_text("utf-8")


def _text(value: object) -> str:
    """Make a value from a file fit for HTML: text and values of attributes."""
    return html.escape(escaped(value), quote=True)


def _number(value: float | None, digits: int = 2) -> str:
    return "–" if value is None or math.isnan(value) else f"{value:,.{digits}f}"


def _hectares(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 1000 else f"{value:,.1f}" if value >= 10 else f"{value:,.3g}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"


def _ground(facts: Facts) -> str:
    return f"{facts['pixels']:,} pixels" if facts["ha"] is None else f"{_hectares(facts['ha'])} ha"


def _head(facts: Facts) -> str:
    scene = facts["scene"]
    day = facts["started"].partition("T")[0]
    parts = [f"Segmented on {day} by {facts['model']['name']}", scene.get("size"), scene.get("pixel"), scene.get("crs")]
    line = " · ".join(_text(part) for part in parts if part)
    return f'<header><h1>{_text(facts["title"])}</h1><p class="soft">{line}</p></header>'


def _tiles(facts: Facts) -> str:
    largest = max(facts["classes"], key=lambda row: row["pixels"])
    mean = facts["confidence"] and facts["confidence"]["mean"]
    tiles = [
        (_ground(facts), "mapped"),
        (f"{_text(largest['name'])} {_percent(largest['share'])}", "largest class"),
        ("–" if mean is None else f"{mean:.2f}", "mean confidence (0 to 1)"),
    ]
    if facts["evaluation"]:
        tiles.append((_number(facts["evaluation"]["mean_iou"]), "mean IoU by the evaluation"))
    else:
        tiles.append((_percent(1 - facts["pixels_unprocessed"] / max(1, facts["pixels"])), "of the scene processed"))
    return '<div class="tiles">' + "".join(f'<div class="tile"><b>{a}</b>{b}</div>' for a, b in tiles) + "</div>"


def _map(facts: Facts, stack: Stack) -> str:
    side = (facts["pixel_side_m"] or 0) * facts["width"] / stack.width
    pictures = "".join(
        f'<img class="{"" if layer.name == SCENE else "exact"}" src="{layer.uri}" alt="{layer.name}" '
        f'style="opacity:{layer.opacity:g}">'
        for layer in stack.layers
    )
    sliders = "".join(
        f'<label>{layer.name}<input type="range" min="0" max="100" value="{round(100 * layer.opacity)}" '
        f'data-layer="{number}"></label>'
        for number, layer in enumerate(stack.layers)
    )
    buttons = "".join(
        f'<button type="button" data-zoom="{factor}" title="{title}" aria-label="{title}">{sign}</button>'
        for factor, title, sign in ((1.6, "zoom in", "+"), (0.625, "zoom out", "−"), (0, "show all", "⤢"))
    )
    ratio = stack.width / stack.height
    shape = f"aspect-ratio:{ratio:g};width:min(100%,78vh*{ratio:g})"
    bar = '<div class="scale"><span></span><i></i></div>' if side else ""
    return (
        f'<div class="map" data-side="{side:g}" data-width="{stack.width}" style="{shape}">'
        f'<div class="stack">{pictures}</div><div class="zoom">{buttons}</div>{bar}</div>'
        f'<div class="controls">{sliders}</div>'
    )


def _swatch(color: str) -> str:
    return f'<span class="swatch" style="background:{_text(color)}"></span>'


def _legend(facts: Facts) -> str:
    rows = sorted(facts["classes"], key=lambda row: -row["pixels"])
    placed = facts["ha"] is not None
    bar = "".join(
        f'<span style="width:{100 * (row["share"] or 0):.3f}%;background:{_text(row["color"])}"></span>' for row in rows
    )
    head = ["Class", "ha" if placed else "pixels", "share", "mean score"]
    lines = [
        f"<tr class={'some' if row['pixels'] else 'none'}><td>{_swatch(row['color'])}{_text(row['name'])}</td>"
        f"<td>{_hectares(row['ha']) if placed else format(row['pixels'], ',')}</td><td>{_percent(row['share'])}</td>"
        f"<td>{_number(row['mean_score'])}</td></tr>"
        for row in rows
    ]
    whole = _hectares(facts["ha"]) if placed else f"{facts['pixels']:,}"
    lines.append(f'<tr class="sum"><td>All</td><td>{whole}</td><td>100.0 %</td><td></td></tr>')
    return (
        f'<section class="card"><h2>What covers the ground</h2><div class="bar">{bar}</div><table><thead><tr>'
        f"{''.join(f'<th>{name}</th>' for name in head)}</tr></thead><tbody>{''.join(lines)}</tbody></table></section>"
    )


def _confidence(facts: Facts) -> str:
    found = facts["confidence"]
    if not found:
        return ""
    levels = list(zip(COLOURS, found["levels"], strict=True))
    bar = "".join(f'<span style="width:{100 * each["share"]:.3f}%;background:{c}"></span>' for c, each in levels)
    keys = "".join(
        f"<span>{_swatch(colour)}{each['from']:g} to {each['to']:g}: {_percent(each['share'])}</span>"
        for colour, each in levels
    )
    return (
        f'<section class="card"><h2>How sure the model was</h2><div class="bar">{bar}</div><div class="keys">{keys}'
        '</div><p class="soft" style="margin:10px 0 0">Probability that the model gave its own answer, pixel by pixel. '
        "It is no measure of how right the map is.</p></section>"
    )


def _cautions(cautions: Sequence[str]) -> str:
    if not cautions:
        return ""
    items = "".join(f"<li>{_text(text)}</li>" for text in cautions)
    return f'<section class="card cautions"><h2>Before you use this map</h2><ul>{items}</ul></section>'


def _evaluation(found: Mapping[str, Any]) -> str:
    tiles = "".join(
        f'<div class="tile"><b>{_number(found[key], 3)}</b>{name}</div>'
        for key, name in _MEASURES.items()
        if key in found
    )
    keys = ("iou", "f1", "precision", "recall")
    rows = "".join(
        f"<tr><td>{_text(name)}</td>{''.join(f'<td>{_number(each[key], 3)}</td>' for key in keys)}"
        f"<td>{each['pixels_truth']:,}</td></tr>"
        for name, each in found["classes"].items()
    )
    head = "".join(f"<th>{name}</th>" for name in ("Class", "IoU", "F1", "precision", "recall", "pixels in truth"))
    truths = sorted({Path(pair["truth"]).name for pair in found["pairs"]})
    names = ", ".join(truths) if len(truths) == 1 else f"{len(truths)} truths" if truths else "labels"
    colours = f"{_swatch(RIGHT)}right&emsp;{_swatch(WRONG)}wrong"
    where = f" The map's slider shows where it is {colours}." if len(found["pairs"]) == 1 else ""
    head = "".join(f"<th>{name}</th>" for name in ("Class", "IoU", "F1", "precision", "recall", "pixels in truth"))
    names = ", ".join(sorted({Path(pair["truth"]).name for pair in found["pairs"]}))
    return (
        f'<section class="card"><h2>How right the map is</h2><p class="soft">Compared with {_text(names)}: '
        f"{found['pixels_compared']:,} pixels.{where}</p>"
        f'<div class="tiles">{tiles}</div><div class="halves"><div class="scroll"><table><thead><tr>{head}</tr>'
        f"</thead><tbody>{rows}</tbody></table></div><div>{_matrix(found['confusion'])}</div></div></section>"
    )


def _matrix(found: Mapping[str, Any]) -> str:
    """Draw a confusion matrix as a table: a row a class of the truth, in per cent of the row."""
    lines = []
    for name, counts in zip(found["truth"], found["pixels"], strict=True):
        cells, total = [], sum(counts)
        for count in counts:
            share = count / total if total else 0.0
            ink = "#fff" if share > 0.5 else "inherit"
            tone = f"rgb({round(247 - 216 * share)},{round(250 - 155 * share)},{round(253 - 100 * share)})"
            said = f"{100 * share:.0f}" if total else "–"
            cells.append(f'<td style="background:{tone};color:{ink}" title="{count:,} pixels">{said}</td>')
        lines.append(f"<tr><th>{_text(name)}</th>{''.join(cells)}</tr>")
    head = "".join(f"<th><span>{_text(name)}</span></th>" for name in found["predicted"])
    return (
        f'<div class="scroll"><table class="matrix"><thead><tr><th></th>{head}</tr></thead>'
        f'<tbody>{"".join(lines)}</tbody></table></div><p class="soft">Rows: the truth; columns: this map; per cent of '
        "each row.</p>"
    )


def _made(facts: Facts) -> str:
    model = facts["model"]
    settings = "".join(_fact(name, value) for name, value in sorted(facts["settings"].items()) if value is not None)
    scene = "".join(_fact(name, value) for name, value in facts["scene"].items())
    words = "".join(_fact(name, ", ".join(prompts)) for name, prompts in facts["prompts"].items())
    templates = f'<p class="soft">Each word was put into: {_text("; ".join(facts["templates"]))}</p>'
    sums = "".join(
        f"<tr><td>{_text(each['name'])}{'' if each['as_written'] else ' (changed since)'}</td>"
        f"<td><code>{_text(each['sha256'])}</code></td></tr>"
        for each in facts["files"]
    )
    windows = "{done:,} of {planned:,} done, {failed:,} failed".format_map(facts["windows"])
    return (
        '<section class="card"><h2>How it was made</h2><table class="facts"><tbody>'
        f"{_fact('model', model['name'])}{_fact('architecture', model['architecture'])}"
        f"{_fact('checksum of the weights (SHA-256)', model['sha256'])}"
        f"{_fact('windows', windows)}</tbody></table>"
        f"<details open><summary>Words</summary>{templates if facts['templates'] else ''}"
        f'<table class="facts"><tbody>{words}</tbody></table></details>'
        f'<details><summary>Scene</summary><table class="facts"><tbody>{scene}</tbody></table></details>'
        f'<details><summary>Settings</summary><table class="facts"><tbody>{settings}</tbody></table></details>'
        f'<details><summary>Files and their checksums (SHA-256)</summary><table class="facts"><tbody>{sums}</tbody>'
        "</table></details></section>"
    )


def _fact(name: str, value: object) -> str:
    return f"<tr><td>{_text(name.replace('_', ' '))}</td><td>{_text(value)}</td></tr>"


def _summed(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Add up the classes of several scenes by name; the first one's colour counts."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        found.setdefault(row["name"], []).append(row)
    total = []
    for name, same in found.items():
        pixels = sum(row["pixels"] for row in same)
        weighted = [(row["mean_score"], row["pixels"]) for row in same if row["mean_score"] is not None]
        over = sum(weight for _, weight in weighted)
        total.append(
            {
                **same[0],
                "name": name,
                "pixels": pixels,
                "ha": _total(same, "ha"),
                "m2": _total(same, "m2"),
                "mean_score": sum(score * weight for score, weight in weighted) / over if over else None,
            }
        )
    amounts = [row["ha"] if _total(total, "ha") is not None else row["pixels"] for row in total]
    whole = sum(amounts)
    return [{**row, "share": part / whole if whole else None} for row, part in zip(total, amounts, strict=True)]


def _total(rows: Iterable[Mapping[str, Any]], key: str) -> float | None:
    values = [row[key] for row in rows]
    return None if None in values else float(sum(values))
