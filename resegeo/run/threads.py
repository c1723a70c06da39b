"""Work for several threads: results in order, in bounded memory, and no thread of BLAS beside them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import TypeVar

from threadpoolctl import threadpool_limits

T = TypeVar("T")
R = TypeVar("R")


def one_thread_each() -> AbstractContextManager[object]:
    """Keep BLAS from starting threads for the small products of every block: they would wait for one another."""
    return threadpool_limits(limits=1, user_api="blas")  # type: ignore[no-any-return]


def in_order(function: Callable[[T], R], arguments: Iterable[T], workers: int) -> Iterator[R]:
    """Map over arguments with threads, in order, and with few results waiting: memory stays bounded."""
    with ThreadPoolExecutor(max_workers=workers) as pool:
        waiting: deque[Future[R]] = deque()
        try:
            for argument in arguments:
                waiting.append(pool.submit(function, argument))
                if len(waiting) > 2 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
