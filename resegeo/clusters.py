"""Who computes beside this process: local workers, or those of a scheduler that runs already."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

from resegeo.errors import ResegeoError, UsageError

CONNECT = "20s"
"""How long a scheduler is waited for."""


def local_workers(cluster: Any) -> int | None:
    """Return how many local workers ``--cluster`` asks for; None where it is an address or an open client."""
    if not isinstance(cluster, int) and not (isinstance(cluster, str) and cluster.isascii() and cluster.isdigit()):
        return None
    if int(cluster) < 1:
        raise UsageError("--cluster 0: expected at least one worker, or an address such as tcp://10.0.0.5:8786.")
    return int(cluster)


@contextlib.contextmanager
def connect(cluster: Any) -> Iterator[Any]:
    """Connect to a scheduler, or start local workers; a client that is open already is used and left open."""
    workers = local_workers(cluster)
    if workers is None and not isinstance(cluster, str):
        yield cluster
        return
    import dask
    from distributed import Client, LocalCluster

    # It tells of every connection, and of those that close at the end as if they had broken.
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    if workers is not None:
        # dask has workers give memory back at once, which makes glibc map every large tensor anew: a third of the time.
        with (
            dask.config.set({"distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": None}),
            LocalCluster(  # type: ignore[no-untyped-call]
                n_workers=workers, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=40
            ) as local,
            Client(local) as client,  # type: ignore[no-untyped-call]
        ):
            yield client
        return
    try:
        client = Client(cluster, timeout=CONNECT)  # type: ignore[no-untyped-call]
    except (OSError, ValueError, TimeoutError) as error:
        raise ResegeoError(
            f"--cluster {cluster}: no scheduler answers there. Expected a number of local workers, or an address such "
            "as tcp://10.0.0.5:8786."
        ) from error
    with client:
        yield client
