"""Borders of areas as rings of pixel corners, traced strip by strip and joined exactly at the seams.

A corner is a vertex of every area round it unless just two of them meet there along a straight line: so neighbours have
the same vertices. Areas lie on the left of their rings as seen with rows downwards. Where an area meets itself at a
corner its rings touch there and do not cross, so that each of them is simple. What is in memory at a time is a strip
and one number a vertex.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from resegeo.outputs.strips import Areas

_EAST, _SOUTH, _WEST, _NORTH = range(4)
_MEETING = np.array([bin(bits).count("1") >= 3 for bits in range(16)])
_STRAIGHT = np.array([0, 3, 12])
"""North and south, west and east, or no border at all."""


@dataclass(frozen=True)
class Batch:
    """Rings of some areas, each from its first corner in reading order on and not closed."""

    points: NDArray[np.int64]
    """(n, 2) corners as (x, y): columns and rows."""
    meeting: NDArray[np.bool_]
    """(n,) Whether three borders or more meet at a point."""
    ring_of: NDArray[np.int64]
    """(n,) Ring of each point, from 0."""
    area_of: NDArray[np.int64]
    """(rings,) Number of each ring's area, ascending; an area's first ring is its exterior."""
    begins: bool
    """Whether the first ring is an exterior: else its area began in a batch before."""
    ends: bool
    """Whether there are no more rings of the last area."""


@dataclass(frozen=True)
class Borders:
    """The rings of all areas, ordered by area and then by their first corner in reading order."""

    areas: Areas
    _keys: NDArray[np.int64]
    """Of every vertex of every piece: twice its corner's place in reading order, and 1 more where borders meet."""
    _piece_start: NDArray[np.int64]
    """Where a piece begins among the keys; one entry more than there are pieces."""
    _pieces: NDArray[np.int64]
    """Numbers of the pieces, ring by ring."""
    _ring_start: NDArray[np.int64]
    """Where a ring begins among these; one entry more than there are rings."""
    _area_of: NDArray[np.int64]
    """Area of every ring."""

    @classmethod
    def trace(cls, areas: Areas) -> Borders:
        """Trace the borders of areas."""
        seams = _Seams(areas.codes.width)
        every = np.empty(0, dtype=np.int64)
        lengths, owners = [], []
        above = np.zeros((1, areas.codes.width), dtype=np.int32)
        for top, _, numbers in areas.strips():
            last = top + len(numbers) == areas.codes.height
            below = [np.zeros_like(above)] if last else []
            found = _pieces(np.pad(np.concatenate([above, numbers, *below]), ((0, 0), (1, 1))), top)
            # Grown in place: nothing is there twice, and no parts are left that the system does not get back.
            count = len(every)
            every.resize(count + len(found.keys), refcheck=False)
            every[count:] = found.keys
            lengths.append(found.lengths)
            owners.append(found.owners)
            seams.join(found)
            above = numbers[-1:].copy()
        piece_start = np.concatenate([[0], np.cumsum(np.concatenate(lengths))])
        owner = np.concatenate(owners)
        order, counts = chains(seams.following())
        ring_start = np.concatenate([[0], np.cumsum(counts)])
        if not len(order):
            return cls(areas, every, piece_start, order, ring_start, owner)
        area_of = owner[order[ring_start[:-1]]]
        first = np.minimum.reduceat(np.minimum.reduceat(every, piece_start[:-1])[order], ring_start[:-1])
        rank = np.lexsort((first, area_of))
        return cls(
            areas,
            every,
            piece_start,
            order[_ranges(ring_start[rank], counts[rank])],
            np.concatenate([[0], np.cumsum(counts[rank])]),
            area_of[rank],
        )

    @property
    def vertices(self) -> int:
        """Number of vertices of all rings, none of them counted twice."""
        return len(self._keys)

    @property
    def rings(self) -> int:
        """Number of rings."""
        return len(self._area_of)

    def batches(self, vertices: int) -> Iterator[Batch]:
        """Go through areas in batches of about so many vertices.

        Each area as a whole, but for one that has more: its rings come in batches of their own.
        """
        lengths = np.diff(self._piece_start)[self._pieces]
        before = np.concatenate([[0], np.cumsum(lengths)])[self._ring_start]
        del lengths
        exterior = np.append(np.flatnonzero(np.diff(self._area_of, prepend=0)), self.rings)
        large = exterior[:-1][np.diff(before[exterior]) > vertices]
        start = 0
        while start < self.rings:
            limit = before[start] + vertices
            own = np.searchsorted(exterior, start, "right") - 1  # the place of the area that is begun or goes on
            last = int(exterior[own + 1])  # where it ends
            if exterior[own] != start or before[last] > limit:
                end = min(max(start + 1, int(np.searchsorted(before, limit, "right")) - 1), last)
                ends = end == last
            else:
                beyond = min(int(np.searchsorted(before, limit)), self.rings)
                end = int(exterior[np.searchsorted(exterior, beyond)])
                following = np.searchsorted(large, start)
                end, ends = min(end, int(large[following])) if following < len(large) else end, True
            yield self._batch(start, end, begins=bool(exterior[own] == start), ends=ends)
            start = end

    def _batch(self, start: int, end: int, *, begins: bool, ends: bool) -> Batch:
        low, high = self._ring_start[[start, end]]
        pieces = self._pieces[low:high]
        lengths = np.diff(self._piece_start)[pieces] if end - start > 10_000 else _lengths(self._piece_start, pieces)
        keys = self._keys[_ranges(self._piece_start[pieces], lengths)]
        counts = np.add.reduceat(lengths, self._ring_start[start:end] - low)
        begin = np.cumsum(counts) - counts
        ring_of = np.repeat(np.arange(end - start), counts)
        first = np.flatnonzero(keys == np.minimum.reduceat(keys, begin)[ring_of]) - begin
        step = np.arange(len(keys)) - begin[ring_of] + first[ring_of]
        keys = keys[begin[ring_of] + step % counts[ring_of]]
        y, x = np.divmod(keys >> 1, self.areas.codes.width + 1)
        meeting = (keys & 1).astype(bool)
        return Batch(np.stack([x, y], axis=1), meeting, ring_of, self._area_of[start:end], begins, ends)


