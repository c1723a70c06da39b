"""All that a user may ask of a run, declared once and sorted by what it is for.

How to look, by what method, who computes, what is kept. A new option is a field here (or, for a knob of the method, in
:class:`resegeo.settings.Settings`): Python's signatures, the flags of the command line, settings files, the columns of
manifests and what a batch remembers all follow from it.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from functools import cache, wraps
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, Self, TypeVar

from resegeo.declare import Declared, declared, option, settled, taken, unknown
from resegeo.errors import UsageError, spelled
from resegeo.progress import Progress, silent
from resegeo.settings import Preset, Settings

if TYPE_CHECKING:
    from resegeo.scene.reader import Stretch

P = ParamSpec("P")
F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, kw_only=True)
class View:
    """How a scene is looked at."""

    bands: Sequence[int] | None = option(
        None,
        "Bands for red, green, blue, counted from 1, such as 4,3,2.",
        "Scene",
        metavar="R,G,B",
        example="4,3,2",
        count=3,
    )
    stretch: Sequence[float] | Stretch | None = option(
        None,
        "Values that become 0 and 255.  [default: 2nd to 98th percentile; uint8 as it is]",
        "Scene",
        metavar="LOW:HIGH",
        example="200:3000",
        separator=":",
        count=2,
    )
    assign_crs: str | None = option(
        None, "CRS for a scene that has none, such as EPSG:32633.", "Scene", metavar="CRS", example="EPSG:32633"
    )
    aoi: str | Path | None = option(
        None,
        "Vector file with polygons, in any CRS: outside is nodata.",
        "Scene",
        metavar="FILE",
        file=True,
        expected="a file with polygons",
    )
    bbox: Sequence[float] | None = option(
        None,
        "Left, bottom, right, top in the scene's CRS: outside is nodata.",
        "Scene",
        metavar="L,B,R,T",
        example="500000,5190000,501000,5191000",
        count=4,
    )
    alpha: Literal["auto", "ignore", "use"] | None = option(
        None,
        "What a band called alpha means: ignore where it is infrared.  [default: auto, use with a notice]",
        "Scene",
    )
    name: str | None = option(
        None,
        "What the results are called.  [default: as the scene's file]",
        "Results",
        affects="store",
        example="tile_7",
        expected="a plain name for files, such as tile_7",
    )
    formats: Sequence[str] | None = option(
        None,
        "GDAL's file formats that are trusted though they may read other files or hosts, such as VRT,netCDF.",
        "Scene",
        metavar="NAMES",
        affects="nothing",
        example="VRT,netCDF",
    )

    def __post_init__(self) -> None:
        """Bring every value to its type; see :class:`UsageError`."""
        settled(self)


@dataclass(frozen=True, kw_only=True)
class ModelChoice:
    """By which model, and where the knobs of the method come from."""

    model: str | None = option(
        None,
        "A name of `resegeo models list`, a checkpoint file or folder, an open_clip tag such as "
        "ViT-B-32:laion2b_s34b_b79k, or compose:FILE.  [default: bundled]",
        "Model",
        file=True,
        expected="a name, a checkpoint or compose:FILE",
    )
    arch: str | None = option(
        None,
        "open_clip architecture of a file that does not tell it, such as ViT-L-14-quickgelu.",
        "Model",
        example="ViT-L-14-quickgelu",
    )
    activation: Literal["quickgelu", "gelu"] | None = option(
        None,
        "Activation of a checkpoint file that does not tell: quickgelu for OpenAI's CLIP and its fine-tunes.",
        "Model",
    )
    sam_checkpoint: str | Path | None = option(
        None,
        "SAM's weights, for [[segments=sam]]: sam-vit-b or a file.",
        "Segments",
        metavar="NAME|FILE",
        file=True,
        expected="a name or a checkpoint",
    )
    sam_arch: Literal["vit_h", "vit_l", "vit_b"] | None = option(
        None, "Size of SAM where its file does not tell.  [default: the file's]", "Segments"
    )
    preset: Preset = option(
        "default",
        "Several options at once. default: the model's own segments, windows that overlap by half, smooth borders. "
        "paper: the published method, which takes SAM's segments ([[sam_checkpoint]]), windows side by side and "
        "probabilities over prompts. Others, all without segments: plain: CLIP as trained. maskclip: MaskCLIP "
        "(ECCV 2022). sclip: SCLIP (ECCV 2024). clearclip: ClearCLIP (ECCV 2024). segearth: SegEarth-OV (CVPR 2025) "
        "without its upsampler.  [default: default]",
        "Method",
    )
    settings: str | Path | None = option(
        None,
        "YAML file with any knob of the method; options go before it.",
        "Method",
        metavar="FILE",
        file=True,
        expected="a YAML file",
    )

    def __post_init__(self) -> None:
        """Bring every value to its type; see :class:`UsageError`."""
        settled(self)


@dataclass(frozen=True, kw_only=True)
class Method(ModelChoice):
    """By which model and how."""

    knobs: Mapping[str, Any] = field(default_factory=dict)
    """Fields of :class:`resegeo.settings.Settings` that were given."""


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Who computes and what is kept: nothing that the results depend on."""

    device: str | None = option(
        None,
        "Where the model computes: cpu, cuda (NVIDIA) or mps (Apple).  [default: the best there is]",
        "Model",
        affects="nothing",
        expected="cpu, cuda or mps",
    )
    threads: int | None = option(
        None, "How many CPU threads compute.  [default: all cores]", "Model", affects="nothing", least=1
    )
    overwrite: bool = option(
        False, "Replace the results of a run with other options.", "Results", affects="nothing", off=False
    )
    replace_edited: bool = option(
        False,
        "Let [[overwrite=True]] replace files too that were changed since they were written.",
        "Results",
        affects="nothing",
        off=False,
    )
    append: str | Path | None = option(
        None,
        "GeoPackage that collects the polygons of many scenes in one layer, by its field scene: this one's are added.",
        "Results",
        affects="nothing",
        metavar="FILE",
        expected="a .gpkg",
    )
    keep_features: bool | None = option(
        None,
        "Keep what the model saw, so that other words need no new pass over the image.  [default: below 2 GB]",
        "Execution",
        affects="store",
    )
    """None: where they take less than :data:`resegeo.run.plan.FEATURE_BUDGET` bytes."""
    discard_store: bool = option(
        False,
        "Remove the store, which lets other words be tried in seconds, at the end.",
        "Execution",
        affects="store",
        off=False,
    )
    cluster: Any = option(
        None,
        "Local worker processes, auto (one a GPU, where there are several), or a dask scheduler such as "
        "tcp://10.0.0.5:8786.",
        "Execution",
        affects="nothing",
        metavar="N|auto|ADDRESS",
    )
    """Number of local worker processes, ``auto``, the address of a ``distributed`` scheduler, or an open client; None:
    here."""
    read_ahead: int | None = option(
        None,
        "Work items that are read, by several threads, while the model is busy.  [default: as cores and memory allow]",
        "Execution",
        affects="nothing",
        metavar="N",
        least=0,
    )
    """Work items that are read while the model is busy with another; None: see :class:`resegeo.run.pipeline.Room`."""
    progress: Progress = option(silent, affects="nothing")
    """Called with stage, steps done, steps in all."""
    models: Any = option(None, affects="nothing")
    """A :class:`resegeo.run.compute.Models`: models that are loaded already, and keep those that are not."""

    def __post_init__(self) -> None:
        """Bring every value to its type; see :class:`UsageError`."""
        settled(self)


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What is written, and where the store goes."""

    only: Sequence[str] = option(
        (),
        "Write this class alone, all others become background; may be repeated.",
        "Results",
        affects="labels",
        metavar="CLASS",
        example="water,forest",
        none=True,
        repeated=True,
    )
    merge: Sequence[str] | None = option(
        None,
        'Show classes as one, such as "grass,trees=green"; may be repeated. none: not even those that the class file '
        "merges.",
        "Results",
        affects="labels",
        metavar="NAMES=NAME",
        example="grass,trees=green",
        separator=";",
        none=True,
        repeated=True,
    )
    colors: str | Path | None = option(
        None,
        "Class file whose colours go before those of the classes, by name.",
        "Results",
        affects="labels",
        metavar="FILE",
        file=True,
        expected="a class file",
    )
    crop: bool = option(
        False,
        "Cut raster, polygons and picture to the rectangle around [[aoi]] or [[bbox]].",
        "Results",
        affects="labels",
        off=False,
    )
    examples: str | Path | None = option(
        None,
        "Points, lines or polygons whose field names a class, or the .fitted.safetensors of such a run: they correct "
        "the words.",
        "Results",
        affects="labels",
        metavar="FILE",
        file=True,
        expected="a vector file or a .fitted.safetensors",
    )
    field: str | None = option(
        None,
        "Field of the examples that names the class.  [default: class, class_name or class_id]",
        "Results",
        affects="labels",
        metavar="NAME",
        example="class",
    )
    scores: bool = option(
        False,
        "Write .scores.tif, a band a class, and .confidence.tif: best and second class, score, margin.",
        "Results",
        affects="labels",
        off=False,
    )
    store: str | None = option(
        None,
        "Folder or URL (s3://...) for the store.  [default: that of the results]",
        "Execution",
        affects="nothing",
        metavar="DIR",
        expected="a folder or a URL",
    )

    def __post_init__(self) -> None:
        """Bring every value to its type; see :class:`UsageError`."""
        settled(self)


_PARTS = (View, ModelChoice, Settings, RunOptions, Kept)


@dataclass(frozen=True, kw_only=True)
class Keywords(View, ModelChoice, Settings, RunOptions, Kept):
    """All that :func:`resegeo.segment` takes by keyword: what its signature is made of."""


OPTIONS: Mapping[str, Declared] = {name: what for part in _PARTS for name, what in declared(part).items()}
"""Every option by name. ``sam_levels``, a table, is one of settings files and of Python alone."""

SCENE_OPTIONS: tuple[str, ...] = (
    "prompts",
    *(name for name, what in declared(View).items() if what.about.affects != "nothing"),
    *declared(ModelChoice),
    *(each.name for each in fields(Settings)),
    "only",
    "examples",
    "field",
)
"""What a manifest may say of a scene: its columns. None says which formats are trusted: it may come from anybody."""


@dataclass(frozen=True)
class Options:
    """What was given of :class:`Keywords`, sorted by what it is for."""

    view: View
    method: Method
    run: RunOptions
    only: Sequence[str] = ()
    store: str | None = None
    kept: Kept = Kept()

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Self:
        """Sort keywords and bring them to their types; None counts as not given.

        Raises
        ------
        UsageError:
            When there is no such option, or a value is none of its option, in the words of a settings file.

        """
        known = [*OPTIONS, "sam_levels"]
        for name in given:
            if name not in known:
                sentence = unknown("option", name, known)
                raise UsageError(sentence[0].upper() + sentence[1:], parameter=name)
        rest = {name: value for name, value in given.items() if value is not None}

        def part(kind: type) -> dict[str, Any]:
            return {name: rest.pop(name) for name in declared(kind) if name in rest}

        kept = Kept(**part(Kept))
        knobs = {each.name: rest.pop(each.name) for each in fields(Settings) if each.name in rest}
        knobs = {name: taken(OPTIONS[name], value) if name in OPTIONS else value for name, value in knobs.items()}
        return cls(
            View(**part(View)),
            Method(**part(ModelChoice), knobs=knobs),
            RunOptions(**part(RunOptions)),
            kept.only,
            kept.store,
            kept,
        )

    def facts(self) -> dict[str, Any]:
        """Return all that results and store depend on, beside pixels, words, model and knobs, as plain values.

        Model and knobs are what :func:`resegeo.run.prepare.choose` makes of them. A file is named with its size and
        time.
        """
        values: dict[str, Any] = {name: getattr(self.kept, name) for name in declared(Kept)} | {"only": self.only}
        for part in (self.view, self.run):
            values |= {name: getattr(part, name) for name in declared(type(part))}
        return {
            name: stamp(value) if OPTIONS[name].about.file and value is not None else value
            for name, value in values.items()
            if OPTIONS[name].about.affects != "nothing"
        }


def stamp(path: str | Path) -> list[Any]:
    """Return path, size and time of a file, by which a change is told; the path alone where there is none."""
    try:
        stat = Path(path).stat()
    except (OSError, ValueError):
        return [str(path)]
    return [str(path), stat.st_size, stat.st_mtime_ns]


@cache
def _keywords() -> list[Parameter]:
    """Return the parameters that :class:`Keywords` stands for."""
    found = []
    for part in _PARTS:
        for each in fields(part):
            default = Parameter.empty if each.default is MISSING else each.default
            found.append(Parameter(each.name, Parameter.KEYWORD_ONLY, default=default, annotation=each.type))
    return found


def _listed(own: Container[str]) -> str:
    """Return a paragraph for the docstring of a function that takes them all, those of its ``own`` aside."""
    return "\n".join(
        f"    {name}:\n        {spelled(what.about.help)}"
        for name, what in OPTIONS.items()
        if what.about.help and name not in own
    )


def documented(function: F) -> F:
    """Give a function that takes ``**options`` the signature that stands for, and their list in its docstring."""

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    own = [p for p in signature(function).parameters.values() if p.kind is not Parameter.VAR_KEYWORD]
    names = {p.name for p in own}
    others = (p for p in _keywords() if p.name not in names)
    call.__signature__ = Signature([*own, *others])  # type: ignore[attr-defined]
    call.__doc__ = (function.__doc__ or "").replace("    **options:", f"{_listed(names)}\n    **options:", 1)
    return call  # type: ignore[return-value]
