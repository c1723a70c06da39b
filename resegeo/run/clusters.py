"""Who computes beside this process: local workers, or those of a scheduler that runs already."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from resegeo.errors import ResegeoError, UsageError, notice
from resegeo.process import UNGUARDED, hushed, restored, unguarded
from resegeo.run.capacity import cores

CONNECT = "20s"
"""How long a scheduler is waited for."""

PATIENCE = 10.0
"""Seconds without a worker after which the user is told; whoever starts some need not hurry."""

_DEAF = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"
"""Run by local workers at their start: a terminal sends Ctrl-C to them too, and it is for this process to end them."""

AUTO = "auto"
"""Stands for one local worker a GPU, where there are several."""

STREAMS = 2
"""Stretches of items that a worker with a GPU has in hand: one begins while the other ends, so the GPU never waits."""

_FRUGAL: Mapping[str, Any] = {
    # dask has workers give memory back at once, which makes glibc map every large tensor anew: a third of the time.
    "distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": None,
    # What follows looks at stacks, clocks and memory many times a second, for a dashboard that is not there: that takes
    # a tenth of a core, and the workers have none to spare.
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "2s",
    "distributed.admin.system-monitor.interval": "2s",
    "distributed.worker.memory.monitor-interval": "1s",
}
"""Settings of dask for local workers."""

Future = Any


@dataclass(frozen=True)
class Share:
    """How a machine's devices and cores are shared out to local workers."""

    workers: int
    threads: int
    """CPU threads of each."""


def shared_out(gpus: int, cores: int) -> Share | None:
    """Share a machine out: one worker a GPU, the cores in equal parts; None with fewer than two GPUs.

    One process keeps a single GPU busy, and two on it would only take each other's memory; without any, the model
    computes on all cores of one process as well as in several.
    """
    return None if gpus < 2 else Share(gpus, max(1, cores // gpus))


def share_of(cluster: Any) -> Share | None:
    """Share this machine out where ``cluster`` says ``auto``; None where it does not, or one process is enough."""
    if cluster != AUTO:
        return None
    from torch import cuda

    return shared_out(cuda.device_count(), cores())


def local_workers(cluster: Any) -> int | None:
    """Return how many local workers ``cluster`` asks for; None where it is an address or an open client.

    Raises
    ------
    UsageError:
        When it is neither a number above 0 nor an address.

    """
    if not isinstance(cluster, int | str):
        return None
    if cluster == AUTO:
        share = share_of(cluster)
        return 1 if share is None else share.workers
    if isinstance(cluster, int) or (cluster.isascii() and cluster.isdigit()):
        if int(cluster) < 1:
            raise UsageError(
                f"[[cluster={cluster}]]: expected at least one worker, or an address such as tcp://10.0.0.5:8786."
            )
        return int(cluster)
    if re.fullmatch(r"(\w+://)?[^\s:/]+:\d+/?|\w+://\S+", cluster) is None:
        raise UsageError(
            f"[[cluster={cluster!r}]] is neither a number of local workers, nor auto, nor the address of a scheduler "
            "such as tcp://10.0.0.5:8786."
        )
    return None


@contextlib.contextmanager
def connect(cluster: Any) -> Iterator[Any]:
    """Connect to a scheduler, or start local workers; a client that is open already is used and left open.

    None stands for no workers: this process does as well alone.

    Raises
    ------
    ResegeoError:
        When no scheduler answers.

    """
    workers, share = local_workers(cluster), share_of(cluster)
    if cluster == AUTO and share is None:
        yield None
        return
    if workers is None and not isinstance(cluster, str):
        yield cluster
        return
    import dask
    from distributed import Client, LocalCluster

    if workers is not None and unguarded():
        raise ResegeoError(UNGUARDED)
    # Its loggers tell of every connection, and of those that close at the end as if they had broken.
    if workers is not None:
        with (
            hushed("distributed"),
            restored(),
            dask.config.set(dict(_FRUGAL)),
            LocalCluster(  # type: ignore[no-untyped-call]
                n_workers=workers,
                threads_per_worker=1 if share is None else STREAMS,
                processes=True,
                dashboard_address=None,
                silence_logs=40,
                preload=_DEAF,
            ) as local,
            Client(local) as client,  # type: ignore[no-untyped-call]
        ):
            yield client
        return
    try:
        client = Client(cluster, timeout=CONNECT)  # type: ignore[no-untyped-call]
    except (OSError, ValueError, TimeoutError) as error:
        raise ResegeoError(
            f"[[cluster={cluster}]]: no scheduler answers there. Expected a number of local workers, or an address "
            "such "
            "as tcp://10.0.0.5:8786."
        ) from error
    with hushed("distributed"), client:
        yield client


def workers_of(client: Any) -> Mapping[str, Mapping[str, Any]]:
    """Return what the scheduler says of each worker, by address.

    Raises
    ------
    ResegeoError:
        When the scheduler is gone.

    """
    try:
        found: Mapping[str, Mapping[str, Any]] = client.scheduler_info(n_workers=-1)["workers"]
    except (KeyError, OSError, TimeoutError) as error:
        raise _gone() from error
    return found


def finished(client: Any, alive: Mapping[Future, Any]) -> Iterator[Future]:
    """Yield futures of ``alive`` as they are ready, until the caller, who takes them out and may add others, has none.

    Raises
    ------
    ResegeoError:
        When the scheduler is gone.

    """
    from distributed import CancelledError, wait

    since, told = time.monotonic(), False
    while alive:
        try:
            ready = wait(list(alive), timeout=1.0, return_when="FIRST_COMPLETED").done  # type: ignore[no-untyped-call]
        except TimeoutError:
            if workers_of(client):
                since = time.monotonic()
            elif not told and time.monotonic() - since >= PATIENCE:
                told = True
                address = getattr(client.scheduler, "address", "the scheduler")
                notice(
                    f"No worker is connected to {address}; waiting for one. Ctrl-C ends this, what is done is kept.",
                )
            continue
        except CancelledError as error:  # of all that waits, when the connection is lost
            raise _gone() from error
        yield from ready


def _gone() -> ResegeoError:
    return ResegeoError("The scheduler of [[cluster]] is gone. What is done is kept; the same command continues.")
