"""Every knob of the method in one validated, frozen value; presets set several at once.

Precedence: options given by the user, then the settings file, then the preset, then the defaults.
Presets set knobs of the method, never the model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from resegeo.declare import declared, option, said, settled, unknown
from resegeo.documents import read_yaml
from resegeo.errors import UsageError, escaped
from resegeo.segments.sam_levels import PAPER_LEVELS, SamLevel
from resegeo.units import area_in_pixels, length_in_pixels

if TYPE_CHECKING:
    from resegeo.clip.attention import LastLayer, Schedule

Format = Literal["gpkg", "shp", "geojson", "fgb", "parquet", "kml"]

Term = Literal["qk", "qq", "kk", "vv"]

SUFFIXES: Mapping[str, str] = {name: f".{name}" for name in get_args(Format)}
"""Suffix of each polygon format."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The knobs of a run. Lengths are in pixels that the model sees: the scene's own, unless ``gsd`` is set."""

    gsd: float | None = option(
        None,
        "Ground size of a pixel as the model sees it, in metres or as 20cm: larger shows more context, smaller more "
        "detail.  [default: the scene's own]",
        "Scene",
        metavar="LENGTH",
        least=1e-6,
        metres=True,
    )
    """Ground sample distance in metres at which the model sees the scene; None: the scene's own pixels."""
    resize: int | None = option(
        None,
        "Pixels of the scene's longer side as the model sees it, its shape kept; labels stay at the scene's own "
        "pixels.  [default: the scene's own]",
        "Scene",
        metavar="PIXELS",
        least=1,
        later=True,
    )
    """Pixels of the longer side at which the model sees the scene, as published configurations of data sets say it
    instead of a ``gsd``; None: the scene's own."""
    segments: str = option(
        "superpixels",
        "What borders follow: superpixels, sam, none, a label raster, or a file of polygons such as parcels (a second "
        "file after a comma is the next level).  "
        "[default: what the model's card says, none for the bundled one; else superpixels]",
        "Segments",
        metavar="WHAT",
        expected="superpixels, sam, none, or a file",
        file=True,
    )
    """Segment source: superpixels, sam, none, or the path of a label raster or of polygons."""
    superpixel_area: tuple[int, ...] | None = option(
        None,
        "Mean area of superpixels in pixels, one number a level: smaller ones follow finer borders.  "
        "[default: 16 patches]",
        "Segments",
        metavar="AREAS",
        least=4,
        example="256,1024",
    )
    """Mean area of a superpixel, one number a level; None: 16 patches."""
    superpixel_scale: Literal["full", "half"] = option(
        "full",
        "Superpixels of the image at its full size, or at half of it: three times as fast, borders to two pixels.  "
        "[default: full]",
        "Segments",
        later=True,
    )
    """Superpixels of the image at its ``full`` size, or at ``half`` of it and enlarged again."""
    sam_mode: Literal["tile", "exact"] = option(
        "tile",
        "How SAM finds segments: tile, one pass over each 1024 pixels, or exact, the paper's passes over every window, "
        "which takes far longer.  [default: tile]",
        "Segments",
    )
    """Segments from SAM: one pass over each ``tile`` of the scene, or ``exact``, the paper's, for each window."""
    sam_levels: tuple[SamLevel, ...] = PAPER_LEVELS
    """Level table of SAM's mask generator, the first level the finest. A table: no option of the command line."""
    stride: int | None = option(
        None,
        "Pixels from one window of the model to the next: fewer give smoother labels and take longer.  "
        "[default: half a window]",
        "Method",
        metavar="PIXELS",
        least=1,
    )
    """Step of the windows in pixels; None: what ``overlap`` leaves of a window."""
    overlap: float = option(
        0.5,
        "The same as the share that neighbouring windows have in common.  [default: 0.5]",
        "Method",
        metavar="SHARE",
        least=0,
        most=0.95,
    )
    """Share of a window that it has in common with the next; ``stride`` goes before it."""
    free_layers: int | None = option(
        None,
        "Layers of the model in which a patch sees its whole window.  [default: the paper's share]",
        "Method",
        metavar="N",
        least=0,
    )
    """Unrestricted layers; None: the paper's share of the model's depth, like the next two."""
    segment_layers: int | None = option(
        None,
        "Layers of the model in which a patch sees its own segment alone.  [default: the paper's share]",
        "Method",
        metavar="N",
        least=0,
    )
    local_layers: int | None = option(
        None,
        "Layers of the model in which a patch sees its close neighbours alone.  [default: the paper's share]",
        "Method",
        metavar="N",
        least=0,
    )
    local_radius: int = option(
        0,
        "How many patches away those close neighbours may be.  [default: 0, itself]",
        "Method",
        metavar="PATCHES",
        least=0,
    )
    """Chebyshev distance in patches that a local layer reaches; 0 is the patch alone."""
    self_self: bool = option(
        False,
        "The same as [[last_attention=qq,kk,vv]] without residual and MLP: often sharpens borders.",
        "Method",
    )
    """Short for the last layer of SegEarth-OV."""
    last_attention: tuple[Term, ...] = option(
        ("qk",),
        "What patches are compared by in the last layer: qk as trained; or qq, kk, vv or several of them, which often "
        "sharpens borders.  [default: qk]",
        "Method",
        metavar="TERMS",
        example="qq,kk,vv",
        later=True,
    )
    """Terms of the last layer's attention under its own mask, see :class:`resegeo.clip.attention.LastLayer`."""
    last_residual: bool = option(
        True, "Whether the last layer adds its attention to what it was given.  [default: on]", "Method", later=True
    )
    """Whether the last layer keeps its residual (ClearCLIP and SegEarth-OV leave it out)."""
    last_mlp: bool = option(
        True, "Whether the last layer's MLP follows its attention.  [default: on]", "Method", later=True
    )
    """Whether the last layer keeps its MLP (ClearCLIP and SegEarth-OV leave it out)."""
    edge: Literal["clamp", "overhang"] = option(
        "clamp",
        "Where a scene ends: clamp moves the last window back inside, overhang lets it reach beyond.  [default: clamp]",
        "Method",
    )
    """Last window of a row: ``clamp`` inside the scene, or let it ``overhang``."""
    fill: Literal["mean", "black"] = option(
        "mean",
        "What the model sees in place of nodata: the mean colour it was trained with, or black.  [default: mean]",
        "Method",
    )
    """Colour of padding and invalid pixels: the model's ``mean``, or ``black``."""
    taper: bool = option(
        True,
        "Let a window's middle count more than its border where windows overlap, against seams.  [default: on]",
        "Method",
        affects="labels",
    )
    """Weigh the middle of a window more than its border where windows overlap."""
    logit_scale: float | None = option(
        None,
        "How decided probabilities are: a larger factor brings them closer to 0 and 1.  [default: the model's]",
        "Method",
        affects="labels",
        metavar="X",
        least=1e-6,
    )
    """Factor of the cosines before the softmax; None: the model's own."""
    interpolate: Literal["features", "scores"] = option(
        "features",
        "What is interpolated between patches: features, then compared with words, or their scores.  "
        "[default: features]",
        "Method",
        affects="labels",
        later=True,
    )
    """Bilinear interpolation from patches to pixels: of ``features``, whose cosines follow, or of the patches' cosines
    (``scores``), as SCLIP and ClearCLIP do."""
    average: Literal["probabilities", "logits"] = option(
        "probabilities",
        "What overlapping windows are averaged as: probabilities, or logits before the softmax.  "
        "[default: probabilities]",
        "Method",
        affects="labels",
        later=True,
    )
    """What is averaged over the windows that cover a pixel: ``probabilities``, or the prompts' ``logits`` (SCLIP,
    ClearCLIP, SegEarth-OV). Votes of segments are votes of windows, whichever it says."""
    subtract_cls: float = option(
        0.0,
        "Take away X times what the whole window looks like, so that small things stand out.  [default: 0]",
        "Method",
        affects="labels",
        metavar="X",
        least=0,
        most=10,
    )
    """λ: scores are cosines less λ times those of the window's CLS token (SegEarth-OV takes 0.3); 0: none."""
    vote_segments: bool = option(
        False, "Let the pixels of a segment vote on one class together, for even areas.", "Method", affects="labels"
    )
    """Label voting: in each window the pixels of a segment of the finest level share their votes (CorrCLIP)."""
    reduction: Literal["max", "mean", "logsumexp"] = option(
        "max",
        "How a class of several prompts gets its score: of the best, the mean, or a soft maximum.  [default: max]",
        "Method",
        affects="labels",
    )
    """How a class takes its score from its prompts: max, mean or logsumexp."""
    softmax_over: Literal["classes", "prompts"] = option(
        "classes",
        "Probabilities over classes, whatever the number of words, or over prompts as published.  [default: classes]",
        "Method",
        affects="labels",
    )
    """``classes``: prompts become classes as logits, then one softmax over classes, so that probabilities do not depend
    on the number of words; ``prompts``: a softmax over prompts first, the published order."""
    templates: Literal["file", "openai"] = option(
        "file",
        "Sentences that prompts are put into: the class file's, or OpenAI's 80.  [default: the class file's]",
        "Method",
        affects="labels",
        later=True,
    )
    """Templates of the prompts: those of the class ``file``, or OpenAI's list of 80. A class file's own go before a
    preset's."""
    threshold: float | None = option(
        None,
        "Probability from 0 to 1 below which a pixel becomes background.",
        "Method",
        affects="labels",
        metavar="P",
        least=0,
        most=1,
    )
    """Class probability below which a pixel is background; None: the class file's, or none."""
    use_thresholds: bool = option(
        True, "Whether thresholds apply, those of the class file included.  [default: on]", "Method", affects="labels"
    )
    """Whether thresholds (above, and those of the class file) apply at all."""
    precision: Literal["auto", "float32", "bfloat16", "float16"] = option(
        "float32",
        "Arithmetic of the model: bfloat16 or float16 are faster on many GPUs, and a little less exact; auto takes "
        "bfloat16 where the machine is quick at it and the labels stay nearly the same.  [default: float32, whose "
        "results do not depend on the machine]",
        "Model",
    )
    """Arithmetic of the vision transformer: float32, bfloat16 or float16 (autocast); ``auto``: bfloat16 where the
    machine computes it by itself and labels of a sample of windows are those of float32 in 99.8 % of the pixels."""
    compile: bool = option(
        False, "Compile the model first (torch.compile): quicker on large scenes after a slow start.", "Model"
    )
    """Compile the vision transformer by torch.compile: quicker after a slow start."""
    feature_dtype: Literal["float16", "int8"] = option(
        "float16", "How exactly features are kept; int8 takes half the space.  [default: float16]", "Execution"
    )
    """What features are rounded to before scoring, kept or not: float16, or int8 at half the size."""
    min_area: int | str = option(
        0,
        "Smallest area to be mapped, as 50m2, 0.5ha or 20px: smaller ones join their largest neighbour, in raster and "
        "polygons.  [default: 0]",
        "Results",
        affects="labels",
        metavar="AREA",
        least=0,
        measure="area",
        expected="an area such as 50m2, 0.5ha or 20px",
    )
    """Minimum mapping unit in pixels, or on the ground as 50m2 or 0.5ha: smaller areas join their largest neighbour, in
    raster and polygons; 0: none."""
    simplify: float | str = option(
        0.0,
        "Simplify polygon borders by up to so much, as 1.5m or 1.5px; shared borders stay shared.  [default: 0, exact]",
        "Results",
        affects="polygons",
        metavar="LENGTH",
        least=0,
        measure="length",
        expected="a length such as 1.5m, 50cm or 1.5px",
    )
    """Tolerance of the simplification of polygon borders in pixels, or on the ground as 1.5m; 0: none."""
    smooth: bool = option(
        False,
        "Draw polygons with smooth outlines rather than along the edges of pixels; shared borders stay shared.",
        "Results",
        affects="polygons",
        later=True,
    )
    """Draw outlines as curves instead of the edges of pixels."""
    regularize: tuple[str, ...] = option(
        (),
        "Classes that get right-angled outlines too, such as building, in a layer of their own, since they do not keep "
        "to shared borders.",
        "Results",
        affects="polygons",
        metavar="NAMES",
        example="building",
        none=True,
        later=True,
    )
    """Names of classes that get right-angled outlines in a layer of their own."""
    keep_background: bool = option(False, "Draw background as polygons too.", "Results", affects="polygons")
    """Draw background as polygons too."""
    vector: tuple[Format, ...] = option(
        ("gpkg",),
        f"Polygon formats, comma-separated: {', '.join(get_args(Format))}, or none.  [default: gpkg]",
        "Results",
        affects="polygons",
        metavar="FORMATS",
        example="gpkg,geojson",
        none=True,
    )
    """Polygon formats to write."""

    def __post_init__(self) -> None:
        """Bring every value to its type; see :class:`UsageError`."""
        settled(self)
        object.__setattr__(self, "sam_levels", _sam_levels(self.sam_levels))
        # A sum has no order: the same terms are the same run.
        object.__setattr__(self, "last_attention", tuple(t for t in get_args(Term) if t in self.last_attention))
        if self.gsd is not None and self.resize is not None:
            raise UsageError("[[gsd]] and [[resize]] say the same in two ways; give one of them.")
        usual = (("qk",), True, True)
        if self.self_self and (self.last_attention, self.last_residual, self.last_mlp) != usual:
            raise UsageError(
                "[[self_self=True]] says all of the last layer; leave out [[last_attention]], [[last_residual]] and "
                "[[last_mlp]], or it."
            )

    def schedule(self, depth: int) -> Schedule:
        """Return the layer schedule for a model of ``depth`` layers.

        Numbers that are not set follow the paper's shares; ``free_layers`` takes what the others leave.

        Raises
        ------
        UsageError:
            When the numbers do not add up to ``depth``.

        """
        from resegeo.clip.attention import Schedule, default_schedule

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

    @property
    def last_layer(self) -> LastLayer:
        """How the last layer computes."""
        from resegeo.clip.attention import LastLayer

        if self.self_self:
            return LastLayer(("qq", "kk", "vv"), residual=False, mlp=False)
        return LastLayer(self.last_attention, self.last_residual, self.last_mlp)

    @property
    def padding_has_segments(self) -> bool:
        """Whether padding belongs to the segments that it is given, as in the paper's code, instead of to none."""
        return self.edge == "overhang" and self.fill == "black"

    def step(self, window: int) -> int:
        """Return the stride of windows of ``window`` pixels."""
        return self.stride if self.stride is not None else max(1, round(window * (1 - self.overlap)))

    def in_pixels(self, ground: tuple[float, float] | None) -> Settings:
        """Return these with lengths and areas in pixels, of which ``ground`` is height and width in metres.

        Raises
        ------
        UsageError:
            When one is on the ground and ``ground`` is None.

        """
        return replace(
            self,
            min_area=area_in_pixels(self.min_area, ground, "min_area"),
            simplify=length_in_pixels(self.simplify, ground, "simplify"),
        )

    def as_dict(self) -> dict[str, Any]:
        """Return all knobs as plain values, for provenance; of later ones those that are not at their default.

        Of a SAM level what is not the usual way with crops.
        """
        what = declared(type(self))
        usual = {each.name: each.default for each in fields(SamLevel) if each.default is not MISSING}
        levels = tuple(
            {name: value for name, value in asdict(level).items() if usual.get(name) != value}
            for level in self.sam_levels
        )
        return {
            name: levels if name == "sam_levels" else value
            for name, value in asdict(self).items()
            if name not in what or not what[name].about.later or value != what[name].default
        }


