"""One scene of a batch, segmented here or, as a whole, by a worker of a cluster.

A scene is the unit that workers share out where a batch has many: each does all stages of its own, so that none waits
for another. Where scenes are few or large, their work items are shared out instead (:mod:`resegeo.run.executors`).
"""

from __future__ import annotations

import contextlib
import math
import os
import pickle
import threading
import time
import warnings
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from rasterio.errors import RasterioError

from resegeo.errors import BusyError, ResegeoError, ResegeoWarning, shown
from resegeo.run.clusters import finished, workers_of
from resegeo.run.commands import segment
from resegeo.run.options import View
from resegeo.run.prepare import Classes
from resegeo.run.store_place import is_store
from resegeo.scene.formats import known_formats, open_raster

if TYPE_CHECKING:
    from resegeo.run.segmentation import Segmentation

_ONE = threading.Lock()
"""Held by a worker's thread while it has a scene: threads of one process would share torch's and Python's warnings."""

PATIENCE = 60.0
"""Seconds that a batch on a cluster waits for a scene which a worker has in hand: one that is ending, or that an
interrupted batch left at its last scene."""


@dataclass(frozen=True)
class Order:
    """A scene, and all that :func:`resegeo.segment` shall be told of it."""

    number: int
    """Its place in the batch."""
    scene: str
    classes: Classes
    folder: Path
    options: Mapping[str, Any]
    patience: float = 0.0
    """Seconds that the end of another run which has the scene in hand is waited for."""


@dataclass(frozen=True)
class Made:
    """What became of a scene."""

    result: Segmentation | None
    reason: str = ""
    """Why it failed, in one sentence."""
    error: ResegeoError | None = None
    hopeless: bool = False
    """Whether no other scene would fare better: the model could not be had."""
    large: bool = False
    """Whether a worker left the scene, as it is for all of them together."""
    notes: tuple[tuple[type[ResegeoWarning], str], ...] = ()
    """Warnings given on a worker."""


def segmented(order: Order) -> Made:
    """Segment a scene; whatever befalls it is told, not raised."""
    models = order.options["models"]
    try:
        made = _when_free(order)
    except ResegeoError as error:
        return Made(None, str(error), error, hopeless=error is models.failure)
    except UnicodeError:
        return Made(None, "Its path is not UTF-8; rename the file or its folder.")
    except OSError as error:
        return Made(None, f"{shown(error, 200)}. Check the path, free space and permissions.")
    except MemoryError:
        return Made(None, "Out of memory. A smaller scene or model needs less.")
    except Exception as error:  # whatever befalls one scene spares the next
        return Made(None, f"This is a defect of resegeo or of this machine ({type(error).__name__}: {error}).")
    if made.failed:
        return Made(None, f"{made.failed} windows or blocks failed, see {made.report}; the rest is written.")
    return Made(made)


def _when_free(order: Order) -> Segmentation:
    until = time.monotonic() + order.patience
    while True:
        try:
            return segment(order.scene, order.classes, order.folder, **order.options)
        except BusyError:
            if time.monotonic() >= until:
                raise
            time.sleep(0.5)


def spread(client: Any, orders: Iterable[Order], *, largest: int) -> Generator[tuple[Order, Made], None, None]:
    """Have the workers of a ``distributed.Client`` segment whole scenes; yields each as it is ready.

    Scenes of more than ``largest`` pixels are left, and come back as such. A scene that takes several workers with it
    is told as failed.
    """
    coming = iter(orders)
    alive: dict[Any, Order] = {}

    def more() -> None:
        # Two a worker in flight: one in hand and one that waits; the scheduler's memory does not grow with the batch.
        room = 2 * max(1, len(workers_of(client)))
        while len(alive) < room and (order := next(coming, None)) is not None:
            sent = pickle.dumps((order, Path.cwd(), largest))
            alive[client.submit(_on_worker, sent, pure=False, retries=0)] = order

    try:
        more()
        for future in finished(client, alive):
            order = alive.pop(future)
            error = future.exception()
            if error is not None:
                made = Made(None, f"The workers failed at it ({type(error).__name__}: {error}).")
            else:
                made = _seen_from_here(future.result())
            yield order, made
            more()
    finally:
        if alive:  # interrupted: the workers may be somebody's for long, and would go on
            with contextlib.suppress(Exception):  # the scheduler may be what is gone
                client.cancel(list(alive))


def _seen_from_here(made: Made) -> Made:
    """Check that what a worker wrote is where this process sees it."""
    missing = [path for path in made.result.files() if not path.exists()] if made.result is not None else []
    if not missing:
        return made
    return replace(made, result=None, reason=f"A worker wrote {missing[0]} where this process does not see it.")


def _on_worker(sent: bytes) -> Made:
    from distributed import get_worker

    from resegeo.run.executors import worker_device, worker_models

    order, folder, largest = pickle.loads(sent)
    options = {
        **order.options,
        "models": worker_models(),
        "device": worker_device(order.options.get("device")),
        "threads": order.options.get("threads") or get_worker().state.nthreads,
    }
    with _ONE, warnings.catch_warnings(record=True) as given:
        warnings.simplefilter("always", ResegeoWarning)
        if folder.is_dir() and Path.cwd() != folder:
            os.chdir(folder)  # paths count from where the command was given
        if _pixels(order.scene, order.options.get("formats")) > largest:
            return Made(None, large=True)
        made = segmented(replace(order, options=options))
    notes = {
        (note.category, str(cast(Warning, note.message).args[0])): None
        for note in given
        if issubclass(note.category, ResegeoWarning)
    }
    return replace(made, notes=tuple(notes))


def _pixels(scene: str, formats: Sequence[str] | str | None = None) -> float:
    """Size of a scene; 0 where it is a store, or cannot be opened, which its segmentation will tell."""
    with contextlib.suppress(RasterioError, ResegeoError, OSError, ValueError), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if not is_store(scene):
            with open_raster(scene, known_formats(View(formats=formats).formats)) as raster:
                return float(math.prod(raster.shape))
    return 0
