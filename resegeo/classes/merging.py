"""Classes that the map shows as one, and colours taken from another class file: what follows the labels.

A merge changes codes alone: the model tells grass from trees as ever, and the map calls both green. A merged class has
the code of its first part and at every pixel the score of its best part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resegeo.classes.class_list import MOST_NAME, ClassList, ClassSpec
from resegeo.classes.land_cover import kind_of
from resegeo.errors import UsageError, escaped, shown


@dataclass(frozen=True)
class Merged:
    """A class list of fewer classes, and where those of the full list went."""

    full: ClassList
    classes: ClassList
    """As the map shows them."""
    owner: tuple[int, ...]
    """For each class of ``full`` the index of its class in ``classes``."""

    @cached_property
    def _codes(self) -> NDArray[np.unsignedinteger]:
        table = np.zeros(self.full.nodata + 1, dtype=self.classes.dtype)
        for spec, owner in zip(self.full.classes, self.owner, strict=True):
            if not spec.background:
                table[spec.code] = self.classes.classes[owner].code
        table[[self.full.unprocessed, self.full.nodata]] = self.classes.unprocessed, self.classes.nodata
        return table

    def codes(self, codes: NDArray[np.unsignedinteger]) -> NDArray[np.unsignedinteger]:
        """Codes of the full list (any shape) as those of the map."""
        return np.asarray(self._codes[codes])

    def scores(self, by_class: NDArray[np.float32]) -> NDArray[np.float32]:
        """Scores of the full list (C, h, w) as those of the map: of each class that of its best part."""
        result = np.full((len(self.classes.classes), *by_class.shape[1:]), -1, dtype=np.float32)
        for own, owner in zip(by_class, self.owner, strict=True):
            np.maximum(result[owner], own, out=result[owner])  # NaN stays NaN
        return result

    def facts(self) -> dict[str, Any]:
        """Return what the results depend on, as plain values."""
        return {"classes": self.classes.to_json(), "owner": list(self.owner)}


def parse_merges(texts: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Read merges such as ``grass,trees=green``: the parts of each merged class by its name.

    Raises
    ------
    UsageError:
        When a text is none, or two give one name.

    """
    found: dict[str, tuple[str, ...]] = {}
    for text in texts:
        left, sign, right = text.rpartition("=")
        parts = tuple(part.strip() for part in left.split(","))
        name = " ".join(right.split())
        if not sign or not all(parts) or not name:
            raise UsageError(
                f"[[merge={escaped(shown(text))}]]: expected classes, = and a name, such as grass,trees=green."
            )
        if len(name) > MOST_NAME or escaped(name) != name:
            raise UsageError(
                f"[[merge={escaped(shown(text))}]]: {shown(name)} is no name of a class; expected printable "
                f"characters, at most {MOST_NAME}."
            )
        if name in found:
            raise UsageError(f"[[merge]] names {shown(name)} twice; give all its parts at once.")
        found[name] = parts
    return found


def merged(classes: ClassList, merges: Mapping[str, Sequence[str]]) -> Merged | None:
    """Merge classes: a mapping from the name on the map to the names of its parts; None where there is nothing to do.

    A name that the list has already is one of its own parts.

    Raises
    ------
    UsageError:
        When a part is no class, or one of two merged classes.

    """
    if not merges:
        return None
    index = {spec.name.casefold(): number for number, spec in enumerate(classes.classes)}
    into: dict[int, str] = {}
    for name, parts in merges.items():
        own = index.get(name.casefold())
        for part in [index_of(classes, part, index) for part in parts] + ([] if own is None else [own]):
            if into.setdefault(part, name) != name:
                raise UsageError(
                    f"[[merge]]: {shown(classes.classes[part].name)} is to become both {shown(into[part])} and "
                    f"{shown(name)}; name it once."
                )
            hidden = classes.classes[part].background
            if hidden and (own is None or not classes.classes[own].background):
                raise UsageError(
                    f"[[merge]]: {shown(classes.classes[part].name)} is background, of which the map keeps no trace; "
                    "leave it out, or take 'background: true' from it."
                )
    specs: list[ClassSpec] = []
    place: dict[str, int] = {}
    owner = []
    for number, spec in enumerate(classes.classes):
        name = into.get(number, spec.name)
        if name not in place:
            place[name] = len(specs)
            specs.append(spec if number not in into else _one(name, classes, into))
        owner.append(place[name])
    if all(spec.background for spec in specs):
        raise UsageError("[[merge]] leaves no class but background; name fewer classes.")
    return Merged(classes, replace(classes, classes=tuple(specs)), tuple(owner))


def index_of(classes: ClassList, name: str, index: Mapping[str, int]) -> int:
    """Return the index of a class by its name in any case; see :class:`UsageError`."""
    found = index.get(" ".join(name.split()).casefold())
    if found is None:
        names = ", ".join(spec.name for spec in classes.classes)
        raise UsageError(f"[[merge]]: there is no class {shown(name)}; the class file has {shown(names, 200)}.")
    return found


def _one(name: str, classes: ClassList, into: Mapping[int, str]) -> ClassSpec:
    """Return the class that parts become: that of its name where there is one, else with the first part's code."""
    parts = [spec for number, spec in enumerate(classes.classes) if into.get(number) == name]
    prompts = tuple(prompt for spec in parts for prompt in spec.prompts)
    same = next((spec for spec in parts if spec.name.casefold() == name.casefold()), None)
    if same is not None:
        return replace(same, prompts=prompts)
    kind = kind_of(name)
    rest = [spec.color for number, spec in enumerate(classes.classes) if into.get(number) != name]
    color = kind.color if kind is not None and kind.color not in rest else parts[0].color
    return ClassSpec(name, parts[0].code, prompts, color)


def recolored(classes: ClassList, source: ClassList) -> ClassList:
    """Give classes the colours that those of the same name, in any case, have in another list."""
    color = {spec.name.casefold(): spec.color for spec in source.classes}
    specs = tuple(replace(spec, color=color.get(spec.name.casefold(), spec.color)) for spec in classes.classes)
    return replace(classes, classes=specs)
