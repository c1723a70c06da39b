"""Every knob of the method in one validated, frozen value; presets set several at once.

Precedence: options given by the user, then the settings file, then the preset, then the defaults.
Presets set knobs of the method, never the model.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from resegeo.attention import Schedule, default_schedule
from resegeo.errors import UsageError
from resegeo.sam import PAPER_LEVELS, SamLevel

SUFFIXES: Mapping[str, str] = {
    "gpkg": ".gpkg",
    "shp": ".shp",
    "geojson": ".geojson",
    "fgb": ".fgb",
    "parquet": ".parquet",
}
"""Suffix of each polygon format."""


@dataclass(frozen=True)
class Settings:
    """The knobs of a run. Lengths are in pixels that the model sees: the scene's own, unless ``gsd`` is set."""

    gsd: float | None = None
    """Ground sample distance in metres at which the model sees the scene; None: the scene's own pixels."""
    segments: str = "superpixels"
    """Segment source: superpixels, sam, none, or the path of a label raster or of polygons."""
    superpixel_area: tuple[int, ...] | None = None
    """Mean area of a superpixel, one number a level; None: 16 patches."""
    sam_mode: str = "tile"
    """Segments from SAM: one pass over each ``tile`` of the scene, or ``exact``, the paper's, for each window."""
    sam_levels: tuple[SamLevel, ...] = PAPER_LEVELS
    """Level table of SAM's mask generator, the first level the finest."""
    stride: int | None = None
    """Step of the windows in pixels; None: what ``overlap`` leaves of a window."""
    overlap: float = 0.5
    """Share of a window that it has in common with the next; ``stride`` goes before it."""
    free_layers: int | None = None
    """Unrestricted layers; None: the paper's share of the model's depth, like the next two."""
    segment_layers: int | None = None
    local_layers: int | None = None
    local_radius: int = 0
    """Chebyshev distance in patches that a local layer reaches; 0 is the patch alone."""
    self_self: bool = False
    """Last layer attends by q·q + k·k + v·v, without residual and MLP (SegEarth-OV, ClearCLIP), under its own mask."""
    edge: str = "clamp"
    """Last window of a row: ``clamp`` inside the scene, or let it ``overhang``."""
    fill: str = "mean"
    """Colour of padding and invalid pixels: the model's ``mean``, or ``black``."""
    taper: bool = True
    """Weigh the middle of a window more than its border where windows overlap."""
    logit_scale: float | None = None
    """Factor of the cosines before the softmax; None: the model's own."""
    subtract_cls: float = 0.0
    """λ: scores are cosines less λ times those of the window's CLS token (SegEarth-OV takes 0.3); 0: none."""
    vote_segments: bool = False
    """Label voting: in each window the pixels of a segment of the finest level share their votes (CorrCLIP)."""
    reduction: str = "max"
    """How a class takes its score from its prompts: max, mean or logsumexp."""
    softmax_over: str = "classes"
    """``classes``: prompts become classes as logits, then one softmax over classes, so that probabilities do not depend
    on the number of words; ``prompts``: a softmax over prompts first, the published order."""
    threshold: float | None = None
    """Class probability below which a pixel is background; None: the class file's, or none."""
    use_thresholds: bool = True
    """Whether thresholds (above, and those of the class file) apply at all."""
    precision: str = "float32"
    """Arithmetic of the vision transformer: float32, bfloat16 or float16 (autocast)."""
    compile: bool = False
    """Compile the vision transformer by torch.compile: quicker after a slow start."""
    feature_dtype: str = "float16"
    """What features are rounded to before scoring, kept or not: float16, or int8 at half the size."""
    min_area: int = 0
    """Minimum mapping unit in pixels: smaller areas join their largest neighbour, in raster and polygons; 0: none."""
    simplify: float = 0.0
    """Tolerance in pixels of the simplification of polygon borders; 0: none."""
    keep_background: bool = False
    """Draw background as polygons too."""
    vector: tuple[str, ...] = ("gpkg",)
    """Polygon formats to write."""

    def __post_init__(self) -> None:
        """Check every value; see :class:`UsageError`."""
        _choice("edge", self.edge, ("clamp", "overhang"))
        _choice("fill", self.fill, ("mean", "black"))
        _choice("reduction", self.reduction, ("max", "mean", "logsumexp"))
        _choice("softmax_over", self.softmax_over, ("classes", "prompts"))
        _choice("sam_mode", self.sam_mode, ("tile", "exact"))
        _choice("precision", self.precision, ("float32", "bfloat16", "float16"))
        _choice("feature_dtype", self.feature_dtype, ("float16", "int8"))
        _number("gsd", self.gsd, least=1e-6)
        _number("subtract_cls", self.subtract_cls, least=0, most=10)
        object.__setattr__(self, "sam_levels", _sam_levels(self.sam_levels))
        _number("stride", self.stride, least=1, whole=True)
        for name in ("free_layers", "segment_layers", "local_layers"):
            _number(name, getattr(self, name), least=0, whole=True)
        _number("local_radius", self.local_radius, least=0, whole=True)
        _number("logit_scale", self.logit_scale, least=1e-6)
        _number("threshold", self.threshold, least=0, most=1)
        _number("overlap", self.overlap, least=0, most=0.95)
        _number("min_area", self.min_area, least=0, whole=True)
        _number("simplify", self.simplify, least=0)
        for area in self.superpixel_area or ():
            _number("superpixel_area", area, least=4, whole=True)
        if self.superpixel_area is not None and not self.superpixel_area:
            raise UsageError("superpixel_area is empty; expected one mean area in pixels a level, such as [1024].")
        for name in ("taper", "use_thresholds", "keep_background", "self_self", "vote_segments", "compile"):
            if not isinstance(getattr(self, name), bool):
                raise UsageError(f"{name} is {getattr(self, name)!r}; expected true or false.")
        if not isinstance(self.segments, str):
            raise UsageError(f"segments is {self.segments!r}; expected superpixels, sam, none, or a file.")
        for name in self.vector:
            _choice("vector", name, tuple(SUFFIXES))

    def schedule(self, depth: int) -> Schedule:
        """Return the layer schedule for a model of ``depth`` layers.

        Numbers that are not set follow the paper's shares; ``free_layers`` takes what the others leave.

        Raises
        ------
        UsageError:
            When the numbers do not add up to ``depth``.

        """
        usual = default_schedule(depth)
        segment = usual.segment if self.segment_layers is None else self.segment_layers
        local = usual.local if self.local_layers is None else self.local_layers
        free = depth - segment - local if self.free_layers is None else self.free_layers
        if self.free_layers is None and free < 0:
            raise UsageError(
                f"segment_layers={segment} and local_layers={local} are {segment + local} layers, but the model has "
                f"{depth}."
            )
        if free + segment + local != depth:
            raise UsageError(
                f"free_layers={free}, segment_layers={segment} and local_layers={local} add up to "
                f"{free + segment + local}, but the model has {depth} layers."
            )
        return Schedule(free, segment, local, self.local_radius)

    def step(self, window: int) -> int:
        """Return the stride of windows of ``window`` pixels."""
        return self.stride if self.stride is not None else max(1, round(window * (1 - self.overlap)))

    def as_dict(self) -> dict[str, Any]:
        """Return all knobs as plain values, for provenance."""
        return asdict(self)


