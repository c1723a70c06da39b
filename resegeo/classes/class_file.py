"""Class files: YAML in the form of ``resegeo classes template``, or the reference implementation's own ``config.yml``.

A mistake is answered with its line, what was found and what is expected.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import yaml
from PIL import ImageColor

from resegeo.classes.class_list import MOST_CODES, MOST_NAME, MOST_SCALE, ClassList, ClassSpec
from resegeo.classes.land_cover import synonyms_of
from resegeo.classes.merging import merged
from resegeo.classes.palette import colors_for
from resegeo.documents import compose_yaml, read_text
from resegeo.errors import ClassFileError, UsageError, escaped

MOST_PROMPTS, MOST_TEXTS = 5_000, 20_000
"""Most prompts of a class file, and most texts for the model: each prompt makes one with each template."""

MOST_SIGNS = 2_000
"""Most characters of a prompt or a template."""

TEMPLATE = """\
# Classes for resegeo. Run:  resegeo segment scene.tif [[classes=classes.yml]]

# Optional. Every prompt is put into each template, and the results are averaged.
# Without templates a prompt reaches the model exactly as written.
templates:
  - "an aerial photo of {}"
  - "a satellite image of {}"

# Optional. A pixel whose best class is less probable than this becomes background (code 0).
# threshold: 0.3

# Optional. Adds a few common words to the classes that are of a known kind: `resegeo classes check` shows which.
# synonyms: true

# Optional. Classes that the map shows as one; the model tells them apart as ever.
# merge:
#   green: [forest, grass]

# Codes in the raster are 1, 2, ... in this order. Only the name is required: it is then the prompt.
classes:
  - name: water
    prompts: [water, lake, river]
    color: "#2b83ba"
  - name: forest
    prompts: [forest, trees]
    color: "#1a7837"
  - name: grass
  - name: road
    prompts: [road, street]
    threshold: 0.2        # for this class instead of the one above
  - name: building
    prompts: [building, roof]
  - name: shadow
    background: true      # competes with the others, but is written as 0
