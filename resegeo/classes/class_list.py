"""The class list: one object behind codes, names, colours and prompts of every output."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from resegeo.errors import ResegeoError, UsageError

MOST_CODES, MOST_NAME = 65_000, 200
"""Most codes of a class raster, and most characters of a class name; a Shapefile's field takes 254 bytes."""
MOST_SCALE = 100
"""Largest power of a class's probability."""


@dataclass(frozen=True)
class ClassSpec:
    """One class: ``code`` is 0 where ``background``, else 1, 2, … in the file's order."""

    name: str
    code: int
    prompts: tuple[str, ...]
    color: tuple[int, int, int]
    threshold: float | None = None
    background: bool = False
    scale: float | None = None
    """Power of its probability before all are normed anew, as :mod:`resegeo.run.calibration` fits it."""


@dataclass(frozen=True)
class ClassList:
    """Classes in the file's order, and what applies to all of them."""

    classes: tuple[ClassSpec, ...]
    templates: tuple[str, ...] = ()
    threshold: float | None = None
    attention: Mapping[str, int] | None = None
    """Layer counts from the reference's configuration, named as in :class:`resegeo.settings.Settings`."""
    merge: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)
    """Names of classes that the map shows as one, by its name; labels do not depend on it."""
    notices: tuple[str, ...] = ()
    indexed: bool = False
    """Whether codes are the index + 1 of the reference's configuration: label rasters of such a data set hold the
    index."""

    @cached_property
    def dtype(self) -> str:
        """Type of the class raster: uint8, or uint16 beyond code 250."""
        return "uint8" if max(spec.code for spec in self.classes) <= 250 else "uint16"

    @property
    def nodata(self) -> int:
        """Code of pixels that the scene marks invalid."""
        return 255 if self.dtype == "uint8" else 65535

    @property
    def unprocessed(self) -> int:
        """Code of pixels that could not be computed."""
        return self.nodata - 1

    @property
    def drawn(self) -> tuple[ClassSpec, ...]:
        """Classes with a code of their own, by code."""
        return tuple(sorted((spec for spec in self.classes if spec.code > 0), key=lambda spec: spec.code))

    @property
    def prompt_texts(self) -> tuple[tuple[str, ...], ...]:
        """For each prompt what reaches the model: its templates filled in, or the prompt itself."""
        return tuple(
            tuple(template.replace("{}", prompt) for template in self.templates) or (prompt,)
            for spec in self.classes
            for prompt in spec.prompts
        )

    @property
    def prompt_class(self) -> tuple[int, ...]:
        """For each prompt the index of its class in ``classes``."""
        return tuple(index for index, spec in enumerate(self.classes) for _ in spec.prompts)

    def prompts_of(self, code: int) -> str:
        """Prompts of the classes of a code, comma-separated."""
        return ", ".join(prompt for spec in self.classes if spec.code == code for prompt in spec.prompts)

    def codes_of(self, names: Iterable[str], option: str) -> frozenset[int]:
        """Codes of classes by name, as ``option`` gives them.

        Raises
        ------
        UsageError:
            When a name is not there.

        """
        codes = {spec.name: spec.code for spec in self.drawn}
        chosen = set()
        for name in names:
            if name not in codes:
                near = [known for known in codes if known.lower() == name.lower()] or difflib.get_close_matches(
                    name, codes, 1
                )
                hint = f"did you mean {near[0]}" if near else f"the class file has {', '.join(codes)}"
                raise UsageError(f"[[{option}={name}]]: there is no such class; {hint}.")
            chosen.add(codes[name])
        return frozenset(chosen)

    def name_of(self, code: int) -> str:
        """Name of a code, those of background, unprocessed and nodata included.

        Raises
        ------
        ResegeoError:
            When no class has the code.

        """
        return self._entry(code)[0]

    def color_of(self, code: int) -> tuple[int, int, int]:
        """Colour of a code; background, unprocessed and nodata are grays.

        Raises
        ------
        ResegeoError:
            When no class has the code.

        """
        return self._entry(code)[1]

    def _entry(self, code: int) -> tuple[str, tuple[int, int, int]]:
        found = self._by_code.get(code)
        if found is None:
            raise ResegeoError(
                f"The code {code} is none of the class list's codes (1 to {self.drawn[-1].code}, 0 background, "
                f"{self.unprocessed} unprocessed, {self.nodata} nodata); use the list that the raster was made with."
            )
        return found

    @cached_property
    def _by_code(self) -> dict[int, tuple[str, tuple[int, int, int]]]:
        return {
            **{spec.code: (spec.name, spec.color) for spec in self.classes},
            0: ("background", (235, 235, 235)),
            self.nodata: ("nodata", (0, 0, 0)),
            self.unprocessed: ("unprocessed", (120, 120, 120)),
        }

    def to_json(self) -> dict[str, Any]:
        """Return plain values, from which :meth:`from_json` builds the list again."""
        return {
            "classes": [
                {
                    **{key: value for key, value in asdict(spec).items() if key != "scale" or value is not None},
                    "prompts": list(spec.prompts),
                    "color": list(spec.color),
                }
                for spec in self.classes
            ],
            "templates": list(self.templates),
            "threshold": self.threshold,
            **({"indexed": True} if self.indexed else {}),
        }

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> ClassList:
        """Build a list from what :meth:`to_json` gave, or what a file says that it gave.

        Raises
        ------
        ValueError:
            When it is something else.

        """
        try:
            specs = tuple(
                ClassSpec(**{**spec, "prompts": _tuple(spec["prompts"]), "color": _tuple(spec["color"])})
                for spec in plain["classes"]
            )
            indexed = plain.get("indexed", False) is True
            found = cls(specs, _tuple(plain["templates"]), plain["threshold"], indexed=indexed)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"this is no class list ({type(error).__name__})") from error
        codes = [spec.code for spec in specs if not spec.background]
        sound = (
            all(_sound(spec) for spec in specs)
            and 0 < len(codes) == len(set(codes))
            and all(isinstance(template, str) for template in found.templates)
            and _share(found.threshold)
        )
        if not sound:
            raise ValueError("this is no class list: it has values that none can have")
        return found


def _sound(spec: ClassSpec) -> bool:
    """Whether a class is one that a class file can give."""
    return (
        isinstance(spec.name, str)
        and 0 < len(spec.name) <= MOST_NAME
        and type(spec.code) is int
        and isinstance(spec.background, bool)
        and (spec.code == 0 if spec.background else 0 < spec.code <= MOST_CODES)
        and all(isinstance(prompt, str) for prompt in spec.prompts)
        and len(spec.color) == 3
        and all(type(channel) is int and 0 <= channel <= 255 for channel in spec.color)
        and _share(spec.threshold)
        and (spec.scale is None or (isinstance(spec.scale, int | float) and 0 < spec.scale <= MOST_SCALE))
    )


def _tuple(plain: Any) -> tuple[Any, ...]:
    if not isinstance(plain, list):
        raise TypeError
    return tuple(plain)


def _share(value: object) -> bool:
    return value is None or (isinstance(value, int | float) and 0 <= value <= 1)
