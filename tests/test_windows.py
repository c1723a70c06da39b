from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resegeo.errors import UsageError
from resegeo.scene.windows import Rect, blocks, origins, window_grid

sizes = st.integers(1, 500)


@st.composite
def grids(draw: st.DrawFn):
    window = draw(st.integers(16, 200))
    stride = draw(st.integers(max(1, window // 8), window))
    return window_grid(draw(sizes), draw(sizes), window=window, stride=stride, overhang=draw(st.booleans()))


@settings(deadline=None)
@given(grids())
def test_every_pixel_is_covered(grid):
    down, across = np.zeros(grid.height, int), np.zeros(grid.width, int)
    for row in grid.rows:
        down[row : row + grid.window] += 1
    for col in grid.cols:
        across[col : col + grid.window] += 1
    assert down.min() >= 1
    assert across.min() >= 1


@settings(deadline=None)
@given(grids())
def test_items_hold_every_window_once(grid):
    windows = [window for item in grid.items() for window in item.windows]
    assert len(windows) == len(set(windows)) == grid.count


@settings(deadline=None)
@given(sizes, st.integers(1, 200))
def test_clamped_windows_lie_inside_scenes_larger_than_a_window(size, window):
    found = origins(size, window, max(1, window // 2))
    assert list(found) == sorted(set(found))
    if size >= window:
        assert found[-1] == size - window


@settings(deadline=None)
@given(sizes, st.integers(1, 200))
def test_overhanging_windows_are_all_multiples_of_the_stride(size, window):
    found = origins(size, window, window, overhang=True)
    assert all(origin % window == 0 for origin in found)
    assert found[-1] < size <= found[-1] + window


@settings(deadline=None)
@given(grids(), st.data())
def test_items_over_a_rectangle_are_those_with_a_touching_window(grid, data):
    rect = Rect(
        data.draw(st.integers(0, grid.height - 1)),
        data.draw(st.integers(0, grid.width - 1)),
        data.draw(st.integers(1, 600)),
        data.draw(st.integers(1, 600)),
    )
    expected = [item.index for item in grid.items() if any(window.intersection(rect) for window in item.windows)]
    assert [item.index for item in grid.items_over(rect)] == expected


@settings(deadline=None)
@given(sizes, sizes, st.integers(1, 300))
def test_blocks_tile_the_scene(height, width, size):
    seen = np.zeros((height, width), int)
    for block in blocks(height, width, size):
        seen[block.row : block.bottom, block.col : block.right] += 1
    assert (seen == 1).all()


def test_grid_of_a_known_scene():
    assert origins(300, 128, 64) == (0, 64, 128, 172)
    assert origins(300, 128, 128, overhang=True) == (0, 128, 256)
    assert origins(100, 128, 64) == (0,)


@pytest.mark.parametrize("stride", [0, 129, -5])
def test_a_stride_that_leaves_gaps_is_refused(stride):
    with pytest.raises(UsageError, match=f"--stride {stride} does not fit the model's window of 128"):
        window_grid(500, 500, window=128, stride=stride)