LABEL_KNOBS = frozenset(
    {
        "taper",
        "logit_scale",
        "subtract_cls",
        "vote_segments",
        "reduction",
        "softmax_over",
        "threshold",
        "use_thresholds",
        "min_area",
    }
)
"""Settings that act after the image side: changing them takes no second look at a pixel."""

POLYGON_KNOBS = frozenset({"simplify", "keep_background", "vector"})
"""Settings that act after the class raster."""


PRESETS: Mapping[str, Mapping[str, Any]] = {
    "default": {},
    "paper": {
        "segments": "sam",
        "sam_mode": "exact",
        "overlap": 0.0,
        "edge": "overhang",
        "fill": "black",
        "taper": False,
        "logit_scale": 1.0,
        "reduction": "max",
        "softmax_over": "prompts",
        "use_thresholds": False,
    },
}


def resolve_settings(
    given: Mapping[str, Any] | None = None,
    *,
    preset: str = "default",
    file: str | Path | None = None,
    attention: Mapping[str, Any] | None = None,
) -> Settings:
    """Combine options, settings file, class file's attention section, preset and defaults.

    Parameters
    ----------
    given:
        Options of the user; None values count as not given.
    preset:
        ``default`` or ``paper``.
    file:
        YAML file with any fields of :class:`Settings`.
    attention:
        Layer counts from the reference's own configuration, with the field names of :class:`Settings`.

    Raises
    ------
    UsageError:
        For unknown names, values of a wrong kind, and combinations that cannot be run.

    """
    _choice("--preset", preset, tuple(PRESETS))
    values: dict[str, Any] = dict(PRESETS[preset])
    values.update(attention or {})
    values.update(_read(Path(file)) if file is not None else {})
    chosen = {key: value for key, value in (given or {}).items() if value is not None}
    if {"stride", "overlap"} <= chosen.keys():
        raise UsageError("--stride and --overlap say the same in two ways; give one of them.")
    if "overlap" in chosen:
        values.pop("stride", None)  # an option goes before a stride from the settings file
    values.update(chosen)
    return Settings(**values)