"""


def load_class_list(path: str | Path) -> ClassList:
    """Read a class file.

    Raises
    ------
    ClassFileError:
        With file, line, what was found and what is expected.

    """
    said = escaped(path)
    text = read_text(
        path,
        expected="a class file in YAML",
        missing=f"no such file. `resegeo classes template > {said}` writes an example.",
        error=ClassFileError,
    ).replace("\r\n", "\n")
    return parse_class_list(text, escaped(Path(path).name))


def parse_class_list(text: str, source: str = "classes.yml") -> ClassList:
    """Parse the text of a class file; ``source`` is the name that messages give it.

    Raises
    ------
    ClassFileError:
        With source, line, what was found and what is expected.

    """
    return _parse(text, lambda line: f"{source}, line {line}", source)


def class_list_of(
    node: yaml.MappingNode, where: Callable[[int], str], source: str, others: Collection[str]
) -> ClassList:
    """Take the class list of a file that holds other things beside it, under the keys ``others``.

    Raises
    ------
    ClassFileError:
        As for :func:`parse_class_list`.

    """
    own = [(key, value) for key, value in node.value if getattr(key, "value", None) not in others]
    return _of_node(yaml.MappingNode(node.tag, own, node.start_mark, node.end_mark), where, source)


def class_list(entries: Iterable[str | Mapping[str, Any]], **top: Any) -> ClassList:
    """Build a list in Python, from names or from mappings with the keys of a class file.

    ``top`` takes the file's other keys: ``templates``, ``threshold``.

    Raises
    ------
    ClassFileError:
        With the entry's number (from 1), what was found and what is expected.

    """
    expected = 'a list of names or mappings, such as ["water", {"name": "road", "threshold": 0.2}]'
    if isinstance(entries, str | bytes | Mapping) or not isinstance(entries, Iterable):
        raise ClassFileError(f"The classes are of type {type(entries).__name__}; expected {expected}.")
    entries = list(entries)
    for number, entry in enumerate(entries, 1):
        if not isinstance(entry, str | Mapping):
            raise ClassFileError(
                f"classes, entry {number}: found something of type {type(entry).__name__}; expected {expected}."
            )
    try:  # JSON is YAML too, and keeps each entry on a line of its own
        listed = [json.dumps(e if isinstance(e, str) else dict(e), ensure_ascii=False) for e in entries]
        others = [f"{json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in top.items()]
    except (TypeError, ValueError, RecursionError) as error:
        raise ClassFileError("The classes hold objects that are neither text, numbers nor lists of them.") from error
    text = "\n".join(["classes:" if listed else "classes: []", *(f"- {line}" for line in listed), *others])

    def where(line: int) -> str:
        return f"classes, entry {line - 1}" if 2 <= line <= len(listed) + 1 else "classes"

    return _parse(text, where, "classes")


def _parse(text: str, where: Callable[[int], str], source: str) -> ClassList:
    node = compose_yaml(text, where, source, error=ClassFileError)
    if node is None:
        raise ClassFileError(f"{source} is empty; expected a list of classes, see `resegeo classes template`.")
    return _of_node(node, where, source)


def _of_node(node: yaml.Node, where: Callable[[int], str], source: str) -> ClassList:
    parser = _Parser(where)
    if not isinstance(node, yaml.MappingNode):
        # What is no class file is not shown: whoever wrote its name in a manifest may not read it.
        found = "a list" if isinstance(node, yaml.SequenceNode) else "a text"
        parser.fail(node, found, "a line 'classes:' and the classes below it")
    if any(getattr(key, "value", None) == "text_queries" for key, _ in node.value):
        return parser.reference(node, source)
    return parser.classes_file(node)


def _short(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:77]}..."


def _listed(names: Sequence[str]) -> str:
    return ", ".join([*map(_short, names[:10]), *([f"and {len(names) - 10:,} more"] if len(names) > 10 else [])])


class _Parser:
    """Turns YAML nodes, which know their lines, into a class list."""

    def __init__(self, where: Callable[[int], str]) -> None:
        self.where = where

    def place(self, node: yaml.Node) -> str:
        return self.where(node.start_mark.line + 1)

    def fail(self, node: yaml.Node, found: str, expected: str) -> NoReturn:
        raise ClassFileError(escaped(f"{self.place(node)}: found {found}; expected {expected}."))

    @staticmethod
    def shown(node: yaml.Node) -> str:
        if isinstance(node, yaml.ScalarNode):
            return _short(repr(node.value)) if node.value else "nothing"
        return "a list" if isinstance(node, yaml.SequenceNode) else "a mapping"

    # the parts of a file

    def classes_file(self, node: yaml.MappingNode) -> ClassList:
        keys = self.mapping(node, ("classes", "templates", "threshold", "synonyms", "merge"))
        if "classes" not in keys:
            self.fail(node, "no line 'classes:'", "one, with the classes below it")
        listed = keys["classes"]
        if not isinstance(listed, yaml.SequenceNode) or not listed.value:
            self.fail(
                listed,
                self.shown(listed) if not isinstance(listed, yaml.SequenceNode) else "an empty list",
                "a list of classes, each on a line that begins with '- '",
            )
        entries = [self.entry(item) for item in listed.value]
        self.unique([(entry["name"], entry["node"]) for entry in entries])
        if all(entry.get("background") for entry in entries):
            self.fail(listed, "background classes alone", "at least one class without 'background: true'")
        threshold = self.probability(keys["threshold"]) if "threshold" in keys else None
        templates = self.templates(keys.get("templates"))
        if "synonyms" in keys and self.flag(keys["synonyms"]):
            added = added_synonyms([(entry["name"], entry["prompts"]) for entry in entries])
            for entry, words in zip(entries, added, strict=True):
                entry["prompts"] = (*entry["prompts"], *words)
        self.few(listed, sum(len(entry["prompts"]) for entry in entries), len(templates))
        found = ClassList(tuple(_numbered(entries)), templates, threshold)
        return replace(found, merge=self.merges(keys["merge"], found)) if "merge" in keys else found

    def merges(self, node: yaml.Node, classes: ClassList) -> dict[str, tuple[str, ...]]:
        """Read which classes the map shows as one."""
        if not isinstance(node, yaml.MappingNode):
            self.fail(node, self.shown(node), "a mapping such as 'green: [forest, grass]'")
        found = {}
        for key, value in self.mapping(node, None).items():
            if not key.strip() or len(key) > MOST_NAME:
                self.fail(node, _short(repr(key)), f"a class name of at most {MOST_NAME} characters")
            found[" ".join(key.split())] = self.texts(value, "names of classes")
        try:
            merged(classes, found)
        except UsageError as error:
            raise ClassFileError(f"{self.place(node)}: {error.text.removeprefix('[[merge]]: ')}") from error
        return found

    def entry(self, node: yaml.Node) -> dict[str, Any]:
        if not isinstance(node, yaml.MappingNode):
            name = self.name(node)
            return {"name": name, "prompts": (name,), "node": node}
        keys = self.mapping(
            node, ("name", "prompts", "prompt", "color", "threshold", "background", "scale"), {"colour": "color"}
        )
        if "name" not in keys:
            self.fail(node, "a class without a name", "a line 'name: ...'")
        name = self.name(keys["name"])
        if "prompt" in keys and "prompts" in keys:
            self.fail(keys["prompt"], "both 'prompt' and 'prompts'", "one of the two")
        prompts = keys.get("prompts", keys.get("prompt"))
        entry: dict[str, Any] = {"name": name, "node": node}
        entry["prompts"] = (name,) if prompts is None else self.texts(prompts, "a prompt")
        if "color" in keys:
            entry["color"] = self.color(keys["color"])
        if "threshold" in keys:
            entry["threshold"] = self.probability(keys["threshold"])
        if "scale" in keys:
            entry["scale"] = self.scale(keys["scale"])
        if "background" in keys:
            entry["background"] = self.flag(keys["background"])
        return entry

    def templates(self, node: yaml.Node | None) -> tuple[str, ...]:
        if node is None:
            return ()
        found = self.texts(node, "a template such as 'an aerial photo of {}'")
        for text in found:
            if text.count("{}") != 1:
                self.fail(node, _short(repr(text)), "a template with one {} where the prompt goes")
        return found

    def reference(self, node: yaml.MappingNode, source: str) -> ClassList:
        """Read the reference's own config.yml: query index -> class_mapping -> category_to_index + 1."""
        keys = self.mapping(node, None)
        queries = self.texts(keys["text_queries"], "a text query")
        self.few(keys["text_queries"], len(queries), 0)
        for needed in ("class_mapping", "category_to_index"):
            if not isinstance(keys.get(needed), yaml.MappingNode):
                expected = (
                    "one beside 'text_queries', as in ReSeg-CLIP's config.yml (other class files have 'classes:')"
                )
                self.fail(keys.get(needed, node), f"no mapping '{needed}'", expected)
        mapping: dict[int, tuple[str, yaml.Node]] = {}
        for key, value in keys["class_mapping"].value:
            if self.index(key) in mapping:
                self.fail(key, f"query {_short(key.value)} a second time", "one class for each text query")
            mapping[self.index(key)] = (self.name(value), value)
        codes: dict[str, int] = {}
        for key, value in keys["category_to_index"].value:
            if (name := self.name(key)) in codes:
                self.fail(key, f"the class {name!r} a second time", "one index for each class")
            codes[name] = self.index(value)
        if len(set(codes.values())) < len(codes):
            self.fail(keys["category_to_index"], "two categories with the same index", "an index of its own for each")
        if codes and max(codes.values()) >= MOST_CODES:
            self.fail(keys["category_to_index"], f"the index {max(codes.values())}", f"one below {MOST_CODES}")
        prompts: dict[str, list[str]] = {}
        for number, query in enumerate(queries):
            if number not in mapping:
                self.fail(
                    keys["class_mapping"],
                    f"no entry for query {number} ({_short(repr(query))})",
                    "one for each text query",
                )
            name, at = mapping[number]
            if name not in codes:
                self.fail(at, f"the class {name!r}", "a name that category_to_index lists")
            prompts.setdefault(name, []).append(query)
        ordered = sorted(prompts, key=codes.__getitem__)
        colors = colors_for(ordered, ())
        specs = [
            ClassSpec(name, codes[name] + 1, tuple(prompts[name]), color)
            for name, color in zip(ordered, colors, strict=True)
        ]
        attention, notices = self.attention(keys.get("attention"), source)
        known = {"text_queries", "class_mapping", "category_to_index", "attention"}
        ignored = [key for key in keys if key not in known]
        if ignored:
            notices.append(
                f"{source}: ignored {_listed(ignored)}; files, model and output are given as options here, while "
                "`resegeo dataset` takes them from the file."
            )
        return ClassList(tuple(specs), attention=attention, notices=tuple(notices), indexed=True)

    def attention(self, node: yaml.Node | None, source: str) -> tuple[dict[str, int] | None, list[str]]:
        if node is None:
            return None, []
        if not isinstance(node, yaml.MappingNode):
            self.fail(node, self.shown(node), "a mapping with the numbers of layers")
        names = {
            "num_initial_layers": "free_layers",
            "num_sam_attention_layers": "segment_layers",
            "num_neighbor_attention_layers": "local_layers",
        }
        keys = self.mapping(node, None)
        found = {names[key]: self.index(value) for key, value in keys.items() if key in names}
        ignored = [key for key in keys if key not in names]
        notices = [f"{source}: ignored in attention: {_listed(ignored)}."] if ignored else []
        return found or None, notices

    # the kinds of values

    def mapping(
        self, node: yaml.MappingNode, known: tuple[str, ...] | None, aliases: Mapping[str, str] | None = None
    ) -> dict[str, yaml.Node]:
        result: dict[str, yaml.Node] = {}
        for key_node, value in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                self.fail(key_node, self.shown(key_node), "a key")
            if escaped(key_node.value) != key_node.value:
                self.fail(key_node, self.shown(key_node), "a key of printable characters")
            key = (aliases or {}).get(key_node.value, key_node.value)
            if known is not None and key not in known:
                near = difflib.get_close_matches(key, known, n=1)
                hint = f" (did you mean '{near[0]}'?)" if near else ""
                self.fail(key_node, f"the unknown key '{_short(key)}'{hint}", f"one of {', '.join(known)}")
            if key in result:
                self.fail(key_node, f"'{_short(key)}' a second time", "each key once")
            result[key] = value
        return result

    def text(self, node: yaml.Node, what: str, most: int = MOST_SIGNS) -> str:
        if not isinstance(node, yaml.ScalarNode):
            self.fail(node, self.shown(node), what)
        if node.tag == "tag:yaml.org,2002:bool":
            self.fail(
                node, f"{node.value}, which YAML reads as true or false", f'{what}; write it in quotes: "{node.value}"'
            )
        text = " ".join(node.value.split())
        if not text or node.tag == "tag:yaml.org,2002:null":
            self.fail(node, "nothing", what)
        if len(text) > most:
            self.fail(node, _short(repr(text)), f"{what} of at most {most:,} characters, not {len(text):,}")
        if escaped(text) != text:
            self.fail(node, _short(repr(text)), f"{what} of printable characters")
        return text

    def name(self, node: yaml.Node) -> str:
        return self.text(node, "a class name", MOST_NAME)

    def few(self, node: yaml.Node, prompts: int, templates: int) -> None:
        """Refuse more prompts, alone or with templates, than anybody can wait for."""
        if prompts > MOST_PROMPTS:
            self.fail(node, f"{prompts:,} prompts", f"at most {MOST_PROMPTS:,}")
        if prompts * templates > MOST_TEXTS:
            self.fail(
                node,
                f"{prompts:,} prompts, with {templates:,} templates {prompts * templates:,} texts for the model",
                f"at most {MOST_TEXTS:,} of them",
            )

    def texts(self, node: yaml.Node, what: str) -> tuple[str, ...]:
        if not isinstance(node, yaml.SequenceNode):
            return (self.text(node, what),)
        if not node.value:
            self.fail(node, "an empty list", what)
        return tuple(self.text(item, what) for item in node.value)

    def probability(self, node: yaml.Node) -> float:
        expected = "a probability from 0 to 1"
        if not isinstance(node, yaml.ScalarNode):
            self.fail(node, self.shown(node), expected)
        try:
            value = float(node.value)
        except ValueError:
            self.fail(node, self.shown(node), expected)
        if not 0 <= value <= 1:
            self.fail(node, _short(node.value), expected)
        return value

    def scale(self, node: yaml.Node) -> float:
        expected = f"a number above 0 and up to {MOST_SCALE}"
        try:
            value = float(node.value)
        except (TypeError, ValueError):
            self.fail(node, self.shown(node), expected)
        if not 0 < value <= MOST_SCALE:
            self.fail(node, _short(node.value), expected)
        return value

    def index(self, node: yaml.Node) -> int:
        value = getattr(node, "value", None)
        if not isinstance(value, str) or not re.fullmatch(r"[0-9]{1,9}", value):
            self.fail(node, self.shown(node), "a whole number from 0")
        return int(value)

    def flag(self, node: yaml.Node) -> bool:
        value = str(getattr(node, "value", "")).lower()
        if not isinstance(node, yaml.ScalarNode) or value not in {"true", "false", "yes", "no"}:
            self.fail(node, self.shown(node), "true or false")
        return value in {"true", "yes"}

    def color(self, node: yaml.Node) -> tuple[int, int, int]:
        expected = 'a colour such as "#1f78b4" (in quotes), [31, 120, 180] or a name like green'
        if isinstance(node, yaml.SequenceNode):
            parts = [self.index(item) for item in node.value]
            if len(parts) != 3 or max(parts) > 255:
                self.fail(node, _short(str(parts)), expected)
            return parts[0], parts[1], parts[2]
        if not isinstance(node, yaml.ScalarNode) or not node.value:
            empty = isinstance(node, yaml.ScalarNode)
            self.fail(node, "nothing (YAML takes # for a comment)" if empty else self.shown(node), expected)
        try:
            rgb = ImageColor.getrgb(node.value)
        except (ValueError, OverflowError):
            self.fail(node, self.shown(node), expected)
        if min(rgb) < 0 or max(rgb) > 255:  # Pillow lets "rgb(999,0,0)" pass
            self.fail(node, self.shown(node), expected)
        if len(rgb) != 3:
            self.fail(node, self.shown(node), expected + ", without transparency")
        return int(rgb[0]), int(rgb[1]), int(rgb[2])

    def unique(self, names: Sequence[tuple[str, yaml.Node]]) -> None:
        seen: dict[str, yaml.Node] = {}
        for name, node in names:
            if name.casefold() in seen:
                first = self.place(seen[name.casefold()]).rpartition(", ")[2]
                self.fail(node, f"the class {name!r} a second time (first in {first})", "each name once")
            seen[name.casefold()] = node


