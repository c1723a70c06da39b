"""What a store says of itself, typed, and the arrays that follow from it: the one place that knows its layout.

A store may have been passed on by a stranger: nothing of its header is used before :meth:`StoreHeader.read` has seen
that every value is of its type and within bounds, that names are plain, and that sizes agree with each other.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from resegeo.clip.scores import EXTRA
from resegeo.errors import UsageError, shown
from resegeo.scene import windows
from resegeo.settings import resolve_settings

FORMAT = 3
"""Version of the layout; a store of another one cannot be gone on with."""

HEADER_BYTES = 64 * 2**20
"""A header is mostly ground control points and prompts; none comes near this size."""

UNWRITTEN = 255
"""What an array of a byte a pixel holds until it is written."""

MARK_BYTES = 256
CHECKSUM_BYTES = 4

PRECISIONS = ("float32", "bfloat16", "float16")
"""What a model can compute in."""

_SIZE = 2**31
_TEXT = 4096
_LIST = 100_000
_ID = re.compile(r"[0-9a-f]{32}")
_IMAGE = ("scene", "scene_files", "bands", "crs", "stretch", "segment_files", "sam", "region", "settings", "schedule")


@dataclass(frozen=True)
class ArraySpec:
    """Shape, chunks and dtype of an array; every chunk carries a checksum of its bytes."""

    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    dtype: str
    compressed: bool = True
    fill: int = 0

    @property
    def count(self) -> int:
        """Number of chunks."""
        return math.prod(-(-size // chunk) for size, chunk in zip(self.shape, self.chunks, strict=True))

    @property
    def bytes(self) -> int:
        """Bytes of all chunks with their checksums, at most; what pads them beyond the array is compressed away."""
        size, one = np.dtype(self.dtype).itemsize, math.prod(self.chunks)
        if self.compressed:
            return math.prod(self.shape) * size + self.count * (one * size // 1000 + 64)
        return self.count * (one * size + CHECKSUM_BYTES)


@dataclass(frozen=True)
class Layout:
    """Sizes that the arrays of a store follow from."""

    items: int
    windows: int
    """Windows of a full item: one at the scene's border takes as much."""
    grid: int
    """Patches along one side of a window."""
    side: int
    """Pixels along one side of a window."""
    dimension: int
    """Numbers of a feature."""
    dtype: str
    """float16 or int8, of features."""
    prompts: int | None
    """How many prompts' scores are kept; None: features are."""
    segments: bool
    """Whether segment ids are kept, for label voting."""
    height: int
    """Of the scene, in pixels, like the next."""
    width: int

    def item_arrays(self) -> dict[str, ArraySpec]:
        """Say what work items leave behind: a chunk an item in each array."""
        grid, count = self.grid, self.prompts
        if count is None:
            arrays = {"features": ((grid, grid, self.dimension), self.dtype), "cls": ((self.dimension,), "float16")}
            if self.dtype == "int8":
                arrays["factor"] = ((grid, grid), "float16")
        else:
            arrays = {"reduced": ((count + EXTRA, grid, grid), "float32"), "cls": ((count,), "float32")}
        if self.segments:
            arrays["segments"] = ((self.side, self.side), "uint16")
        return {
            name: ArraySpec(
                (self.items, self.windows, *shape), (1, self.windows, *shape), dtype, compressed=name == "segments"
            )
            for name, (shape, dtype) in arrays.items()
        }

    def kept_array(self, name: str) -> ArraySpec:
        """Say how a further array is laid out: pictures, or a byte a pixel (``valid``, ``scores-…``)."""
        if name == "quicklook":
            shape = windows.look_shape(self.height, self.width)
            return ArraySpec(shape, shape, "uint8")
        if name == "colours":
            return ArraySpec((self.height, self.width, 3), (windows.BLOCK, windows.BLOCK, 3), "uint8")
        return ArraySpec((self.height, self.width), (windows.BLOCK, windows.BLOCK), "uint8", fill=UNWRITTEN)

    @property
    def item_bytes(self) -> int:
        """Bytes of what work items leave behind, before any compression."""
        return sum(spec.bytes for spec in self.item_arrays().values())

    def bytes(self, *, scores: bool) -> int:
        """Bytes of the whole store at most; ``scores``: with those of the pixels, which polygons take."""
        pixels = self.kept_array("valid").bytes
        look = self.kept_array("quicklook").bytes
        colours = self.kept_array("colours").bytes if self.prompts is None else 0
        return self.item_bytes + self.items * MARK_BYTES + look + colours + pixels * (2 if scores else 1)


