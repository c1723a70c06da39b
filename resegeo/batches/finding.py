"""The places of many finished stores that fit words, or examples, best: one ranking over all of them.

Stores are looked at one after another; of all that was seen only the best so far are held, so that ten thousand stores
take the memory of one.
"""

from __future__ import annotations

import csv
import heapq
import io
import itertools
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from resegeo.checkpoints.sources import ModelSource
from resegeo.classes.class_file import class_list
from resegeo.classes.class_list import ClassList
from resegeo.clip.blending import Grouping
from resegeo.clip.encoder import Encoder
from resegeo.clip.fitting import Examples, choose, with_prevalence
from resegeo.clip.tokens import check_prompts
from resegeo.errors import InputNotice, ResegeoError, UsageError, escaped, notice, shown
from resegeo.files import whole, writable_folder
from resegeo.progress import Progress, silent
from resegeo.run.clicks import Drawn, is_fitted, on_scene, read_drawn, refuse_one_class
from resegeo.run.compute import Models
from resegeo.run.correction import read_fitted
from resegeo.run.example_features import Words, counts, gather_with_scene
from resegeo.run.options import Method
from resegeo.run.searching import Place, Score, cosine, opened_scene, places_of, probability
from resegeo.run.store import Store
from resegeo.run.store_place import is_store
from resegeo.run.stored import model_of_store
from resegeo.settings import Settings

MOST = 100_000
"""Places that can be asked for."""


@dataclass(frozen=True)
class Ranking:
    """What a search came to."""

    places: tuple[Place, ...]
    """The best first."""
    stores: int
    """How many were looked at."""

    def table(self) -> str:
        """Return the places as CSV."""
        text = io.StringIO()
        rows = csv.writer(text, lineterminator="\n")
        rows.writerow(("rank", "score", "scene", "row", "col", "x", "y", "store"))
        for rank, place in enumerate(self.places, start=1):
            where = ("", "") if place.at is None else (f"{place.at[0]:.10g}", f"{place.at[1]:.10g}")
            rows.writerow((rank, f"{place.score:.4f}", place.scene, place.row, place.col, *where, place.store))
        return text.getvalue()


class Best:
    """The best of all that was seen: never more of them than were asked for."""

    def __init__(self, count: int) -> None:
        """Keep ``count``."""
        self._count, self._seen = count, itertools.count()
        self._heap: list[tuple[float, int, Place]] = []

    def least(self) -> float:
        """Return what a further one has to exceed."""
        return self._heap[0][0] if len(self._heap) == self._count else -np.inf

    def add(self, place: Place) -> None:
        """Take one, if it is among the best so far; of equal ones those seen first."""
        entry = (place.score, -next(self._seen), place)
        if len(self._heap) < self._count:
            heapq.heappush(self._heap, entry)
        elif entry[:2] > self._heap[0][:2]:
            heapq.heapreplace(self._heap, entry)

    def sorted(self) -> tuple[Place, ...]:
        """Return them, the best first."""
        return tuple(entry[2] for entry in sorted(self._heap, key=lambda entry: entry[:2], reverse=True))


def stores_below(places: Iterable[str | Path]) -> Iterator[str]:
    """Yield the stores that are named, or that lie below folders that are named, in the order of their paths.

    Raises
    ------
    ResegeoError:
        When a place is neither.

    """
    for place in places:
        if is_store(str(place)):
            yield str(place).rstrip("/")
            continue
        if not Path(place).is_dir():
            raise ResegeoError(
                f"{shown(place)} is neither a folder nor a .store.zarr; name what `resegeo segment` wrote."
            )
        for folder, below, _ in os.walk(place):
            stores = sorted(name for name in below if is_store(name))
            below[:] = sorted(set(below) - set(stores))
            yield from (str(Path(folder) / name) for name in stores)