def added_synonyms(classes: Sequence[tuple[str, Sequence[str]]]) -> list[tuple[str, ...]]:
    """Return what ``synonyms: true`` adds to the prompts of each class, given by name and prompts: no word twice."""
    taken = [word for name, prompts in classes for word in (name, *prompts)]
    result = []
    for name, prompts in classes:
        result.append(synonyms_of(name, prompts, taken))
        taken += result[-1]
    return result


def with_synonyms(classes: ClassList) -> str:
    """Write a class list as the text of a class file, with the synonyms that ``synonyms: true`` would add."""
    added = added_synonyms([(spec.name, spec.prompts) for spec in classes.classes])
    specs = [replace(spec, prompts=(*spec.prompts, *words)) for spec, words in zip(classes.classes, added, strict=True)]
    return class_file_of(replace(classes, classes=tuple(specs)))


def class_file_of(classes: ClassList) -> str:
    """Write a class list as the text of a class file."""
    listed = []
    for spec in classes.classes:
        entry: dict[str, Any] = {"name": spec.name, "prompts": list(spec.prompts)}
        entry["color"] = "#{:02x}{:02x}{:02x}".format(*spec.color)
        if spec.threshold is not None:
            entry["threshold"] = spec.threshold
        if spec.scale is not None:
            entry["scale"] = spec.scale
        if spec.background:
            entry["background"] = True
        listed.append(entry)
    top: dict[str, Any] = {} if not classes.templates else {"templates": list(classes.templates)}
    if classes.threshold is not None:
        top["threshold"] = classes.threshold
    if classes.merge:
        top["merge"] = {name: list(parts) for name, parts in classes.merge.items()}
    return yaml.safe_dump({**top, "classes": listed}, sort_keys=False, allow_unicode=True, width=120)


def _numbered(entries: Sequence[Mapping[str, Any]]) -> list[ClassSpec]:
    """Give classes their codes, and colours to those without one."""
    taken = tuple(entry["color"] for entry in entries if "color" in entry)
    free = iter(colors_for([entry["name"] for entry in entries if "color" not in entry], taken))
    specs, code = [], 0
    for entry in entries:
        background = bool(entry.get("background", False))
        code += not background
        specs.append(
            ClassSpec(
                name=entry["name"],
                code=0 if background else code,
                prompts=entry["prompts"],
                color=entry["color"] if "color" in entry else next(free),
                threshold=entry.get("threshold"),
                background=background,
                scale=entry.get("scale"),
            )
        )
    return specs