LABEL_KNOBS = frozenset(name for name, what in declared(Settings).items() if what.about.affects == "labels")
"""Settings that act after the image side: changing them takes no second look at a pixel."""

POLYGON_KNOBS = frozenset(name for name, what in declared(Settings).items() if what.about.affects == "polygons")
"""Settings that act after the class raster."""

Preset = Literal["default", "paper", "plain", "maskclip", "sclip", "clearclip", "segearth"]

_TRAINING_FREE: Mapping[str, Any] = {
    "segments": "none",
    "segment_layers": 0,
    "local_layers": 0,
    "overlap": 0.5,
    "taper": False,
    "interpolate": "scores",
    "average": "logits",
    "reduction": "max",
    "softmax_over": "prompts",
    "templates": "openai",
}
"""What published evaluations without segments share: windows in steps of a half, scores interpolated, logits averaged,
a softmax over prompts of which a class takes the best, OpenAI's templates."""

PRESETS: Mapping[Preset, Mapping[str, Any]] = {
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
    # CLIP as it was trained, patch by patch: Radford et al., ICML 2021, the baseline of all below.
    "plain": {**_TRAINING_FREE},
    # Zhou, Loy and Dai, ECCV 2022: in the last layer each patch keeps its own value.
    "maskclip": {**_TRAINING_FREE, "local_layers": 1, "local_radius": 0},
    # Wang, Mei and Yuille, ECCV 2024: correlative self-attention.
    "sclip": {**_TRAINING_FREE, "last_attention": ("qq", "kk"), "logit_scale": 40.0},
    # Lan et al., ECCV 2024.
    "clearclip": {
        **_TRAINING_FREE,
        "last_attention": ("qq",),
        "last_residual": False,
        "last_mlp": False,
        "logit_scale": 50.0,
    },
    # Li et al., CVPR 2025, without the learned upsampler SimFeatUp.
    "segearth": {
        **_TRAINING_FREE,
        "last_attention": ("qq", "kk", "vv"),
        "last_residual": False,
        "last_mlp": False,
        "subtract_cls": 0.3,
        "logit_scale": 50.0,
    },
}
"""Knobs by the name under which they were published. Thresholds, words and sizes are a data set's and no preset's."""


