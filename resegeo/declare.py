"""Declare an option once: its type, range and help feed Python's signature, the command line, files and manifests.

A declaration is a field of a dataclass, ``stride: int | None = option(None, "Step of the windows.", least=1)``. Its
annotation says what it holds; :func:`taken` brings a value to that from whatever form it is given in, or says in one
sentence what was expected.
"""

from __future__ import annotations

import difflib
import operator
import os
import reprlib
import types
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from resegeo.errors import UsageError, shown
from resegeo.units import area, length, metres

Affects = Literal["image", "labels", "polygons", "store", "nothing"]
"""The first that an option changes: features or scores, class raster, polygons, what the store keeps, or no result."""

LARGEST = 1e15
"""Largest number, either way from 0, that any option takes."""

_ABOUT = "resegeo"
_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother = 2, 80, 80
_FLAGS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


@dataclass(frozen=True)
class About:
    """What is said of an option beside its type and default."""

    help: str
    """As the command line shows it; empty: no option of the command line."""
    heading: str
    """Of the command's help."""
    affects: Affects
    metavar: str | None
    least: float | None
    most: float | None
    example: str
    """One or several values as text."""
    separator: str
    """Between several values as text."""
    count: int | None
    """How many values there are; None: one or more."""
    none: bool
    """Whether no value at all is one too, written ``none``."""
    file: bool
    """Whether it names a file; one in a manifest counts from the manifest's folder."""
    expected: str
    """What is expected, where the type does not say it."""
    repeated: bool
    """Whether the flag may be repeated, a value each."""
    off: bool
    """Whether there is a flag to turn it off too."""
    metres: bool = False
    """Whether it is a length on the ground, which text may give with its unit, such as 20cm."""
    later: bool = False
    """Whether stores and results are older than the option: at its default it is left out of what they record, so that
    they are the same as before, and what was made then is still known."""
    measure: Literal["length", "area"] | None = None
    """Whether it is a length or an area in pixels, or on the ground as text with its unit, which stays text until the
    size of a pixel is known."""


def option(
    default: Any,
    help: str = "",  # noqa: A002 -- as click has it
    heading: str = "",
    *,
    affects: Affects = "image",
    metavar: str | None = None,
    least: float | None = None,
    most: float | None = None,
    example: str = "",
    separator: str = ",",
    count: int | None = None,
    none: bool = False,
    file: bool = False,
    expected: str = "",
    repeated: bool = False,
    off: bool = True,
    metres: bool = False,
    later: bool = False,
    measure: Literal["length", "area"] | None = None,
) -> Any:
    """Declare an option as a field of a dataclass; see :class:`About`."""
    about = About(
        help,
        heading,
        affects,
        metavar,
        least,
        most,
        example,
        separator,
        count,
        none,
        file,
        expected,
        repeated,
        off,
        metres,
        later,
        measure,
    )
    return field(default=default, metadata={_ABOUT: about})


@dataclass(frozen=True)
class Declared:
    """An option as it is declared."""

    name: str
    kind: Any
    """Its type without None: int, float, bool, str, Path, Any, a Literal, or a tuple of one of them and ``...``."""
    optional: bool
    """Whether None is a value."""
    default: Any
    about: About

    @property
    def choices(self) -> tuple[str, ...]:
        """Words that it, or each of its values, may be; none where it is free."""
        kind = get_args(self.kind)[0] if self.several else self.kind
        return get_args(kind) if get_origin(kind) is Literal else ()

    @property
    def several(self) -> bool:
        """Whether it holds several values."""
        return get_origin(self.kind) is tuple

    @property
    def flag(self) -> str:
        """The command line's name of it."""
        return flag(self.name)

    def expected(self) -> str:
        """Say what a value must be, as the end of "expected …"."""
        about, choices = self.about, self.choices
        if about.expected:
            return about.expected
        if choices:
            return _either([*choices, "none"] if about.none else choices)
        if self.several:
            many = "" if about.count is None else f"{about.count} "
            what = "names" if get_args(self.kind)[0] is str else "numbers"
            return f"{many}{what} such as {about.example}"
        if self.kind is bool:
            return "true or false"
        if self.kind in (int, float):
            return _range(about, whole=self.kind is int)
        return f"text such as {about.example}" if about.example else "text"


