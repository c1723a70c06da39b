"""The one error a user can meet, and the warnings a run may give.

Every mistake a user can make ends as a :class:`ResegeoError` whose text is one readable
sentence: what was found, the values, the remedy. The command line prints it and exits with
:attr:`ResegeoError.exit_code`; nothing else is shown unless ``-v`` asks for the traceback.

Sentences name parameters in double brackets, ``[[gsd=10]]`` or ``[[gsd]]``. Python reads ``gsd=10``; the command line
passes :func:`spelled` its own way of spelling, and shows a flag.
"""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Callable
from pathlib import PurePath

SAID = 80
"""Characters of a value from a file that a sentence shows at most."""
SAID_OF_PATHS = 300
"""The same of a path, which is of no use when it is cut."""


JOINERS = "\u200c\u200d"
"""Characters that are not seen, which scripts and emoji need."""


def shown(value: object, most: int | None = None) -> str:
    """Make a value that came from a file fit to be said: control characters as escapes, cut to ``most`` characters.

    Whatever reaches a terminal or a log may have been written by a stranger; bytes that are no UTF-8 (surrogates) and
    characters that turn the direction of writing are escaped too.
    """
    most = most or (SAID_OF_PATHS if isinstance(value, PurePath) else SAID)
    text = str(value)
    said = escaped(text[: most + 1])
    return said if len(text) <= most and len(said) <= 4 * most else f"{said[: most - 1]}…"


def escaped(text: object) -> str:
    """Write characters that a terminal would obey instead of showing as escapes; text that can be shown stays exact."""
    text = str(text)
    if text.isprintable():
        return text
    return "".join(
        sign
        if sign.isprintable() or sign in JOINERS
        else sign.encode("unicode_escape", "surrogatepass").decode("ascii")
        for sign in text
    )


Spelling = Callable[[str, str | None], str]
"""Writes a parameter that a sentence names, and its value where that is said too."""

_PARAMETER = re.compile(r"\[\[([a-z_]+)(?:=(.*?))?\]\](?!\])", re.DOTALL)


def in_python(name: str, value: str | None) -> str:
    """Spell a parameter as a call in Python does: ``gsd=10``, ``segments="sam"``."""
    if value is None:
        return name
    literal = re.fullmatch(r"-?[\d.]+(e-?\d+)?|True|False|None|[\[(\"'].*", value)
    return f"{name}={value}" if literal else f'{name}="{value}"'


def spelled(text: str, spelling: Spelling = in_python) -> str:
    """Write the parameters that a sentence names in a way of spelling."""
    return _PARAMETER.sub(lambda found: spelling(found[1], found[2]), text)


class ResegeoError(Exception):
    """Something that the user can put right; the text is one readable sentence."""

    exit_code = 1

    def __init__(self, text: str = "", *, parameter: str | None = None, value: object = None) -> None:
        """Say what is wrong and how to mend it; ``parameter`` is the one that ``value`` does not suit, if it is one."""
        super().__init__(text)
        self.parameter, self.value = parameter, value

    def __str__(self) -> str:
        return spelled(self.text)

    @property
    def text(self) -> str:
        """The text as it was written, for a sentence that goes on with it: parameters stand in brackets."""
        return str(self.args[0]) if self.args else ""

    def told(self, spelling: Spelling) -> str:
        """Return the text with the parameters that it names in a way of spelling."""
        return spelled(self.text, spelling)


class BusyError(ResegeoError):
    """Another run holds what this one would write to; it may be free in a moment."""


class UsageError(ResegeoError):
    """Options that do not fit together (exit code 2)."""

    exit_code = 2


class ClassFileError(ResegeoError):
    """A mistake in a class file; the text names file and line."""


class Interrupted(KeyboardInterrupt):
    """The user interrupted; the text says what is done and how to go on (exit code 130)."""


class ResegeoWarning(UserWarning):
    """Base of all warnings: the run goes on, but the user should know."""

    def __str__(self) -> str:
        return spelled(super().__str__())


class GeoreferenceWarning(ResegeoWarning):
    """The scene lacks a CRS or another part of its georeference."""


class InputNotice(ResegeoWarning):
    """How an unusual input was read (one band repeated, a stretch taken, ...)."""


class IgnoredSettingWarning(ResegeoWarning):
    """A setting was read and understood, but does not apply."""


_ROOT = __name__.partition(".")[0]


def notice(text: str, category: type[ResegeoWarning] = InputNotice) -> None:
    """Warn in the name of whoever called this package: Python shows that line, and each line once."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == _ROOT:
        frame, level = frame.f_back, level + 1
    warnings.warn(text, category, stacklevel=level)
