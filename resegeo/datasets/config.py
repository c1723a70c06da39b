"""What a data set's file says: the reference implementation's own ``config.yml``, or one of ours with more keys.

Every section counts. What cannot be honoured is refused, or named with the reason; a mistake is answered with its line.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NoReturn

import yaml

from resegeo.checkpoints.registry import known_model
from resegeo.checkpoints.sources import ModelSource, geometry
from resegeo.classes.class_file import class_list_of
from resegeo.classes.class_list import ClassList
from resegeo.classes.palette import colors_for
from resegeo.documents import compose_yaml, parse_yaml, read_text
from resegeo.errors import ClassFileError, IgnoredSettingWarning, ResegeoError, escaped, notice, shown
from resegeo.evaluation.legend import BACKGROUND
from resegeo.files import is_there
from resegeo.segments.sam_levels import SamLevel
from resegeo.settings import Settings

SECTIONS: Mapping[str, tuple[str, ...]] = {
    "input": ("dir", "target_image_name", "only", "tile"),
    "labels": ("name", "values", "ignore"),
    "output": ("base_dir", "visualizations_subdir"),
    "model": ("clip_model_name", "clip_checkpoint", "sam_checkpoint", "img_size", "patch_size", "num_classes"),
    "attention": (
        "num_initial_layers",
        "num_neighbor_attention_layers",
        "num_sam_attention_layers",
        "max_random_attn",
        "sam_param_sets",
    ),
}
"""Keys of each section; ``labels``, and ``only`` and ``tile`` of ``input``, are ours."""

WORDS = ("text_queries", "class_mapping", "category_to_index", "classes", "templates", "threshold", "synonyms")
OTHERS = (*(name for name in SECTIONS if name != "attention"), "settings", "published", "about")

IMAGE, LABEL, PICTURES = "R_G_B_IR.png", "L.png", "visualizations"
"""The reference's names of an image, its labels and the folder of pictures."""

OPENAI = {"ViT-B/32": "ViT-B-32", "ViT-B/16": "ViT-B-16", "ViT-L/14": "ViT-L-14", "ViT-L/14@336px": "ViT-L-14-336"}
"""Vision transformers by the names that OpenAI's package gives them."""

PART = re.compile(r"\{([A-Za-z]\w*)\}")
"""A part of a file's name that may differ from image to image."""

LEVEL = {
    "points_per_side": 16,
    "pred_iou_thresh": 0.4,
    "stability_score_thresh": 0.4,
    "min_mask_region_area": 100,
    "crop_n_layers": 1,
    "crop_n_points_downscale_factor": 2,
}
"""What the reference takes for a number that a set of SAM's parameters leaves out."""


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A data set's file, read and checked."""

    path: Path
    classes: ClassList
    categories: Mapping[str, int | None]
    """What is measured, in the order of tables: name, and code in the class raster; None: no words lead to it."""
    colors: Mapping[str, tuple[int, int, int]]
    values: Mapping[str, str | None]
    """What label values, or colours, mean: a category, or None where they are not counted."""
    folder: Path | None = None
    image: str = IMAGE
    label: str = LABEL
    only: tuple[str, ...] = ()
    tile: int | None = None
    """Side of the squares that images are cut into first; None: they stay whole."""
    output: Path | None = None
    pictures: str = PICTURES
    options: Mapping[str, Any] = field(default_factory=dict)
    """Of :func:`resegeo.segment`, as the file says."""
    knobs: frozenset[str] = frozenset()
    """Those of them that stand under ``settings`` beside the preset."""
    sizes: tuple[int | None, int | None] = (None, None)
    """Pixels along a window and along a patch, that the model must have."""
    published: Mapping[str, float] = field(default_factory=dict)
    """Mean IoU in per cent by method, as its authors give it."""
    about: str = ""

    def check_files(self, options: Mapping[str, Any]) -> None:
        """See that the checkpoints are there that the file names and ``options`` still ask for; see ResegeoError."""
        sam = options.get("segments", "sam") == "sam"
        for name, key in (("model", "clip_checkpoint"), *((("sam_checkpoint", "sam_checkpoint"),) if sam else ())):
            said = self.options.get(name)
            if said is not None and options.get(name) == said and _is_path(said) and not is_there(said):
                raise ResegeoError(
                    f"{escaped(self.path.name)}: the file {shown(Path(said))} ({key} in model) does not exist. Correct "
                    f"the path, or name another by [[{name}]]."
                )

    def check_model(self, source: ModelSource) -> None:
        """See that a model has the sizes that the file says; see :class:`ResegeoError`."""
        found = geometry(source)
        for name, said, real in zip(
            ("img_size", "patch_size"), self.sizes, (found.image_size, found.patch_size), strict=True
        ):
            if said is not None and said != real:
                raise ResegeoError(
                    f"{escaped(self.path.name)} says {name}: {said} in model, but {shown(source.name)} has {real}. "
                    "Correct the file, or name another model."
                )