class MisfitError(ValueError):
    """A value that is none of its option; the text says what is expected."""


class _NoNumberError(MisfitError):
    """Text that is no number."""


def flag(name: str) -> str:
    """Spell an option's name as the command line does."""
    return "-o" if name == "output" else f"--{name.replace('_', '-')}"


def declared(kind: Any) -> Mapping[str, Declared]:
    """Return what the fields of a dataclass declare, by name, in their order."""
    return _declared(kind)


@cache
def _declared(kind: Any) -> Mapping[str, Declared]:
    # Types that are at hand for the type checker alone are taken as they come.
    hints = get_type_hints(kind, localns=dict.fromkeys(("Stretch", "Progress", "Models", "SamLevel"), Any))
    found = {}
    for each in fields(kind):
        about = each.metadata.get(_ABOUT)
        if about is not None:
            plain, optional = _without_none(hints[each.name])
            found[each.name] = Declared(each.name, plain, optional, each.default, about)
    return found


def taken(what: Declared, value: Any) -> Any:
    """Bring a value to the type of its option.

    Taken are numbers of numpy, paths, lists, single values where several are meant, and several values as the text that
    the command line takes (``"4,3,2"``).

    Raises
    ------
    UsageError:
        When it is none, with what is expected.

    """
    try:
        return read(what, value)
    except MisfitError as error:
        raise UsageError(str(error), parameter=what.name, value=value) from error


def read(what: Declared, value: Any, *, text: bool = False) -> Any:
    """Do as :func:`taken`; with ``text`` a number or a truth value may be text too, as in a table.

    Raises
    ------
    MisfitError:
        When it is none, with a sentence that says what is expected.

    """
    value = _plain(value)
    if what.kind is Any or (value is None and what.optional):
        return value
    if not what.several:
        return _single(what, what.kind, value, text=text)
    kind = get_args(what.kind)[0]
    if isinstance(value, str):
        if what.about.none and value.strip().lower() == "none":
            return ()
        parts: list[Any] = [part.strip() for part in value.split(what.about.separator)]
        text = True
    elif isinstance(value, list | tuple | set | frozenset):
        parts = list(value)
    elif isinstance(value, int | float):
        parts = [value]
    else:
        # An object that stands for several values, such as a Stretch, or what is none of them.
        if what.about.count is not None and hasattr(value, "low"):
            return value
        raise _misfit(what, value)
    if what.about.count not in (None, len(parts)):
        raise _misfit(what, value)
    if not parts and not what.about.none:
        raise MisfitError(f"{what.name} is empty; expected {what.expected()}.")
    try:
        found = tuple(_single(what, kind, _plain(part), text=text) for part in parts)
    except _NoNumberError:
        raise _misfit(what, value) from None  # the whole text tells more than a part of it
    return tuple(dict.fromkeys(found)) if what.choices else found


def settled(instance: Any) -> None:
    """Bring all fields of a frozen dataclass to their types; see :func:`taken`."""
    for name, what in declared(type(instance)).items():
        object.__setattr__(instance, name, taken(what, getattr(instance, name)))


def said(value: object) -> str:
    """Quote a value for a sentence, however large or deep it is."""
    if isinstance(value, str | os.PathLike):
        return f"'{shown(os.fspath(value))}'"
    try:
        return shown(_SHORT.repr(value))
    except ValueError:  # Python writes no whole number of more than 4300 digits
        return "a number of thousands of digits"


LISTED = 24
"""Names that a sentence lists at most."""


