from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from resegeo.clip.attention import Schedule, default_schedule, layer_masks, mostly_invalid, patch_ids
from resegeo.errors import UsageError


@pytest.mark.parametrize(
    ("depth", "free", "segment", "local"), [(24, 18, 4, 2), (12, 9, 2, 1), (32, 24, 5, 3), (8, 6, 1, 1)]
)
def test_schedule_follows_the_paper_for_every_depth(depth, free, segment, local):
    assert default_schedule(depth) == Schedule(free, segment, local)


def test_four_segment_layers_take_four_levels_in_order_and_share_fewer():
    schedule = default_schedule(24)
    assert [schedule.level_of(layer, 4) for layer in range(4)] == [0, 1, 2, 3]
    assert [schedule.level_of(layer, 2) for layer in range(4)] == [0, 0, 1, 1]
    assert [schedule.level_of(layer, 1) for layer in range(4)] == [0, 0, 0, 0]


def test_negative_layers_are_refused():
    with pytest.raises(UsageError, match="segment=-1"):
        Schedule(3, -1, 1)


@settings(deadline=None)
@given(hnp.arrays(np.int64, (2, 8, 12), elements=st.integers(0, 4)), st.sampled_from([1, 2, 4]))
def test_a_patch_takes_its_commonest_id_and_the_smallest_of_several(ids, patch):
    found = patch_ids(ids, patch)
    for level in range(2):
        for row in range(8 // patch):
            for col in range(12 // patch):
                cell = ids[level, row * patch : (row + 1) * patch, col * patch : (col + 1) * patch]
                count = Counter(cell.ravel().tolist())
                best = min(value for value, times in count.items() if times == max(count.values()))
                assert found[level, row, col] == best


def test_a_patch_is_invalid_when_most_of_its_pixels_are():
    valid = np.zeros((4, 4), bool)
    valid[:2, :1] = True  # half of the upper left patch
    valid[0, 2] = True  # a quarter of the upper right
    assert mostly_invalid(valid, 2).tolist() == [[False, True], [True, True]]


@settings(deadline=None, max_examples=30)
@given(
    hnp.arrays(np.int64, (2, 2, 3, 4), elements=st.integers(0, 3)),
    st.integers(0, 2),
    st.integers(0, 3),
    st.integers(0, 2),
    st.integers(0, 2),
)
def test_masks_keep_exactly_what_the_schedule_says(levels, free, segment, local, radius):
    schedule = Schedule(free, segment, local, radius)
    masks = layer_masks(schedule, torch.from_numpy(levels))
    assert len(masks) == schedule.depth
    for layer, mask in enumerate(masks):
        if layer < free:
            assert mask is None
            continue
        assert mask is not None
        assert mask.dtype == torch.bool
        keep = mask.expand(2, 1, 13, 13)[:, 0].numpy()
        for window in range(2):
            for i in range(13):
                for j in range(13):
                    if i == 0 or j == 0:
                        expected = i == j
                    elif layer < free + segment:
                        ids = levels[window, schedule.level_of(layer - free, 2)].ravel()
                        expected = ids[i - 1] == ids[j - 1]
                    else:
                        (r, c), (s, d) = divmod(i - 1, 4), divmod(j - 1, 4)
                        expected = max(abs(r - s), abs(c - d)) <= radius
                    assert keep[window, i, j] == expected
