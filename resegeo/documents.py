"""Documents that anybody may have written: YAML, JSON and tables, read within limits.

Whatever is wrong with one ends in one sentence with its place, of the class that the caller names. The libraries that
parse them raise more than errors of their own, and some texts of a few bytes stand for gigabytes; both are settled
here, once for each format.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import yaml

from resegeo.errors import ResegeoError, escaped, notice, shown
from resegeo.files import read_limited

YAML_BYTES = 1 << 20
JSON_BYTES = 1 << 25
TABLE_BYTES = 1 << 24
"""Most bytes of a document of each format."""

DEPTH = 64
"""Most lists and mappings within each other."""

NODES = 100_000
"""Most values of a YAML document."""

WRITTEN_OUT = 1 << 22
"""Most characters of a YAML document whose aliases are written out."""

PARTS = 2_000_000
"""Most lists and mappings of a JSON document; a feature has one for each vertex."""

LINES, COLUMNS = 200_000, 1_000
"""Most lines and columns of a table."""

BITS = 64
"""Most bits of a whole number: of a larger one neither a float nor, beyond 4,300 digits, a text can be made."""

_NO_TEXT = re.compile("[\0\ud800-\udfff]")
"""Characters that neither a file's name nor UTF-8 can hold: NUL, and halves of a pair of UTF-16."""

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]")


class Line(NamedTuple):
    """A line of a table: its number in the file, and its values by column, without the columns that it lacks."""

    number: int
    values: Mapping[str, str]


class Table(NamedTuple):
    """A table: its columns in order, and its lines that are not empty."""

    columns: tuple[str, ...]
    lines: list[Line]


def read_text(
    path: str | Path,
    what: str | None = None,
    *,
    expected: str | None = None,
    missing: str = "no such file.",
    error: type[ResegeoError] = ResegeoError,
    most: int = YAML_BYTES,
) -> str:
    """Read a text file: UTF-8 with or without a byte order mark, or UTF-16 with one, as PowerShell writes it.

    Parameters
    ----------
    path:
        The file.
    what:
        What sentences call it; by default its path.
    expected:
        End of a sentence: what should have been there.
    missing:
        What a sentence says of a file that is not there.
    error:
        Class of the errors.
    most:
        Bytes that it may have.

    Raises
    ------
    ResegeoError:
        Of the class ``error``, in one sentence.

    """
    said = _Document(what or escaped(path), expected, error)
    return said.decoded(said.content(path, most, missing))


def read_yaml(
    path: str | Path,
    what: str | None = None,
    *,
    expected: str | None = None,
    missing: str = "no such file.",
    error: type[ResegeoError] = ResegeoError,
) -> Any:
    """Read a YAML file as plain values, None where it is empty; parameters and errors as for :func:`read_text`."""
    text = read_text(path, what, expected=expected, missing=missing, error=error)
    return parse_yaml(text, what or escaped(path), error=error)


def parse_yaml(text: str, what: str, *, error: type[ResegeoError] = ResegeoError) -> Any:
    """Parse YAML into plain values: numbers are finite and of 64 bits at most, keys stand once.

    Raises
    ------
    ResegeoError:
        Of the class ``error``, with what was found and its line.

    """
    return _yaml(text, _Loader.get_single_data, lambda line: f"{what}, line {line}", what, error)


def compose_yaml(text: str, where: Callable[[int], str], what: str, *, error: type[ResegeoError]) -> yaml.Node | None:
    """Parse YAML into nodes that know their lines, None where it is empty; ``where`` names the place of a line.

    Of the scalars' texts nothing is checked; the rest as for :func:`parse_yaml`.
    """
    node: yaml.Node | None = _yaml(text, _Loader.get_single_node, where, what, error)
    return node


def _yaml(
    text: str,
    ask: Callable[[_Loader], Any],
    where: Callable[[int], str],
    what: str,
    error: type[ResegeoError],
) -> Any:
    try:
        return ask(_Loader(text))
    except _TooMuchError as problem:
        raise error(f"{_place(problem, where, what)}: this YAML cannot be taken: {problem.problem}.") from problem
    except yaml.reader.ReaderError as problem:
        at = where(text.count("\n", 0, problem.position) + 1)
        raise error(
            f"{at}: this is not valid YAML (the character U+{problem.character:04X} is not allowed)."
        ) from problem
    except yaml.YAMLError as problem:
        said = shown(getattr(problem, "problem", None) or "no structure")
        raise error(
            f"{_place(problem, where, what)}: this is not valid YAML ({said}). Check indentation and quotes."
        ) from problem
    except Exception as problem:  # no list of what PyYAML may raise is complete
        escaped = isinstance(problem, ValueError | OverflowError) and "\\U" in text  # it hands "\UFFFFFFFF" to chr()
        reason = "\\U with a number beyond 10FFFF" if escaped else type(problem).__name__
        raise error(f"{what}: this is not valid YAML ({reason}).") from problem


