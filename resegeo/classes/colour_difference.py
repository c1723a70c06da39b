"""How different colours look: CIE L*a*b* and CIEDE2000 (Sharma, Wu and Dalal 2005).

As scikit-image computes them, which the tests compare with; its import costs more than a run that has nothing to do.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_TO_XYZ = np.array([[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]])
_WHITE = np.array([0.95047, 1.0, 1.08883])
"""D65 at two degrees."""


def lab(colours: Sequence[tuple[int, int, int]]) -> NDArray[np.float64]:
    """Bring sRGB colours 0 … 255 to L*a*b* under D65: (n, 3)."""
    rgb = np.asarray(colours, dtype=np.float64).reshape(-1, 3) / 255.0
    linear = np.where(rgb > 0.04045, ((rgb + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    ratio = linear @ _TO_XYZ.T / _WHITE
    f = np.where(ratio > 0.008856, np.cbrt(ratio), 7.787 * ratio + 16.0 / 116.0)
    x, y, z = f.T
    return np.stack([116.0 * y - 16.0, 500.0 * (x - y), 200.0 * (y - z)], axis=-1)


def difference(one: NDArray[np.float64], two: NDArray[np.float64]) -> NDArray[np.float64]:
    """CIEDE2000 of L*a*b* colours (..., 3), which broadcast: about 1 is the least that an eye notices."""
    (light1, a1, b1), (light2, a2, b2) = np.moveaxis(one, -1, 0), np.moveaxis(two, -1, 0)
    grey = ((np.hypot(a1, b1) + np.hypot(a2, b2)) / 2) ** 7
    stretch = 1.5 - 0.5 * np.sqrt(grey / (grey + 25.0**7))
    chroma1, chroma2 = np.hypot(a1 * stretch, b1), np.hypot(a2 * stretch, b2)
    hue1, hue2 = (np.arctan2(b, a * stretch) % (2 * np.pi) for a, b in ((a1, b1), (a2, b2)))
    colourless = chroma1 * chroma2 == 0
    turn = hue2 - hue1
    turn = np.where(turn > np.pi, turn - 2 * np.pi, np.where(turn < -np.pi, turn + 2 * np.pi, turn))
    hue = 2 * np.sqrt(chroma1 * chroma2) * np.sin(np.where(colourless, 0.0, turn) / 2)
    both = hue1 + hue2
    far = np.abs(hue1 - hue2) > np.pi
    middle = np.where(far, np.where(both < 2 * np.pi, both + 2 * np.pi, both - 2 * np.pi), both)
    middle = np.where(colourless, both, middle / 2)
    light, chroma = (light1 + light2) / 2, (chroma1 + chroma2) / 2
    weight = (
        1
        - 0.17 * np.cos(middle - np.deg2rad(30))
        + 0.24 * np.cos(2 * middle)
        + 0.32 * np.cos(3 * middle + np.deg2rad(6))
        - 0.20 * np.cos(4 * middle - np.deg2rad(63))
    )
    by_light = (light2 - light1) / (1 + 0.015 * (light - 50) ** 2 / np.sqrt(20 + (light - 50) ** 2))
    by_chroma = (chroma2 - chroma1) / (1 + 0.045 * chroma)
    by_hue = hue / (1 + 0.015 * chroma * weight)
    blue = np.deg2rad(60) * np.exp(-(((np.rad2deg(middle) - 275) / 25) ** 2))
    rotation = -2 * np.sqrt(chroma**7 / (chroma**7 + 25.0**7)) * np.sin(blue)
    return np.asarray(np.sqrt(by_light**2 + by_chroma**2 + by_hue**2 + rotation * by_chroma * by_hue))
