"""Colours for classes that come without one: apart from each other, and from those that are given."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from PIL import ImageColor

from resegeo.classes.colour_difference import difference, lab
from resegeo.classes.land_cover import kind_of

# Okabe and Ito's colours without black, then Tol's indigo, then eight found by a greedy search for the largest
# smallest difference (CIEDE2000) to all before and to the grays of the special codes, seen normally and with
# protanopia, deuteranopia and tritanopia (Machado et al. 2009). Any two differ by 10 or more in each of the four.
_PALETTE = (
    "#0072b2",
    "#e69f00",
    "#009e73",
    "#cc79a7",
    "#56b4e9",
    "#d55e00",
    "#f0e442",
    "#332288",
    "#772200",
    "#005544",
    "#aacc99",
    "#0000ee",
    "#776644",
    "#8877ff",
    "#884477",
    "#aaddff",
)


def colors_for(names: Sequence[str], taken: Sequence[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    """Choose a colour for each name: the one that custom gives it where that is free, else one of the palette.

    Of several names of one kind the first gets the kind's colour.
    """
    chosen: dict[int, tuple[int, int, int]] = {}
    used = list(taken)
    for number, name in enumerate(names):
        kind = kind_of(name)
        if kind is not None and kind.color not in used and _unlike([kind.color], used):
            chosen[number] = kind.color
            used.append(kind.color)
    rest = iter(free_colors(len(names) - len(chosen), used))
    return [chosen[number] if number in chosen else next(rest) for number in range(len(names))]


def free_colors(count: int, taken: Sequence[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    """Choose ``count`` colours that are neither taken nor look like a taken one, if that can be had."""
    import colorsys

    candidates: list[tuple[int, int, int]] = [ImageColor.getrgb(color)[:3] for color in _PALETTE]
    if count > len(candidates) - len(taken):
        for number in range(count + len(taken)):  # hues by the golden ratio: neighbours in the list differ
            r, g, b = colorsys.hsv_to_rgb(number * 0.618034 % 1, 0.45 + 0.1 * (number % 6), 0.95 - 0.13 * (number % 5))
            candidates.append((round(r * 255), round(g * 255), round(b * 255)))
    given = set(taken)
    far = _unlike(list(dict.fromkeys(candidates)), taken)
    chosen = dict.fromkeys(far[:count])  # a dict keeps the order and looks up fast
    spare = (c for c in dict.fromkeys(candidates) if c not in chosen and c not in given)
    chosen.update(dict.fromkeys(itertools.islice(list(spare), count - len(chosen))))
    value = 1
    while len(chosen) < count:  # thousands of classes: any colour not used yet
        color = (value * 7919 % 256, value // 256 % 256, value % 256)
        if color not in given:
            chosen[color] = None
        value += 1
    return list(chosen)


def _unlike(
    candidates: list[tuple[int, int, int]], taken: Sequence[tuple[int, int, int]]
) -> list[tuple[int, int, int]]:
    """Those of ``candidates`` that differ from every taken colour by a CIEDE2000 of 10 or more, as the palette's do."""
    if not taken or len(candidates) * len(taken) > 1_000_000:  # no eye tells thousands of colours apart
        return candidates
    near = difference(lab(candidates)[:, None], lab(taken)[None]).min(axis=1) < 10
    return [color for color, close in zip(candidates, near, strict=True) if not close]