def find(
    places: str | Path | Sequence[str | Path],
    words: str,
    count: int = 50,
    output: str | Path | None = None,
    *,
    examples: str | Path | None = None,
    field: str | None = None,
    model: str | None = None,
    arch: str | None = None,
    activation: Literal["quickgelu", "gelu"] | None = None,
    overwrite: bool = False,
    progress: Progress = silent,
) -> Ranking:
    """Find the places of finished stores that fit words best: what ``resegeo find`` does.

    Parameters
    ----------
    places:
        Stores, or folders that are searched for ``….store.zarr``.
    words:
        What is looked for, as a prompt; with ``examples`` that one of their classes.
    count:
        How many places are kept.
    output:
        GeoPackage for them, with rank and score.
    examples:
        Vector file of points, lines or polygons, some of the class and some of others, in any of the stores' scenes; or
        the ``.fitted.safetensors`` of a run that has the class.
    field:
        Field of the examples that names the class.
    model, arch, activation:
        The model of the stores, as for :func:`resegeo.segment`, where it is not the bundled one.
    overwrite:
        Whether ``output`` may be replaced.
    progress:
        See :class:`resegeo.run.options.RunOptions`.

    Raises
    ------
    ResegeoError:
        With one sentence that says what is wrong and how to mend it.

    """
    listed = [places] if isinstance(places, str | Path) else list(places)
    if not 1 <= count <= MOST:
        raise UsageError(f"[[count={count}]]: expected 1 to {MOST:,} places.")
    if not words.strip() or escaped(words) != words:
        raise UsageError(f'{shown(repr(words))} are no words to look for; expected some such as "swimming pool".')
    if examples is None and field is not None:
        raise UsageError("[[field]] names a field of the examples; give them by [[examples]].")
    target = None if output is None else _target(Path(output), overwrite=overwrite)
    search = _Search(" ".join(words.split()), Method(model=model, arch=arch, activation=activation))
    if examples is not None:
        if is_fitted(examples):
            search.take(Path(examples))
        else:
            search.fit(read_drawn(str(examples), field, class_list([search.words])), stores_below(listed))
    found = search.over(stores_below(listed), Best(count), progress)
    if not found.stores:
        raise ResegeoError(
            f"There is no .store.zarr below {shown(', '.join(map(str, listed)), 200)}; name a folder that holds some."
        )
    said = ", ".join(f"{number:,} {why}" for why, number in search.left_out.items())
    if search.left_out.total() == found.stores:
        raise ResegeoError(f"No store can be searched: of {found.stores:,} there are {said}.")
    if said:
        notice(f"Left out of {found.stores:,} stores: {said}.", InputNotice)
    if target is not None:
        write_places(found, target)
    return found


def _target(output: Path, *, overwrite: bool) -> Path:
    if output.suffix.lower() != ".gpkg":
        raise UsageError(f"[[output={shown(output)}]]: places go into a GeoPackage; its suffix is .gpkg.")
    if os.path.lexists(output) and not overwrite:
        raise ResegeoError(f"{shown(output)} exists; pass [[overwrite=True]] to replace it, or name another file.")
    return output


