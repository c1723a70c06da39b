"""What the values of a truth mean: value, colour or field text -> class name, as the user writes it by ``--map``."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from resegeo.documents import compose_yaml, read_text
from resegeo.errors import UsageError, escaped

BACKGROUND = "background"
"""Name of "none of the named classes"."""

NONZERO, OUTSIDE = "nonzero", "outside"
"""Keys of a legend: any other value but 0 (of a raster), and the pixels in no polygon."""

EXAMPLE = '"255=road,0=background"'
"""A legend, for messages."""


@dataclass(frozen=True)
class Legend:
    """What truth values mean: value, colour, ``nonzero`` or ``outside`` -> class name, as the user wrote them."""

    entries: Mapping[str, str]

    @classmethod
    def parse(cls, text: str | None) -> Legend | None:
        """Read ``--map``: ``value=name`` pairs separated by commas, or the path of a YAML file of such pairs.

        Raises
        ------
        UsageError:
            When a pair has no value or no name, or a value comes twice.

        """
        if text is None:
            return None
        if Path(text).suffix.lower() in (".yml", ".yaml"):
            pairs, source = _yaml_pairs(Path(text)), f"--map {text}"
        else:
            pairs, source = [part.partition("=")[::2] for part in text.split(",")], f"--map {text!r}"
        entries: dict[str, str] = {}
        for value, name in ((value.strip(), " ".join(name.split())) for value, name in pairs):
            if not value or not name:
                raise UsageError(f"{source}: found {value or name!r} alone; expected value=class such as {EXAMPLE}.")
            if value in entries:
                raise UsageError(f"{source} names the value {value} twice; expected each value once.")
            entries[value] = name
        return cls(entries)

    def checked(self, names: Sequence[str]) -> Legend:
        """Return the legend with names spelt as the prediction spells them.

        Raises
        ------
        UsageError:
            When a name is neither one of ``names`` nor ``background``.

        """
        known = {name.casefold(): name for name in (*names, BACKGROUND)}
        for name in self.entries.values():
            if name.casefold() not in known:
                near = difflib.get_close_matches(name.casefold(), known, n=1)
                hint = f" (did you mean {known[near[0]]!r}?)" if near else ""
                raise UsageError(
                    f"--map names the class {name!r}{hint}; the prediction has {', '.join(names)}, and what is none of "
                    f"them is {BACKGROUND}."
                )
        return Legend({value: known[name.casefold()] for value, name in self.entries.items()})

    def packed(self, path: Path, bands: int) -> dict[int, str]:
        """Return the values that a raster with 1 or 3 colour bands may hold, colours packed as in 0xRRGGBB.

        0 is background where :data:`NONZERO` is named and 0 is not.

        Raises
        ------
        UsageError:
            When an entry is for another kind of truth.

        """
        found: dict[int, str] = {}
        for value, name in self.entries.items():
            if value == NONZERO:
                continue
            if value == OUTSIDE:
                raise UsageError(f"--map: {OUTSIDE} is for polygons, but {path} is a raster; name its values.")
            number, colour = _number(value), colour_of(value)
            if number is not None and (bands == 1 or 0 <= number <= 255):
                # In a picture of three bands a value is a gray.
                key = number if bands == 1 else number * 0x010101
            elif colour is not None and bands == 3:
                key = colour
            elif colour is not None:
                raise UsageError(
                    f"--map: {value} is a colour, but {path} has no colours, only one band of values; name values "
                    f"such as {EXAMPLE}."
                )
            else:
                raise UsageError(
                    f"--map: {value!r} is no value of a raster; expected value=class with a whole number, a colour "
                    f'such as "#3C1098", or {NONZERO}: for example {EXAMPLE}.'
                )
            if found.setdefault(key, name) != name:
                raise UsageError(f"--map gives {value} two classes, {found[key]} and {name}; expected one.")
        if NONZERO in self.entries:
            found.setdefault(0, BACKGROUND)
        return found


def _yaml_pairs(path: Path) -> list[tuple[str, str]]:
    """Read a YAML mapping as pairs of texts, as they stand there."""
    said = f"--map {escaped(path)}"
    node = compose_yaml(
        read_text(path, said, error=UsageError), lambda line: f"{said}, line {line}", said, error=UsageError
    )
    if not isinstance(node, yaml.MappingNode) or not node.value:
        raise UsageError(
            f"{said} holds no pairs; expected lines such as '255: road', colours in quotes ('\"#3C1098\": road')."
        )
    for pair in node.value:
        for part in pair:
            if not isinstance(part, yaml.ScalarNode):
                raise UsageError(
                    f"{said}, line {part.start_mark.line + 1}: found a list or a mapping; expected one value "
                    "and one class name, such as '255: road'."
                )
    return [(key.value, value.value) for key, value in node.value]


def _number(value: str) -> int | None:
    return int(value) if re.fullmatch(r"-?[0-9]{1,9}", value) else None


def colour_of(value: str) -> int | None:
    """Read ``#3C1098`` or ``60 16 152`` as 0xRRGGBB; None where ``value`` is neither."""
    if re.fullmatch(r"#[0-9A-Fa-f]{6}", value):
        return int(value[1:], 16)
    parts = value.replace(",", " ").split()
    if len(parts) == 3 and all(re.fullmatch(r"[0-9]{1,3}", part) and int(part) < 256 for part in parts):
        red, green, blue = map(int, parts)
        return red << 16 | green << 8 | blue
    return None