@dataclass(frozen=True)
class Arithmetic:
    """What the model computes in, for all items of a store alike."""

    precision: str = "float32"
    """float32, bfloat16 or float16; ``auto`` only until it is settled, see :mod:`resegeo.run.arithmetic`."""
    agreement: float | None = None
    """Share of the pixels looked at whose labels were those of float32; None where nothing was compared."""

    def facts(self) -> dict[str, Any]:
        """Return what the report says of it."""
        compared = {} if self.agreement is None else {"agreement_with_float32": round(self.agreement, 6)}
        return {"precision": self.precision, **compared}


@dataclass(frozen=True)
class Kept:
    """What a store keeps of every window.

    It is settled when the store is made: a run that goes on with it may ask for fewer words, for the same ones in
    another order, or for no voting any more, and still has to add what the others of its windows left.
    """

    prompts: tuple[tuple[str, ...], ...] | None
    """Texts of each prompt whose scores are kept; None: the features are."""
    segments: bool
    """Whether segment ids are kept, for label voting."""
    arithmetic: Arithmetic = Arithmetic()
    """What they are computed in."""

    @property
    def features(self) -> bool:
        """Whether features are kept, which any words can be met with."""
        return self.prompts is None


@dataclass(frozen=True)
class StoredScene:
    """Everything of a scene but its pixels, as plain values."""

    name: str
    source: str
    height: int
    width: int
    count: int
    dtype: str
    bands: tuple[int, int, int]
    nodata: tuple[float | None, ...]
    stretch: tuple[tuple[float, ...], tuple[float, ...]] | None
    """Low and high values of the three bands."""
    fingerprint: str
    stamp: str | None
    crs: str | None
    """WKT, like ``gcps_crs``."""
    transform: tuple[float, ...] | None
    gcps: tuple[tuple[Any, ...], ...]
    """Row, column, x, y, z, id and info of each."""
    gcps_crs: str | None
    rpcs: Mapping[str, str] | None


@dataclass(frozen=True)
class StoredModel:
    """How the model was named: said to the user, and never opened."""

    path: str | None
    """None: the bundled one."""
    architecture: str | None
    activation: str | None


