"""The one error a user can meet, and the warnings a run may give.

Every mistake a user can make ends as a :class:`ResegeoError` whose text is one readable
sentence: what was found, the values, the remedy. The command line prints it and exits with
:attr:`ResegeoError.exit_code`; nothing else is shown unless ``-v`` asks for the traceback.
"""

from __future__ import annotations

SAID = 80
"""Characters of a value from a file that a sentence shows at most."""


JOINERS = "\u200c\u200d"
"""Characters that are not seen, which scripts and emoji need."""


def shown(value: object, most: int = SAID) -> str:
    """Make a value that came from a file fit to be said: control characters as escapes, cut to ``most`` characters.

    Whatever reaches a terminal or a log may have been written by a stranger; bytes that are no UTF-8 (surrogates) and
    characters that turn the direction of writing are escaped too.
    """
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


class ResegeoError(Exception):
    """Something that the user can put right; the text is one readable sentence."""

    exit_code = 1


class UsageError(ResegeoError):
    """Options that do not fit together (exit code 2)."""

    exit_code = 2


class ClassFileError(ResegeoError):
    """A mistake in a class file; the text names file and line."""


class Interrupted(KeyboardInterrupt):
    """The user interrupted; the text says what is done and how to go on (exit code 130)."""


class ResegeoWarning(UserWarning):
    """Base of all warnings: the run goes on, but the user should know."""


class GeoreferenceWarning(ResegeoWarning):
    """The scene lacks a CRS or another part of its georeference."""


class InputNotice(ResegeoWarning):
    """How an unusual input was read (one band repeated, a stretch taken, ...)."""


class IgnoredSettingWarning(ResegeoWarning):
    """A setting was read and understood, but does not apply."""
