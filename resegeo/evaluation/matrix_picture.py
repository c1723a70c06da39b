"""A confusion matrix as a picture: where each class of the truth went."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from resegeo.evaluation.metrics import Accuracy, ratios

CELL = 84
"""Side of a cell in pixels."""
MOST = 40
"""Classes that are drawn: of more the picture would say nothing."""
_LETTERS = 22
_PALE, _DEEP = np.array([247, 250, 253]), np.array([8, 64, 129])


def draw_matrix(accuracy: Accuracy) -> Image.Image:
    """Draw a confusion matrix: a row a class of the truth, a column an answer, in per cent of the row.

    Returns
    -------
    The picture, RGB; only the first :data:`MOST` classes where there are more.

    """
    rows = accuracy.names[:MOST]
    columns = [*rows, *accuracy.extra]
    kept = [*range(len(rows)), *range(len(accuracy.names), accuracy.counts.shape[1])]
    shares = ratios(accuracy.counts[: len(rows), kept], np.maximum(accuracy.true[: len(rows), None], 0))
    font, small = ImageFont.load_default(size=17), ImageFont.load_default(size=15)
    row_names, column_names = [[_cut(name) for name in names] for names in (rows, columns)]
    left = 54 + max(int(font.getlength(name)) for name in row_names)
    top = 54 + max(int(font.getlength(name)) for name in column_names)
    page = Image.new("RGB", (left + CELL * len(columns) + 24, top + CELL * len(rows) + 24), "white")
    draw = ImageDraw.Draw(page)
    draw.text((left + CELL * len(columns) / 2, 18), "prediction", fill=(90, 90, 90), font=small, anchor="mm")
    _turned(page, "truth", (18, top + CELL * len(rows) // 2), small, (90, 90, 90), middle=True)
    for number, name in enumerate(column_names):
        _turned(page, name, (left + CELL * number + CELL // 2, top - 10), font, (30, 30, 30))
    for row, name in enumerate(row_names):
        draw.text((left - 10, top + CELL * (row + 0.5)), name, fill=(30, 30, 30), font=font, anchor="rm")
        for column in range(len(columns)):
            share = float(shares[row, column])
            x, y = left + CELL * column, top + CELL * row
            tone = _PALE + (_DEEP - _PALE) * (0.0 if np.isnan(share) else share)
            draw.rectangle((x + 1, y + 1, x + CELL - 2, y + CELL - 2), fill=tuple(int(part) for part in tone))
            said = "–" if np.isnan(share) else f"{100 * share:.1f}"
            ink = (255, 255, 255) if share > 0.5 else (40, 40, 40)
            draw.text((x + CELL / 2, y + CELL / 2), said, fill=ink, font=font, anchor="mm")
    draw.text((left, page.height - 12), "per cent of each row", fill=(90, 90, 90), font=small, anchor="lm")
    return page


def save_matrix(accuracy: Accuracy, path: Path) -> None:
    """Write :func:`draw_matrix` as PNG.

    Raises
    ------
    OSError:
        When the file cannot be written.

    """
    draw_matrix(accuracy).save(path, format="PNG")


def _cut(name: str) -> str:
    return name if len(name) <= _LETTERS else f"{name[: _LETTERS - 1]}…"


def _turned(
    page: Image.Image,
    text: str,
    at: tuple[int, int],
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    ink: tuple[int, int, int],
    *,
    middle: bool = False,
) -> None:
    """Write text upwards, ending above ``at``, or around it."""
    width = int(font.getlength(text)) + 4
    strip = Image.new("L", (width, 26))
    ImageDraw.Draw(strip).text((0, 13), text, fill=255, font=font, anchor="lm")
    strip = strip.rotate(90, expand=True)
    x, y = at[0] - strip.width // 2, at[1] - (strip.height // 2 if middle else strip.height)
    page.paste(Image.new("RGB", strip.size, ink), (x, y), strip)