_NEEDING_SEGMENTS = ("superpixel_area", "superpixel_scale", "vote_segments")


def resolve_settings(
    given: Mapping[str, Any] | None = None,
    *,
    preset: Preset = "default",
    file: str | Path | None = None,
    of_classes: Mapping[str, Any] | None = None,
    segments: str | None = None,
) -> Settings:
    """Combine options, settings file, what the class file says, preset and defaults.

    Parameters
    ----------
    given:
        Options of the user; None values count as not given.
    preset:
        One of :data:`PRESETS`.
    file:
        YAML file with any fields of :class:`Settings`.
    of_classes:
        What a class file says of the method, with the field names of :class:`Settings`.
    segments:
        What suits the model, where nothing else says which segments; options that need some imply superpixels.

    Raises
    ------
    UsageError:
        For unknown names, values of a wrong kind, and combinations that cannot be run.

    """
    values: dict[str, Any] = dict(PRESETS[preset])
    values.update(of_classes or {})
    values.update(_read(Path(file)) if file is not None else {})
    chosen = {key: value for key, value in (given or {}).items() if value is not None}
    if {"stride", "overlap"} <= chosen.keys():
        raise UsageError("[[stride]] and [[overlap]] say the same in two ways; give one of them.")
    if "overlap" in chosen:
        values.pop("stride", None)  # an option goes before a stride from the settings file
    for one, other in (("gsd", "resize"), ("resize", "gsd")):
        if one in chosen and other not in chosen:
            values.pop(other, None)
    values.update(chosen)
    if segments is not None and not any(values.get(name) for name in _NEEDING_SEGMENTS):
        values.setdefault("segments", segments)
    return Settings(**values)