def read_dataset(path: str | Path) -> Dataset:
    """Read a data set's file; paths in it count from its folder.

    Raises
    ------
    ClassFileError:
        With the line, what was found and what is expected.

    """
    path = Path(path)
    text = read_text(
        path,
        expected="a data set's file in YAML, such as ReSeg-CLIP's config.yml",
        missing="no such file. Check the path of the data set's file.",
        error=ClassFileError,
    ).replace("\r\n", "\n")
    source = escaped(path.name)

    def where(line: int) -> str:
        return f"{source}, line {line}"

    node = compose_yaml(text, where, source, error=ClassFileError)
    if not isinstance(node, yaml.MappingNode):
        raise ClassFileError(f"{source} holds no sections; expected text_queries or classes, input, output and model.")
    return _Reader(node, parse_yaml(text, source, error=ClassFileError), where, source, path).dataset()


def _is_path(name: str) -> bool:
    """Whether a checkpoint is named by a path, and not as one that is known."""
    return re.search(r"[./\\]", name) is not None and not name.startswith("compose:")


class _Reader:
    """Takes the sections one by one; nodes tell the line of what is wrong."""

    def __init__(
        self, node: yaml.MappingNode, plain: Any, where: Callable[[int], str], source: str, path: Path
    ) -> None:
        self._node, self._plain, self._where, self._source, self._path = node, plain, where, source, path
        self._home = path.parent

    def dataset(self) -> Dataset:
        """Return all that the file says."""
        self._note_unknown()
        classes = class_list_of(self._node, self._where, self._source, OTHERS)
        categories = self._categories(classes)
        attention = self._attention(classes)
        settings = self._settings()
        options = settings | self._model() | attention
        options.setdefault("preset", "paper" if classes.indexed else "default")
        if options["preset"] != "paper":
            options = {"segments": "sam"} | options if "sam_checkpoint" in options else options
        folder, output = self._text("input", "dir"), self._text("output", "base_dir")
        return Dataset(
            path=self._path,
            classes=ClassList(
                classes.classes, classes.templates, classes.threshold, classes.attention, indexed=classes.indexed
            ),
            categories=categories,
            colors=self._colors(classes, categories),
            values=self._values(classes, categories),
            folder=None if folder is None else self._home / folder,
            image=self._pattern("input", "target_image_name", IMAGE),
            label=self._pattern("labels", "name", LABEL),
            only=self._only(),
            tile=self._whole("input", "tile", least=16),
            output=None if output is None else self._home / output,
            pictures=self._pictures(),
            options=options,
            knobs=frozenset(settings) - {"preset"},
            sizes=(self._whole("model", "img_size", least=1), self._whole("model", "patch_size", least=1)),
            published=self._published(),
            about=str(self._plain.get("about") or ""),
        )

    # what there is

    def _note_unknown(self) -> None:
        """Name what is not known; a reader of the reference's would pass over it too."""
        known = (*WORDS, *OTHERS, "attention")
        unknown = [(str(key), "", known) for key in self._plain if key not in known]
        for section, keys in SECTIONS.items():
            for key in self._section(section):
                if key not in keys:
                    unknown.append((str(key), f" in {section}", keys))
        for key, within, keys in unknown:
            near = difflib.get_close_matches(key, keys, n=1)
            hint = f" Did you mean '{near[0]}'?" if near else ""
            notice(
                f"{self._source}: '{shown(key)}'{within} is no key that is known here, and is ignored.{hint}",
                IgnoredSettingWarning,
            )

    def _section(self, name: str) -> Mapping[str, Any]:
        found = self._plain.get(name)
        if found is None:
            return {}
        if not isinstance(found, dict):
            self._fail((name,), "keys below it, each with its value")
        return found

    def _place(self, keys: Sequence[str]) -> str:
        node: Any = self._node
        for key in keys:
            pairs = node.value if isinstance(node, yaml.MappingNode) else []
            node = next((value for name, value in pairs if getattr(name, "value", None) == str(key)), node)
        return self._where(node.start_mark.line + 1)

    def _fail(self, keys: Sequence[str], expected: str, found: str | None = None) -> NoReturn:
        """Refuse the value at a path of keys, with its line."""
        plain: Any = self._plain
        for key in keys:
            plain = plain.get(key) if isinstance(plain, dict) else plain
        said = found or f"{'.'.join(map(str, keys))} is {shown(repr(plain))}"
        raise ClassFileError(escaped(f"{self._place(keys)}: {said}; expected {expected}."))

    # one value each

    def _text(self, section: str, key: str) -> str | None:
        value = self._section(section).get(key)
        if value is None or value == "":
            return None
        if not isinstance(value, str) or not value.isprintable():
            self._fail((section, key), "a text in one line")
        return value

    def _whole(self, section: str, key: str, *, least: int) -> int | None:
        value = self._section(section).get(key)
        if value is not None and not (type(value) is int and value >= least):
            self._fail((section, key), f"a whole number of {least} or more")
        return value

    def _pattern(self, section: str, key: str, usual: str) -> str:
        """Return a file's name, of which parts in braces may differ."""
        value = self._text(section, key)
        if value is None:
            return usual
        parts, plain = value.split("/"), PART.sub("", value)
        if Path(value).is_absolute() or {"", ".", ".."} & set(parts) or "{" in plain or "}" in plain or "\\" in plain:
            self._fail((section, key), "the name of a file, such as R_G_B_IR.png or images/{number}.png")
        return value

    def _only(self) -> tuple[str, ...]:
        """Names of the images that count, listed there or in a text file."""
        value = self._section("input").get("only")
        if value is None:
            return ()
        if isinstance(value, str) and not re.search(r"[/\\]", value):
            return (value,)
        if not isinstance(value, list) or not value or not all(isinstance(each, str | int) for each in value):
            self._fail(("input", "only"), "a list of names, or the name of a text file below the folder of the images")
        return tuple(map(str, value))

    def _pictures(self) -> str:
        value = self._text("output", "visualizations_subdir")
        if value is None:
            return PICTURES
        if Path(value).is_absolute() or ".." in Path(value).parts:
            self._fail(("output", "visualizations_subdir"), "the name of a folder in base_dir")
        return value

    def _published(self) -> dict[str, float]:
        found = self._plain.get("published") or {}
        if not isinstance(found, dict) or not all(type(value) in (int, float) for value in found.values()):
            self._fail(("published",), "a mean IoU in per cent a method")
        return {str(name): float(value) for name, value in found.items()}

    # classes and labels

    def _categories(self, classes: ClassList) -> dict[str, int | None]:
        """Return what is measured; of the reference's categories those too that no words lead to."""
        found: dict[str, int | None]
        if not classes.indexed:
            found = {spec.name: spec.code for spec in classes.drawn}
            aside = [spec.name for spec in classes.classes if spec.background]
            return found | ({aside[0] if len(aside) == 1 else BACKGROUND: 0} if aside else {})
        indices: dict[str, int] = {}
        pairs = next(value for key, value in self._node.value if key.value == "category_to_index").value
        for key, value in pairs:
            indices[" ".join(key.value.split())] = int(value.value)
        codes = {spec.name: spec.code for spec in classes.drawn}
        found = {name: codes.get(name) for name in sorted(indices, key=indices.__getitem__)}
        count = self._whole("model", "num_classes", least=1)
        if count is not None and count != len(found):
            self._fail(
                ("model", "num_classes"), f"{len(found)}, as many as category_to_index lists", f"num_classes is {count}"
            )
        silent = [name for name, code in found.items() if code is None]
        if silent:
            notice(
                f"{self._source}: no text query leads to {shown(', '.join(silent))}, which will never be found.",
                IgnoredSettingWarning,
            )
        return found

    def _colors(self, classes: ClassList, categories: Mapping[str, int | None]) -> dict[str, tuple[int, int, int]]:
        known = {spec.name: spec.color for spec in classes.classes}
        others = [name for name in categories if name not in known]
        return known | dict(zip(others, colors_for(others, tuple(known.values())), strict=True))

    def _values(self, classes: ClassList, categories: Mapping[str, int | None]) -> dict[str, str | None]:
        """Return what label values mean: as the file says, else the index, or else the code."""
        given = self._section("labels").get("values")
        meant: dict[str, str | None] = {}
        if given is None and classes.indexed:
            pairs = next(value for key, value in self._node.value if key.value == "category_to_index").value
            meant = {str(int(value.value)): " ".join(key.value.split()) for key, value in pairs}
        elif given is None:
            meant = {str(code): name for name, code in categories.items()}
        else:
            if not isinstance(given, dict) or not given:
                self._fail(("labels", "values"), "lines such as '1: road', colours in quotes ('\"#FF0000\": road')")
            folded = {name.casefold(): name for name in categories}
            aside = {spec.name.casefold() for spec in classes.classes if spec.background}
            for value, name in given.items():
                plain = str(name).casefold()
                background = next((key for key, code in categories.items() if code == 0), None)
                meant[str(value)] = background if plain in aside else folded.get(plain)
                if meant[str(value)] is None:
                    self._fail(
                        ("labels", "values", value),
                        f"one of {', '.join(categories)}",
                        f"the label value {value} stands for {shown(repr(name))}, which is no class",
                    )
        ignored = self._section("labels").get("ignore")
        ignored = [] if ignored is None else ignored if isinstance(ignored, list) else [ignored]
        for value in ignored:
            if not isinstance(value, str | int) or isinstance(value, bool):
                self._fail(("labels", "ignore"), "values or colours that are not counted, such as [255]")
            if str(value) in meant:
                self._fail(("labels", "ignore"), "each value once", f"the label value {value} has a class already")
            meant[str(value)] = None
        return meant

    # model and method

    def _model(self) -> dict[str, Any]:
        """Return options of model and SAM."""
        name, checkpoint = self._text("model", "clip_model_name"), self._text("model", "clip_checkpoint")
        sam = self._text("model", "sam_checkpoint")
        options: dict[str, Any] = {} if sam is None else {"sam_checkpoint": self._file(sam, sam=True)}
        if name is None and checkpoint is None:
            return options
        if name is not None and name not in OPENAI and re.fullmatch(r"(RN\d+.*|ViT-[A-Z]/\d+.*)", name):
            self._fail(("model", "clip_model_name"), f"one of {', '.join(OPENAI)}")
        arch = None if name is None else OPENAI.get(name)
        if checkpoint is None:
            return options | {"model": f"openai:{arch}" if arch is not None else name}
        model = self._file(checkpoint, sam=False)
        options["model"] = model
        if model == checkpoint and (known_model(model) is not None or not re.search(r"[./]", model)):
            return options  # a name that says what it is
        if arch is not None:  # OpenAI's package computes with QuickGELU, whatever the weights
            return options | {"arch": f"{arch}-quickgelu", "activation": "quickgelu"}
        return options | ({} if name is None else {"arch": name})

    def _file(self, name: str, *, sam: bool) -> str:
        """Return a checkpoint's path, which counts from the file's folder; names of known ones stay."""
        if known_model(name, sam=sam) is not None or not _is_path(name):
            return name
        return str(self._home / name)

    def _settings(self) -> dict[str, Any]:
        """Return knobs of the method, and the preset."""
        known = [*(each.name for each in fields(Settings)), "preset"]
        found = dict(self._section("settings"))
        for key in found:
            if key not in known:
                near = difflib.get_close_matches(str(key), known, n=1)
                hint = f", perhaps {near[0]}" if near else ""
                self._fail(("settings", key), f"a knob of the method{hint}", f"found '{shown(key)}' in settings")
        segments = found.get("segments")
        if isinstance(segments, str):
            found["segments"] = ",".join(
                str(self._home / part) if is_there(self._home / part) else part for part in segments.split(",")
            )
        return {key: value for key, value in found.items() if value is not None}

    def _attention(self, classes: ClassList) -> dict[str, Any]:
        """Return the level table; layer counts come with the class list."""
        found = self._section("attention")
        random = found.get("max_random_attn")
        if random is not None and not (type(random) in (int, float) and random == 0):
            self._fail(
                ("attention", "max_random_attn"),
                "0: attention drawn at random would give other labels with each run",
            )
        sets = found.get("sam_param_sets")
        if sets is None:
            return {}
        if not isinstance(sets, list) or not sets or not all(isinstance(each, dict) for each in sets):
            self._fail(("attention", "sam_param_sets"), "a list of sets of SAM's parameters, one a layer")
        layers = found.get("num_sam_attention_layers")
        if layers is not None and layers != len(sets):
            self._fail(
                ("attention", "num_sam_attention_layers"),
                f"{len(sets)}, as many as there are sam_param_sets",
                f"num_sam_attention_layers is {shown(layers)}",
            )
        levels = []
        for number, given in enumerate(sets, 1):
            for key, value in given.items():
                if key not in LEVEL:
                    self._fail(
                        ("attention", "sam_param_sets"),
                        f"one of {', '.join(LEVEL)}",
                        f"set {number} has {shown(key)!r}",
                    )
                if type(value) not in (int, float):
                    self._fail(("attention", "sam_param_sets"), "a number", f"{key} of set {number} is {shown(value)}")
            try:
                levels.append(SamLevel(**{**LEVEL, **given}))
            except ResegeoError as error:
                place = self._place(("attention", "sam_param_sets"))
                raise ClassFileError(f"{place}: set {number} of sam_param_sets: {error.text}") from error
        return {"sam_levels": tuple(levels)}