def _place(problem: yaml.YAMLError, where: Callable[[int], str], what: str) -> str:
    mark = getattr(problem, "problem_mark", None)
    return what if mark is None else where(mark.line + 1)


class _TooMuchError(yaml.MarkedYAMLError):
    """What is valid YAML and yet not taken; the problem ends a sentence."""


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader within limits, by which each mistake has a line."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = self._nodes = 0
        self._sizes: dict[int, int] = {}
        """Characters that each finished node stands for, by identity; aliases share a node."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
        alias = self.check_event(yaml.AliasEvent)
        self._depth += 1
        self._nodes += 1
        if self._depth > DEPTH:
            raise _TooMuchError(None, None, f"nested too deeply (more than {DEPTH} levels)", mark)
        if self._nodes > NODES:
            raise _TooMuchError(None, None, f"more than {NODES:,} values", mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        if alias and id(node) not in self._sizes:
            raise _TooMuchError(None, None, "an alias within what it stands for", mark)
        if not alias:
            self._sizes[id(node)] = self._size(node)
        if self._sizes[id(node)] > WRITTEN_OUT:
            raise _TooMuchError(None, None, f"its aliases stand for more than {WRITTEN_OUT:,} characters", mark)
        return node

    def _size(self, node: yaml.Node | None) -> int:
        if isinstance(node, yaml.MappingNode):
            return 1 + sum(self._sizes[id(part)] for pair in node.value for part in pair)
        if isinstance(node, yaml.SequenceNode):
            return 1 + sum(self._sizes[id(part)] for part in node.value)
        return 1 + len(getattr(node, "value", ""))

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            value = super().construct_object(node, deep)
        except (yaml.YAMLError, ResegeoError):
            raise
        except Exception as problem:  # dates such as 2024-99-99, !!bool maybe, numbers beyond 4,300 digits, ...
            kind = node.tag.rpartition(":")[2]
            raise _TooMuchError(None, None, f"a value that is no {shown(kind)}", node.start_mark) from problem
        flaw = _flaw(value)
        if flaw is not None:
            raise _TooMuchError(None, None, flaw, node.start_mark)
        return value

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> Any:
        seen = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if (key.tag, key.value) in seen:
                    raise _TooMuchError(None, None, f"'{shown(key.value)}' stands a second time", key.start_mark)
                seen.add((key.tag, key.value))
        return super().construct_mapping(node, deep)


def _flaw(value: Any) -> str | None:
    """Say why a scalar is not taken, or None."""
    if isinstance(value, float):
        return None if math.isfinite(value) else "a number that is not finite"
    if isinstance(value, int):
        return f"a whole number of more than {BITS} bits" if value.bit_length() > BITS else None
    if isinstance(value, str) and _NO_TEXT.search(value):
        return "a text with a character that no file's name can have (NUL, or half of a pair)"
    return None


def read_json(
    path: str | Path,
    what: str | None = None,
    *,
    expected: str | None = None,
    missing: str = "no such file.",
    error: type[ResegeoError] = ResegeoError,
    most: int = JSON_BYTES,
) -> Any:
    """Read a JSON file; parameters and errors as for :func:`read_text`."""
    said = _Document(what or escaped(path), expected, error)
    return _json(said.decoded(said.content(path, most, missing)), said)


def parse_json(
    text: str | bytes, what: str, *, expected: str | None = None, error: type[ResegeoError] = ResegeoError
) -> Any:
    """Parse JSON: numbers are finite and of 64 bits at most.

    Raises
    ------
    ResegeoError:
        Of the class ``error``, with what was found and its line, or the way to it (``features.3.properties``).

    """
    said = _Document(what, expected, error)
    return _json(text if isinstance(text, str) else said.decoded(text), said)


def _json(text: str, said: _Document) -> Any:
    if text.count("{") + text.count("[") > PARTS:
        said.refuse(f"more than {PARTS:,} lists and mappings")
    try:
        value = json.loads(text)
    except json.JSONDecodeError as problem:
        found = f"{problem.msg[:1].lower()}{problem.msg[1:]} at character {problem.colno}"
        said.refuse(f"this is not valid JSON ({found})", problem.lineno, problem)
    except RecursionError as problem:
        said.refuse(f"this JSON is nested too deeply (more than {DEPTH} levels)", cause=problem)
    except Exception as problem:  # a number beyond 4,300 digits is a ValueError like many others
        said.refuse(
            "this JSON holds a value that cannot be read, such as a number of thousands of digits", cause=problem
        )
    # Each list or mapping with the way to it: (that of the one around it, its key).
    ways: list[tuple[Any, int, Any]] = [([value], 0, None)]
    while ways:
        around, depth, way = ways.pop()
        for key, part in around.items() if isinstance(around, dict) else enumerate(around):
            if isinstance(part, dict | list):
                if depth >= DEPTH:
                    said.refuse(f"this JSON is nested too deeply (more than {DEPTH} levels)")
                ways.append((part, depth + 1, (way, key)))
            else:
                flaw = _flaw(part)
                if flaw is not None:
                    said.refuse(f"{_way((way, key))} is {flaw}")
            if isinstance(key, str) and _flaw(key) is not None:
                said.refuse(f"a key within {_way(way)} is {_flaw(key)}")
    return value


def _way(way: Any) -> str:
    keys: list[str] = []
    while way is not None:
        way, key = way
        keys.append(shown(key, 30))
    return ".".join(keys[-2::-1]) or "the document"


def read_table(
    path: str | Path,
    what: str | None = None,
    *,
    expected: str = "a table with one line of columns (CSV)",
    missing: str = "no such file.",
    error: type[ResegeoError] = ResegeoError,
) -> Table:
    """Read a CSV file whose first line names its columns; commas, semicolons or tabs separate, as that line shows.

    UTF-8, UTF-16, or else Windows' Latin letters, with a notice. Spaces around values go. Parameters and errors as for
    :func:`read_text`.
    """
    said = _Document(what or escaped(path), expected, error)
    data = said.content(path, TABLE_BYTES, missing)
    try:
        text = _decoded(data)
    except UnicodeDecodeError:
        try:
            text = data.decode("cp1252")
        except UnicodeDecodeError as problem:
            said.no_text(problem)
        if _CONTROL.search(text):
            said.no_text(None)
        notice(f"{said.what} is not UTF-8 and is read as Latin-1 (Windows-1252).")
    if "\0" in text:
        said.no_text(None)
    head = re.match(r"\s*([^\r\n]*)", text)
    comma = max(",;\t", key=(head[1] if head else "").count)  # spreadsheets of many languages write semicolons
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=comma, skipinitialspace=True, strict=True)
    lines: list[Line] = []
    columns: list[str] | None = None
    before = 0
    try:
        for fields in reader:
            before = reader.line_num
            values = [field.strip() for field in fields]
            if not any(values):
                continue
            if columns is None:
                columns = values
                twice = [name for name, count in Counter(filter(None, values)).items() if count > 1]
                if twice or len(values) > COLUMNS:
                    found = f"the column {shown(twice[0])} twice" if twice else f"{len(values):,} columns"
                    raise error(f"{said.what} has {found}; expected {expected}.")
                continue
            if len(values) > len(columns):
                raise error(
                    f"{said.what}, line {reader.line_num} has more fields than the first line has columns; a value "
                    'with a comma in it, such as bands, needs quotes: "4,3,2".'
                )
            if len(lines) == LINES:
                raise error(f"{said.what} has more than {LINES:,} lines; share it out over several.")
            lines.append(
                Line(reader.line_num, {name: value for name, value in zip(columns, values, strict=False) if name})
            )
    except csv.Error as problem:
        raise error(
            f"{said.what} is no CSV file from line {before + 1} on ({problem}); is a quote missing?"
        ) from problem
    return Table(tuple(name for name in columns or () if name), lines)


def _decoded(data: bytes) -> str:
    utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return data.decode("utf-16" if utf16 else "utf-8-sig")


@dataclass(frozen=True)
class _Document:
    """How sentences speak of a document."""

    what: str
    expected: str | None
    error: type[ResegeoError]

    def content(self, path: str | Path, most: int, missing: str) -> bytes:
        """Read a file; see the class of the error."""
        try:
            return read_limited(Path(path), most)
        except ResegeoError as problem:
            if isinstance(problem.__cause__, FileNotFoundError):
                raise self.error(f"{self.what}: {missing}") from problem
            if isinstance(problem.__cause__, IsADirectoryError):
                raise self.error(f"{self.what} is a folder; expected {self.expected or 'a file'}.") from problem
            raise self.error(str(problem)) from problem

    def decoded(self, data: bytes) -> str:
        """Decode text; see the class of the error."""
        try:
            return _decoded(data)
        except UnicodeDecodeError as problem:
            raise self.error(f"{self.what} is not UTF-8 text{self._end()}") from problem

    def no_text(self, cause: Exception | None) -> NoReturn:
        """Say that a file is none of text."""
        raise self.error(f"{self.what} cannot be read as text{self._end()}") from cause

    def refuse(self, problem: str, line: int | None = None, cause: Exception | None = None) -> NoReturn:
        """Say what is wrong, and where."""
        at = self.what if line is None else f"{self.what}, line {line}"
        raise self.error(f"{at}: {problem}{self._end()}") from cause

    def _end(self) -> str:
        return f"; expected {self.expected}." if self.expected else "."
