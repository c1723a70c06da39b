"""Many writers of one store: workers that have it open each for itself, on a disk and in object storage."""

from __future__ import annotations

import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from stores import header
from test_store_trust import put

from resegeo.run.store import Store

WRITERS, ITEMS = 24, 72


@pytest.fixture(autouse=True)
def impatient():
    """Let threads take turns far more often than usual."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(usual)


@pytest.mark.parametrize("place", ["{}/a.store.zarr", "memory://{}/a.store.zarr"], ids=["disk", "objects"])
def test_many_writers_lose_nothing_even_where_two_have_the_same_item(tmp_path, place):
    url = place.format(tmp_path)
    Store.create(url, header(ITEMS))
    begin = threading.Barrier(WRITERS)

    def write(writer: int) -> None:
        own = Store.open(url)
        assert own is not None
        begin.wait()
        for turn in range(ITEMS // WRITERS):
            put(own, turn * WRITERS + writer)
            put(own, turn * WRITERS + (writer + 1) % WRITERS)  # as one does that was thought lost
        if writer % 5 == 0:
            own.fail(writer, "it broke here, and was done elsewhere")
            put(own, writer)

    with ThreadPoolExecutor(WRITERS) as pool:
        list(pool.map(write, range(WRITERS)))
    found = Store.open(url)
    assert found is not None
    assert found.done() == set(range(ITEMS))
    assert found.failed() == {}
    assert found.counts() == (2 * ITEMS, ITEMS, 0)
    for index in range(ITEMS):
        kept = found.get(index)
        assert kept is not None
        assert kept.windows.tolist() == [True, False, True]
        assert all(np.array_equal(values, np.full_like(values, index + 1)) for values in kept.values.values())