@dataclass(frozen=True)
class StoreHeader:
    """What a store says of itself."""

    image: Mapping[str, Any]
    """:meth:`resegeo.run.plan.Plan.image_options` of the run that made it."""
    settings: Mapping[str, Any]
    """Fields of :class:`resegeo.settings.Settings`."""
    prompts: tuple[tuple[str, ...], ...]
    """Texts of each prompt of the run that made it; scores are kept in this order."""
    layout: Layout
    model: StoredModel
    scene: StoredScene
    canvas: tuple[float, float]
    """Scene pixels that one of the canvas stands for, down and across."""
    finished: bool = False
    """Whether a run has ended with it."""
    suspect: bool = False
    """Whether damage was met, so that all items have to be looked at."""
    arithmetic: Arithmetic = Arithmetic()
    """What the model computed in."""
    id: str = field(default="")

    @property
    def features(self) -> bool:
        """Whether features are kept."""
        return self.layout.prompts is None

    @property
    def kept(self) -> Kept:
        """What is kept of every window."""
        return Kept(None if self.features else self.prompts, self.layout.segments, self.arithmetic)

    def document(self) -> dict[str, Any]:
        """Return plain values with their checksum, as they stand in the attributes of the Zarr group."""
        facts: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        identity = facts.pop("id")
        return {"format": FORMAT, "id": identity, "facts": facts, "sha256": _checksum(identity, facts)}

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Self:
        """Take what :meth:`document` returned, trusting none of it.

        Raises
        ------
        ValueError:
            With what does not fit, in a few words.

        """
        identity, facts = document.get("id"), document.get("facts")
        if not isinstance(identity, str) or _ID.fullmatch(identity) is None or not isinstance(facts, dict):
            raise ValueError("no id")
        if document.get("sha256") != _checksum(identity, facts):
            raise ValueError("its checksum does not fit")
        take = _Taker(facts)
        scene = _scene(take.part("scene"))
        settings = take.part("settings").values
        try:
            resolved = resolve_settings({**settings, "overlap": None})
        except (UsageError, TypeError, ValueError, AttributeError, KeyError) as error:
            raise ValueError(f"settings: {shown(error)}") from error
        prompts = tuple(
            tuple(_text(text, "prompts") for text in _list(texts, "prompts")) for texts in take.list("prompts")
        )
        layout = _layout(take.part("layout"), scene, resolved.feature_dtype, len(prompts))
        model = take.part("model")
        down, across = (_number(value, "canvas", finite=True) for value in take.list("canvas", 2))
        if not (down > 0 and across > 0):
            raise ValueError("canvas")
        return cls(
            image=_image(take.part("image"), scene),
            settings=settings,
            prompts=prompts,
            layout=layout,
            model=StoredModel(model.text("path"), model.text("architecture"), model.text("activation")),
            scene=scene,
            canvas=(down, across),
            finished=take.flag("finished"),
            suspect=take.flag("suspect"),
            arithmetic=_arithmetic(take, resolved.precision),
            id=identity,
        )

    def checked(self) -> Self:
        """Return itself as it would be read; raises what :meth:`read` raises, so that none is written that is not."""
        return replace(type(self).read(self.document()))