def _read(path: Path) -> dict[str, Any]:
    """Read a settings file."""
    where, expected = f"[[settings={escaped(path)}]]", "lines such as 'stride: 64'"
    loaded = read_yaml(path, where, expected=expected, error=UsageError)
    if loaded is None:
        return {}
    if not isinstance(loaded, dict):
        raise UsageError(f"{where} holds a {type(loaded).__name__}; expected {expected}.")
    names = [field.name for field in fields(Settings)]
    for key in loaded:
        if key not in names:
            raise UsageError(f"{where}: {unknown('setting', key, names)}")
    return loaded


def _sam_levels(table: Any) -> tuple[SamLevel, ...]:
    """Check a level table: rows of numbers by name, as they stand in a settings file, or levels themselves."""
    names = [field.name for field in fields(SamLevel) if field.default is MISSING]
    known = {field.name for field in fields(SamLevel)}
    if not isinstance(table, list | tuple) or not table:
        raise UsageError(
            f"sam_levels is {said(table)}; expected a list with one mapping of {', '.join(names)} a level."
        )
    levels = []
    for row in table:
        if isinstance(row, SamLevel):
            row = asdict(row)
        if not isinstance(row, Mapping) or not set(names) <= set(row) <= known:
            raise UsageError(f"sam_levels has the row {said(row)}; expected a mapping of {', '.join(names)}.")
        for name in ("pred_iou_thresh", "stability_score_thresh"):
            _number(f"sam_levels: {name}", row[name])
        levels.append(SamLevel(**row))
    return tuple(levels)


def _number(name: str, value: object) -> None:
    right = isinstance(value, int | float) and not isinstance(value, bool)
    if not right or not 0 <= value <= 1:  # type: ignore[operator]
        raise UsageError(f"{name} is {said(value)}; expected a number from 0 to 1.")