def _read(path: Path) -> dict[str, Any]:
    """Read a settings file; lists become tuples."""
    try:
        loaded = yaml.safe_load(path.read_bytes())  # UTF-8, or the UTF-16 of PowerShell
    except FileNotFoundError as error:
        raise UsageError(f"--settings {path}: no such file.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--settings {path} cannot be read as text; expected lines such as 'stride: 64'.") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark is not None else ""
        raise UsageError(f"--settings {path}{where}: this is not valid YAML.") from error
    if loaded is None:
        return {}
    if not isinstance(loaded, dict):
        raise UsageError(f"--settings {path} holds a {type(loaded).__name__}; expected lines such as 'stride: 64'.")
    names = [field.name for field in fields(Settings)]
    for key in loaded:
        if key not in names:
            near = difflib.get_close_matches(str(key), names, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(names)}."
            raise UsageError(f"--settings {path}: there is no setting {key!r}; {hint}")
    for key in ("vector", "superpixel_area"):
        if isinstance(loaded.get(key), str | int):
            loaded[key] = [loaded[key]]
    return {key: tuple(value) if isinstance(value, list) else value for key, value in loaded.items()}


def _sam_levels(table: Any) -> tuple[SamLevel, ...]:
    """Check a level table: rows of numbers by name, as they stand in a settings file, or levels themselves."""
    names = [field.name for field in fields(SamLevel)]
    if not isinstance(table, list | tuple) or not table:
        raise UsageError(f"sam_levels is {table!r}; expected a list with one mapping of {', '.join(names)} a level.")
    levels = []
    for row in table:
        if isinstance(row, SamLevel):
            row = asdict(row)
        if not isinstance(row, Mapping) or set(row) != set(names):
            raise UsageError(f"sam_levels has the row {row!r}; expected a mapping of {', '.join(names)}.")
        for name in ("pred_iou_thresh", "stability_score_thresh"):
            _number(f"sam_levels: {name}", row[name], least=0, most=1)
        levels.append(SamLevel(**row))
    return tuple(levels)


def _choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise UsageError(f"{name} is {value!r}; expected {', '.join(choices[:-1])} or {choices[-1]}.")


def _number(name: str, value: object, *, least: float, most: float | None = None, whole: bool = False) -> None:
    if value is None:
        return
    kind = "a whole number" if whole else "a number"
    span = f"of {least:g} or more" if most is None else f"from {least:g} to {most:g}"
    if most is None and 0 < least < 1e-3:
        span = "above 0"
    right = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
    if not right or not (least <= value <= (most if most is not None else float("inf"))):  # type: ignore[operator]
        raise UsageError(f"{name} is {value!r}; expected {kind} {span}.")
