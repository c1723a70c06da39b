"""What the values of a truth mean: value, colour or field text -> class name, as the user writes it by ``legend``."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from resegeo.documents import compose_yaml, read_text
from resegeo.errors import UsageError, escaped, notice, shown

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
    whole: bool = False
    """Whether it comes of a data set's file, which names classes that a prediction need not have."""

    @classmethod
    def parse(cls, text: str | None) -> Legend | None:
        """Read ``legend``: ``value=name`` pairs separated by commas, or the path of a YAML file.

        Such a file holds pairs, or it is a data set's: ReSeg-CLIP's config.yml, whose ``category_to_index`` says what
        labels hold, or one with ``labels.values``.

        Raises
        ------
        UsageError:
            When a pair has no value or no name, or a value comes twice.

        """
        if text is None:
            return None
        of_data_set = False
        if Path(text).suffix.lower() in (".yml", ".yaml"):
            (pairs, of_data_set), source = _yaml_pairs(Path(text)), f"[[legend={text}]]"
        else:
            pairs, source = [part.partition("=")[::2] for part in text.split(",")], f"[[legend={text!r}]]"
        entries: dict[str, str] = {}
        for value, name in ((value.strip(), " ".join(name.split())) for value, name in pairs):
            if not value or not name:
                raise UsageError(f"{source}: found {value or name!r} alone; expected value=class such as {EXAMPLE}.")
            if value in entries:
                raise UsageError(f"{source} names the value {value} twice; expected each value once.")
            entries[value] = name
        return cls(entries, of_data_set)

    def checked(self, names: Sequence[str]) -> Legend:
        """Return the legend with names spelt as the prediction spells them.

        Raises
        ------
        UsageError:
            When a name is neither one of ``names`` nor ``background``.

        """
        known = {name.casefold(): name for name in (*names, BACKGROUND)}
        if self.whole:
            others = [name for name in self.entries.values() if name.casefold() not in known]
            if others:
                notice(f"{shown(', '.join(dict.fromkeys(others)))}: not among the prediction's classes, so background.")
            known |= {name.casefold(): BACKGROUND for name in others}
        for name in self.entries.values():
            if name.casefold() not in known:
                near = difflib.get_close_matches(name.casefold(), known, n=1)
                hint = f" (did you mean {known[near[0]]!r}?)" if near else ""
                raise UsageError(
                    f"[[legend]] names the class {name!r}{hint}; the prediction has {', '.join(names)}, and "
                    f"what is none of them is {BACKGROUND}."
                )
        return Legend({value: known[name.casefold()] for value, name in self.entries.items()}, self.whole)

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
                raise UsageError(f"[[legend]]: {OUTSIDE} is for polygons, but {path} is a raster; name its values.")
            number, colour = _number(value), colour_of(value)
            if number is not None and (bands == 1 or 0 <= number <= 255):
                # In a picture of three bands a value is a gray.
                key = number if bands == 1 else number * 0x010101
            elif colour is not None and bands == 3:
                key = colour
            elif colour is not None:
                raise UsageError(
                    f"[[legend]]: {value} is a colour, but {path} has no colours, only one band of values; name values "
                    f"such as {EXAMPLE}."
                )
            else:
                raise UsageError(
                    f"[[legend]]: {value!r} is no value of a raster; expected value=class with a whole number, a "
                    f'colour such as "#3C1098", or {NONZERO}: for example {EXAMPLE}.'
                )
            if found.setdefault(key, name) != name:
                raise UsageError(f"[[legend]] gives {value} two classes, {found[key]} and {name}; expected one.")
        if NONZERO in self.entries:
            found.setdefault(0, BACKGROUND)
        return found


def _yaml_pairs(path: Path) -> tuple[list[tuple[str, str]], bool]:
    """Read a YAML mapping as pairs of texts, as they stand there, and whether it is a data set's file."""
    said = f"[[legend={escaped(path)}]]"
    node = compose_yaml(
        read_text(path, said, error=UsageError), lambda line: f"{said}, line {line}", said, error=UsageError
    )
    values, indices = _below(_below(node, "labels"), "values"), _below(node, "category_to_index")
    node = values or indices or node
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
    pairs = [(key.value, value.value) for key, value in node.value]
    return [pair[::-1] for pair in pairs] if node is indices else pairs, node in (values, indices)


def _below(node: yaml.Node | None, key: str) -> yaml.MappingNode | None:
    """Return the mapping under a key of a mapping."""
    pairs = node.value if isinstance(node, yaml.MappingNode) else []
    found = next((value for name, value in pairs if getattr(name, "value", None) == key), None)
    return found if isinstance(found, yaml.MappingNode) else None


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
