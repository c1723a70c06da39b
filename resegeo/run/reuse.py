"""The results of an equal run that lie there complete, as a run returns them."""

from __future__ import annotations

from resegeo.run.options import RunOptions
from resegeo.run.plan import Outputs
from resegeo.run.segmentation import Segmentation
from resegeo.run.standing import Standing
from resegeo.run.store import Store
from resegeo.run.store_removal import remove


def reused(found: Standing, outputs: Outputs, url: str, options: RunOptions) -> Segmentation:
    """Return the results of an equal run that lie there complete."""
    if options.discard_store and Store.open(url) is not None:
        remove(url)
    beside = tuple(path for path in (*outputs.beside, *outputs.companions) if path.name in found.known)
    return Segmentation(
        outputs.raster, found.vectors, outputs.picture, outputs.areas, outputs.report, reused=True, beside=beside
    )