def _lengths(starts: NDArray[np.int64], pieces: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.asarray(starts[pieces + 1] - starts[pieces])


def _ranges(starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """All numbers from each start on, as many as its length says, one range after the other."""
    before = np.cumsum(lengths) - lengths
    return np.repeat(starts - before, lengths) + np.arange(int(lengths.sum()))


@dataclass(frozen=True)
class _Pieces:
    """Rings of a strip, and parts of rings that go on beyond it."""

    keys: NDArray[np.int64]
    lengths: NDArray[np.int64]
    owners: NDArray[np.int64]
    open: NDArray[np.int64]
    """Numbers of the pieces that are parts."""
    head: NDArray[np.int64]
    """Of those: the column and the direction (south or north) in which their first vertex is reached."""
    tail: NDArray[np.int64]
    """And in which their last one is left; both (pieces, 2)."""


class _Seams:
    """Which piece goes on with which."""

    def __init__(self, width: int) -> None:
        self._left = np.full(width + 1, -1, dtype=np.int64)
        """By column: the piece that was left southwards last."""
        self._reached = np.full(width + 1, -1, dtype=np.int64)
        """By column: the piece whose first vertex is reached from below."""
        self._count = 0
        self._following: list[NDArray[np.int64]] = []
        self._pairs: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []

    def join(self, found: _Pieces) -> None:
        """Take the pieces of the next strip."""
        number = found.open + self._count
        from_above, to_above = found.head[:, 1] == _SOUTH, found.tail[:, 1] == _NORTH
        self._pairs.append((self._left[found.head[from_above, 0]], number[from_above]))
        self._pairs.append((number[to_above], self._reached[found.tail[to_above, 0]]))
        self._reached[found.head[~from_above, 0]] = number[~from_above]
        self._left[found.tail[~to_above, 0]] = number[~to_above]
        self._count += len(found.lengths)

    def following(self) -> NDArray[np.int64]:
        """Return the piece that follows on each, which for a closed ring is the ring itself."""
        following = np.arange(self._count)
        for before, after in self._pairs:
            following[before] = after
        return following


def _pieces(numbers: NDArray[np.int32], top: int) -> _Pieces:
    """Trace the borders at the corners between the pixels of a strip.

    Parameters
    ----------
    numbers:
        (rows + 1, width + 2) areas, from one row above the strip's first row of corners on, and a column on each side.
    top:
        Row of these first corners.

    """
    across, down = numbers[:, :-1] != numbers[:, 1:], numbers[:-1] != numbers[1:]
    bits = across[:-1].view(np.uint8) | across[1:].view(np.uint8) << 1
    bits |= down[:, :-1].view(np.uint8) << 2
    bits |= down[:, 1:].view(np.uint8) << 3
    del across, down
    bent = np.ones(16, dtype=bool)
    bent[_STRAIGHT] = False
    y, x = np.nonzero(bent[bits])
    bits = bits[y, x]
    count = len(x)
    keys = ((y + top) * np.int64(numbers.shape[1] - 1) + x) * 2 + _MEETING[bits]
    around = np.stack([numbers[y, x], numbers[y, x + 1], numbers[y + 1, x + 1], numbers[y + 1, x]])  # clockwise
    beside = _neighbours(x, bits)
    # A state is a vertex and the direction in which it is reached; the area lies on the left.
    states = np.full((4, count), -1, dtype=np.int64)
    valid = np.stack([(around[way] > 0) & (around[way] != around[way - 1]) for way in range(4)])
    states[valid] = np.arange(int(valid.sum()))
    way, vertex = np.nonzero(valid)
    own = around[way, vertex]
    right = around[(way + 2) % 4, vertex] == own
    left = around[(way + 1) % 4, vertex] != own
    onward = (way + np.where(right, 1, np.where(left, 3, 0))) % 4
    to = beside[onward, vertex]
    following = np.where(to < 0, -1, states[onward, to])
    order, lengths = chains(following)
    start = np.cumsum(lengths) - lengths
    first, last = order[start], order[start + lengths - 1]
    opened = np.flatnonzero(to[last] < 0)
    first, last = first[opened], last[opened]
    return _Pieces(
        keys[vertex[order]],
        lengths,
        own[order[start]].astype(np.int64),
        opened,
        np.stack([x[vertex[first]], way[first]], axis=1),
        np.stack([x[vertex[last]], onward[last]], axis=1),
    )


def _neighbours(x: NDArray[np.int64], bits: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Next vertex in each of the four directions, where a border goes there; -1 beyond the strip."""
    count = len(x)
    beside = np.full((4, count), -1, dtype=np.int64)
    # Vertices come in reading order: a border to the east ends at the next.
    beside[_EAST], beside[_WEST] = np.arange(count) + 1, np.arange(count) - 1
    column = np.argsort(x, kind="stable")
    one, two = column[:-1], column[1:]
    linked = (x[one] == x[two]) & (bits[one] & 2 > 0)
    beside[_SOUTH, one[linked]] = two[linked]
    beside[_NORTH, two[linked]] = one[linked]
    return beside


def chains(following: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Order nodes along the chains and cycles that they form.

    Parameters
    ----------
    following:
        (n,) the node that follows on each, none on two; -1 at the end of a chain.

    Returns
    -------
    The nodes, chain by chain, and the number of nodes of each chain. A cycle begins at its first node.

    """
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components, depth_first_order

    count = len(following)
    if not count:
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)

    def graph(links: NDArray[np.int64]) -> csr_array:
        there = links >= 0
        ends = np.concatenate([[0], np.cumsum(there)])
        return csr_array((np.ones(int(ends[-1])), links[there], ends), shape=(count, count))

    chain = connected_components(graph(following), directed=True, connection="weak")[1]
    lengths = np.bincount(chain)
    start = np.full(len(lengths), -1, dtype=np.int64)
    inner = following >= 0
    head = np.ones(count, dtype=bool)
    head[following[inner]] = False
    start[chain[head]] = np.flatnonzero(head)
    first = np.full(len(lengths), count, dtype=np.int64)
    first[chain[::-1]] = np.arange(count)[::-1]
    cycle = start < 0
    start[cycle] = first[cycle]
    # All chains one after the other are a single path, which the search follows in a loop of its own.
    last = np.full(len(lengths), -1, dtype=np.int64)
    last[chain[~inner]] = np.flatnonzero(~inner)
    before = np.empty(count, dtype=np.int64)
    before[following[inner]] = np.flatnonzero(inner)
    last[cycle] = before[start[cycle]]
    path = following.copy()
    path[last] = np.append(start[1:], -1)
    order = depth_first_order(graph(path), int(start[0]), directed=True, return_predecessors=False)
    return order.astype(np.int64), lengths
