from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from resegeo.clip.scores import axis_weights, blend_weights, patch_scores, pixel_cosines, softmax


def pixel_centres(pixels):
    """Centres of the pixels of a window, as shares of its side."""
    return (np.arange(pixels) + 0.5) / pixels


def naive_cosines(features, texts, pixels):
    """Interpolate the features themselves with torch, then take the cosine."""
    maps = torch.from_numpy(features.astype(np.float64)).permute(2, 0, 1)[None]
    dense = torch.nn.functional.interpolate(maps, size=(pixels, pixels), mode="bilinear", align_corners=False)[0]
    dense = torch.nn.functional.normalize(dense, dim=0)
    return np.einsum("dhw,qd->qhw", dense.numpy(), texts)


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 9), st.integers(1, 16), st.integers(1, 40), st.integers(1, 7), st.integers(0, 2**31))
def test_q_plus_4_numbers_give_the_scores_of_interpolated_features(grid, patch, dimension, prompts, seed):
    random = np.random.default_rng(seed)
    # Of one sign in each dimension, as neighbours in an image are alike: where opposite features cancel, the cosine
    # itself is ill-conditioned.
    signs = random.choice([-1.0, 1.0], size=dimension)
    features = (signs * (0.5 + np.abs(random.normal(size=(1, grid, grid, dimension))))).astype(np.float32)
    texts = random.normal(size=(prompts, dimension)).astype(np.float32)
    texts /= np.linalg.norm(texts, axis=1, keepdims=True)
    axis = axis_weights(grid, pixel_centres(grid * patch))
    found = pixel_cosines(patch_scores(features, texts)[0], axis, axis)
    expected = naive_cosines(features[0], texts, grid * patch)
    assert np.abs(found - expected).max() < 5e-4


def test_scores_agree_to_1e_5_on_features_like_those_of_vit_l_14():
    random = np.random.default_rng(1)
    features = (random.normal(size=(1, 16, 16, 768)) + random.normal(size=768)).astype(np.float32)
    texts = random.normal(size=(19, 768)).astype(np.float32)
    texts /= np.linalg.norm(texts, axis=1, keepdims=True)
    axis = axis_weights(16, pixel_centres(224))
    found = pixel_cosines(patch_scores(features, texts)[0], axis, axis)
    expected = naive_cosines(features[0], texts, 224)
    assert np.abs(found - expected).max() < 1e-5
    best = np.sort(expected, axis=0)
    clear = best[-1] - best[-2] > 1e-5
    assert np.array_equal(found.argmax(axis=0)[clear], expected.argmax(axis=0)[clear])
    assert clear.mean() > 0.99


def test_a_part_of_a_window_has_the_scores_of_the_whole():
    random = np.random.default_rng(2)
    reduced = patch_scores(
        random.normal(size=(1, 4, 4, 8)).astype(np.float32), random.normal(size=(3, 8)).astype(np.float32)
    )[0]
    axis = axis_weights(4, pixel_centres(32))
    whole = pixel_cosines(reduced, axis, axis)
    part = pixel_cosines(reduced, axis.rows(5, 20), axis.rows(30, 32))
    assert np.allclose(part, whole[:, 5:20, 30:32], atol=1e-6)


def test_softmax_sums_to_one_even_for_huge_logits():
    logits = np.array([[1000.0, -1000.0], [999.0, 0.0]], dtype=np.float32)
    result = softmax(logits)
    assert np.allclose(result.sum(axis=0), 1)
    assert np.allclose(result[:, 0], [1 / (1 + np.exp(-1)), 1 / (1 + np.exp(1))])


def test_blend_weights_are_positive_and_symmetric():
    weights = blend_weights(pixel_centres(128), taper=True)
    assert weights.min() > 0
    assert np.allclose(weights, weights[::-1])
    assert weights.argmax() in (63, 64)
    assert (blend_weights(pixel_centres(128), taper=False) == 1).all()