def unknown(kind: str, name: object, known: Iterable[str]) -> str:
    """Say that there is no option of a name, and which may have been meant, as the end of a sentence."""
    names = list(known)
    plain = (name if isinstance(name, str) else said(name)).strip().removeprefix("--").replace("-", "_").lower()
    near = difflib.get_close_matches(plain, names, n=1)
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(names[:LISTED])}{more}."
    return f"there is no {kind} {said(name)}; {hint}"


def _single(what: Declared, kind: Any, value: Any, *, text: bool) -> Any:
    if what.about.metres and isinstance(value, str):
        try:
            value = metres(value, what.name)
        except UsageError as error:
            raise MisfitError(str(error)) from None
    if what.about.measure is not None and isinstance(value, str):
        measured = _measured(what, kind, value)
        if isinstance(measured, str):
            return measured
        value = measured
    if text and isinstance(value, str) and kind in (int, float, bool):
        misfit = _NoNumberError(str(_misfit(what, value)))
        try:
            value = _FLAGS[value.lower()] if kind is bool else kind(value)
        except (ValueError, KeyError):
            raise misfit from None
        if not abs(value) <= LARGEST:
            raise misfit
    if kind is bool:
        if isinstance(value, bool):
            return value
    elif kind in (int, float):
        right = isinstance(value, int if kind is int else int | float) and not isinstance(value, bool)
        least, most = what.about.least, what.about.most
        inside = right and abs(value) <= LARGEST  # nor is what is no number
        if inside and (least is None or value >= least) and (most is None or value <= most):
            return kind(value)
    elif get_origin(kind) is Literal:
        if isinstance(value, str) and (value in get_args(kind) or (what.several and value.lower() in get_args(kind))):
            return value if value in get_args(kind) else value.lower()
    elif isinstance(value, str | os.PathLike):
        return value if kind is Path else os.fspath(value)
    raise _misfit(what, value, kind)


def _measured(what: Declared, kind: Any, value: str) -> str | float:
    """Read a length or an area: a number where it is in pixels, and as it stands where it is on the ground."""
    try:
        found = (area if what.about.measure == "area" else length)(value, what.name)
    except UsageError:
        raise _misfit(what, value, kind) from None
    if not found.pixels:
        return value.strip()
    return int(found.value) if kind is int and found.value.is_integer() else found.value


def _misfit(what: Declared, value: Any, kind: Any = None) -> MisfitError:
    expected = what.expected()
    if what.several and kind in (int, float):
        expected = _range(what.about, whole=kind is int)  # one of several
    return MisfitError(f"{what.name} is {said(value)}; expected {expected}.")


def _plain(value: Any) -> Any:
    """Bring numbers and arrays of numpy to Python's own."""
    if isinstance(value, bool | str | bytes | os.PathLike) or value is None:
        return value
    if hasattr(value, "tolist") and hasattr(value, "dtype") and getattr(value, "ndim", 2) <= 1:
        return value.tolist()
    if isinstance(value, int | float):
        return value
    if isinstance(value, range):
        return list(value)
    try:
        return operator.index(value)
    except TypeError:
        return value


def _without_none(hint: Any) -> tuple[Any, bool]:
    """Return a type without None, several values as a tuple of any length; and whether None is one."""
    parts = list(get_args(hint)) if get_origin(hint) in (Union, types.UnionType) else [hint]
    optional = type(None) in parts
    plain = [part for part in parts if part is not type(None)]
    several = next((part for part in plain if get_origin(part) in (tuple, Sequence, Collection)), None)
    if several is not None:
        return tuple.__class_getitem__((get_args(several)[0], ...)), optional
    if Any in plain:
        return Any, optional
    return (Path if Path in plain else plain[0]), optional


def _range(about: About, *, whole: bool) -> str:
    kind = "a whole number" if whole else "a number"
    if about.least is None:
        return kind
    if about.most is not None:
        return f"{kind} from {about.least:g} to {about.most:g}"
    return f"{kind} above 0" if 0 < about.least < 1e-3 else f"{kind} of {about.least:g} or more"


def _either(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"