@dataclass
class _Search:
    """What is looked for, and the model that the stores have in common."""

    words: str
    method: Method
    left_out: Counter[str] = field(default_factory=Counter)
    """Stores that could not be searched, by reason."""
    _models: Models = field(default_factory=Models)
    _source: ModelSource | None = None
    _encoder: Encoder | None = None
    _score: Score | None = None
    _file: Any = None

    def take(self, path: Path) -> None:
        """Look for a class of a file of fitted vectors."""
        self._file = read_fitted(path)
        self._index(self._file.classes, self._file.what)

    def fit(self, drawn: Drawn, stores: Iterator[str]) -> None:
        """Fit examples on the features of all stores in whose scenes they lie."""
        parts: list[Examples] = []
        samples: list[Examples] = []
        for url in stores:
            store = self._open(url, note=False)
            if store is None:
                continue
            scene, canvas, grid = opened_scene(store)
            if scene.georeference.kind in ("gcps", "rpcs"):
                continue
            places, spread, _, _ = on_scene(drawn, scene, None)
            if len(places):
                taper = bool(store.header.settings.get("taper", True))
                words = self._words_of(drawn.classes, {})
                own, sample, _ = gather_with_scene(store, canvas, grid, places, spread, words, taper=taper)
                parts.append(own)
                samples.append(sample)
        label = np.concatenate([each.label for each in parts]) if parts else np.zeros(0, dtype=np.int64)
        found = counts(label, tuple(spec.name for spec in drawn.classes.classes))
        if drawn.classes.classes[0].name not in found:
            listed = shown(", ".join(found), 200) or "none in these scenes"
            raise ResegeoError(
                f"{drawn.what} has no example of {shown(self.words)} in these scenes; it has {listed}. Look for one of "
                "its classes."
            )
        refuse_one_class(found, drawn.what)
        fitted, _ = choose(with_prevalence(_joined(parts), _joined(samples)))
        self._score = probability(self._words_of(drawn.classes, {}), fitted, 0)

    def over(self, stores: Iterator[str], best: Best, progress: Progress) -> Ranking:
        """Search stores, one after another."""
        number = 0
        for number, url in enumerate(stores, start=1):
            store = self._open(url, note=True)
            if store is not None:
                try:
                    for place in places_of(store, self._scoring(), best.least):
                        best.add(place)
                except ResegeoError:
                    self.left_out["damaged"] += 1
            progress("stores", number, number)
        return Ranking(best.sorted(), number)

    def _open(self, url: str, *, note: bool) -> Store | None:
        """Open a store that can be searched; the first one settles the model."""
        why, store = "", None
        try:
            store = Store.open(url)
        except ResegeoError:
            why = "damaged"
        if store is None:
            why = why or "damaged"
        elif not store.header.finished:
            why = "unfinished"
        elif not store.header.features:
            why = "with scores of words and no features"
        elif self._source is None:
            self._source = model_of_store(url, store.header, self.method)
            check_prompts(class_list([self.words]), self._source)
        elif store.header.image["model"]["sha256"] != self._source.sha256:
            why = "of another model than the first"
        if why and note:
            self.left_out[why] += 1
        return None if why else store

    def _index(self, classes: ClassList, what: str) -> int:
        names = [spec.name.casefold() for spec in classes.classes]
        if self.words.casefold() not in names:
            listed = ", ".join(spec.name for spec in classes.classes)
            raise ResegeoError(
                f"{what} knows no class {shown(self.words)}; it has {shown(listed, 200)}. Look for one of these."
            )
        return names.index(self.words.casefold())

    def _loaded(self) -> Encoder:
        if self._encoder is None:
            assert self._source is not None
            self._encoder = self._models.encoder(self._source, device=None, precision="float32")
        return self._encoder

    def _words_of(self, classes: ClassList, said: dict[str, Any]) -> Words:
        """Return what the words of a class list say by the knobs ``said``, those not said being the usual ones."""
        settings = Settings(**{name: value for name, value in said.items() if value is not None})
        encoder = self._loaded()
        return Words(
            self._models.texts(encoder, classes.prompt_texts),
            Grouping.of(classes, settings.reduction, settings.softmax_over),
            encoder.logit_scale if settings.logit_scale is None else settings.logit_scale,
            settings.subtract_cls,
        )

    def _scoring(self) -> Score:
        """Settle how patches are scored, once the model is known."""
        if self._score is None and self._file is not None:
            assert self._source is not None
            self._file.refuse_other_model(self._source)
            index = self._index(self._file.classes, self._file.what)
            words = self._words_of(self._file.classes, dict(self._file.words))
            self._score = probability(words, self._file.fitted, index)
        elif self._score is None:
            self._score = cosine(self._models.texts(self._loaded(), ((self.words,),))[0])
        return self._score


def _joined(parts: Sequence[Examples]) -> Examples:
    """Join the examples of several scenes."""
    places = np.cumsum([0, *(len(each.label) for each in parts)])
    blocks = np.cumsum([0, *(int(each.block.max(initial=0)) + 1 for each in parts)])

    def all_of(name: str, first: NDArray[np.int64] | None = None) -> NDArray[Any]:
        arrays = [getattr(each, name) for each in parts]
        return np.concatenate([each + (0 if first is None else first[n]) for n, each in enumerate(arrays)])

    return Examples(
        all_of("features"),
        all_of("words"),
        all_of("place", places),
        all_of("share"),
        all_of("label"),
        parts[0].wordless,
        all_of("block", blocks),
    )


def write_places(found: Ranking, path: Path) -> None:
    """Write places as a GeoPackage: in their CRS where it is one, else in longitude and latitude.

    Raises
    ------
    ResegeoError:
        When the file can't be written.

    """
    import geopandas as gpd
    import pyogrio

    systems = {place.crs for place in found.places if place.outline is not None}
    common = next(iter(systems)) if len(systems) == 1 else "EPSG:4326"
    shapes = [
        None
        if place.outline is None or (len(systems) > 1 and place.crs is None)
        else gpd.GeoSeries([place.outline], crs=place.crs).to_crs(common).iloc[0]
        if len(systems) > 1
        else place.outline
        for place in found.places
    ]
    frame = gpd.GeoDataFrame(
        {
            "rank": np.arange(1, len(shapes) + 1),
            "score": [round(place.score, 4) for place in found.places],
            "scene": [place.scene for place in found.places],
            "store": [place.store for place in found.places],
        },
        geometry=np.array(shapes, dtype=object),
        crs=common,
    )
    try:
        with writable_folder(path.parent), whole(path) as beside:
            pyogrio.write_dataframe(frame, beside, driver="GPKG", layer=path.stem, promote_to_multi=True)
    except (OSError, pyogrio.errors.DataSourceError, pyogrio.errors.FeatureError) as error:
        raise ResegeoError(
            f"{shown(path)} could not be written ({error}). Check free space and permissions."
        ) from error