def _checksum(identity: str, facts: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps([identity, facts], sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class _Taker:
    """Takes values of a mapping by key, each of its type and within bounds."""

    values: Mapping[str, Any]

    def part(self, key: str) -> _Taker:
        value = self.values.get(key)
        if not isinstance(value, dict):
            raise ValueError(key)
        return _Taker(value)

    def list(self, key: str, count: int | None = None) -> list[Any]:
        return _list(self.values.get(key), key, count)

    def flag(self, key: str) -> bool:
        value = self.values.get(key)
        if not isinstance(value, bool):
            raise ValueError(key)
        return value

    def size(self, key: str, most: int = _SIZE) -> int:
        value = self.values.get(key)
        if type(value) is not int or not 1 <= value <= most:
            raise ValueError(key)
        return value

    def text(self, key: str, most: int = _TEXT) -> str | None:
        value = self.values.get(key)
        return None if value is None else _text(value, key, most)


def _list(value: Any, key: str, count: int | None = None) -> list[Any]:
    if not isinstance(value, list) or len(value) > _LIST or (count is not None and len(value) != count):
        raise ValueError(key)
    return value


def _text(value: Any, key: str, most: int = _TEXT) -> str:
    """Take a text of one line, without characters that a terminal obeys."""
    if not isinstance(value, str) or len(value) > most or any(unicodedata.category(sign) == "Cc" for sign in value):
        raise ValueError(key)
    return value


def _plain_name(value: Any, key: str) -> str:
    """Take the name of a file that lies in a folder, never another place."""
    name = _text(value, key, 255)
    if name in ("", ".", "..") or "/" in name or Path(name).name != name:
        raise ValueError(key)
    return name


def _number(value: Any, key: str, *, finite: bool = False) -> float:
    if type(value) not in (int, float) or (finite and not math.isfinite(value)):
        raise ValueError(key)
    return float(value)


def _numbers(values: Sequence[Any] | None, key: str, count: int) -> tuple[float, ...] | None:
    return None if values is None else tuple(_number(value, key, finite=True) for value in _list(values, key, count))


def _scene(take: _Taker) -> StoredScene:
    values = take.values
    height, width, count = take.size("height"), take.size("width"), take.size("count", 2**16)
    bands = tuple(_Taker({"bands": band}).size("bands", count) for band in take.list("bands", 3))
    stretch = values.get("stretch")
    if stretch is not None:
        low, high = (_numbers(part, "stretch", 3) or () for part in _list(stretch, "stretch", 2))
        stretch = (low, high)
    gcps = []
    for point in take.list("gcps"):
        *numbers, name, info = _list(point, "gcps", 7)
        gcps.append((*(None if n is None else _number(n, "gcps") for n in numbers), name, info))
        if not all(text is None or isinstance(text, str) for text in (name, info)):
            raise ValueError("gcps")
    rpcs = values.get("rpcs")
    if rpcs is not None:
        rpcs = {_text(key, "rpcs"): _text(value, "rpcs") for key, value in take.part("rpcs").values.items()}
    return StoredScene(
        name=_plain_name(values.get("name"), "scene name"),
        source=_text(values.get("source"), "source", 4 * _TEXT),
        height=height,
        width=width,
        count=count,
        dtype=_text(values.get("dtype"), "dtype", 40),
        bands=(bands[0], bands[1], bands[2]),
        nodata=tuple(None if value is None else _number(value, "nodata") for value in take.list("nodata")),
        stretch=stretch,
        fingerprint=_text(values.get("fingerprint"), "fingerprint", 200),
        stamp=take.text("stamp", 200),
        crs=_wkt(values.get("crs")),
        transform=_numbers(values.get("transform"), "transform", 6),
        gcps=tuple(gcps),
        gcps_crs=_wkt(values.get("gcps_crs")),
        rpcs=rpcs,
    )


def _wkt(value: Any) -> str | None:
    if value is not None and not (isinstance(value, str) and len(value) <= _LIST):
        raise ValueError("crs")
    return value


def _layout(take: _Taker, scene: StoredScene, dtype: str, prompts: int) -> Layout:
    """Take the sizes, which must be those of scene, settings and prompts."""
    found = Layout(
        items=take.size("items"),
        windows=take.size("windows", 10_000),
        grid=take.size("grid", 1024),
        side=take.size("side", 2**14),
        dimension=take.size("dimension", 2**16),
        dtype=_text(take.values.get("dtype"), "layout", 40),
        prompts=None if take.values.get("prompts") is None else take.size("prompts", _LIST),
        segments=take.flag("segments"),
        height=take.size("height"),
        width=take.size("width"),
    )
    agree = (found.height, found.width, found.dtype) == (scene.height, scene.width, dtype)
    if not agree or found.prompts not in (None, prompts) or found.side < found.grid:
        raise ValueError("layout")
    return found


def _arithmetic(take: _Taker, precision: str) -> Arithmetic:
    """Take what the model computed in, which is what the settings say, or what ``auto`` came to."""
    if "arithmetic" not in take.values and precision != "auto":  # of a store that is older than the question
        return Arithmetic(precision)
    part = take.part("arithmetic")
    found, agreement = part.text("precision", 40), part.values.get("agreement")
    if found not in PRECISIONS or precision not in ("auto", found):
        raise ValueError("arithmetic")
    if agreement is not None and not 0 <= _number(agreement, "arithmetic", finite=True) <= 1:
        raise ValueError("arithmetic")
    return Arithmetic(found, agreement)


def _image(take: _Taker, scene: StoredScene) -> Mapping[str, Any]:
    """Take the identity of the image side, which must be the scene's."""
    values, model = take.values, take.part("model")
    if values.keys() != {*_IMAGE, "model"} or len(json.dumps(values)) > HEADER_BYTES:
        raise ValueError("image")
    for key in ("name", "architecture", "sha256"):
        _text(model.values.get(key), "model", 255)
    model.text("activation")
    take.part("settings").size("stride")
    if (values["scene"], values["scene_files"], values["bands"]) != (scene.fingerprint, scene.stamp, [*scene.bands]):
        raise ValueError("image")
    return values
