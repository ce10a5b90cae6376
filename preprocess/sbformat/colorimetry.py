"""The color convention of the format: sRGB, CIE XYZ (D65, 2 degrees) and CIE-Lab, in float64 NumPy.

Products read target from source, so that names cancel: ``xyz = XYZ_FROM_RGB @ rgb``. This module is the definition;
`sbprep._kernels` is the same arithmetic in float32 at speed, and a test compares all 2**24 colors.

The matrix and white are the ones of the published results (scikit-image's), so numbers stay comparable and the Lab
ranges of the schema hold to the last digit; docs/decisions/0001-color-convention.md says what that costs.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

#: Linear sRGB (ITU-R BT.709 primaries, D65 white) to CIE XYZ, six digits as tabulated in C. Poynton, "Frequently
#: Asked Questions about Color" (1997), question 18.
XYZ_FROM_RGB = np.array(
    [[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]]
)
#: Tristimulus values of D65 for the 2 degree observer, Y = 1: ASTM E308-01, table 5.
D65_WHITE = np.array([0.95047, 1.0, 1.08883])
#: CIE 15:2004, equation 8.6: where the cube root gives way to a line, and that line's slope. Exact rationals.
EPSILON = 216 / 24389
KAPPA = 24389 / 27

CONVENTION = {
    "rgb": "sRGB, IEC 61966-2-1",
    "xyz_from_linear_rgb": XYZ_FROM_RGB.tolist(),
    "white": D65_WHITE.tolist(),
    "lab": "CIE 15:2004, epsilon 216/24389, kappa 24389/27",
}


def linear_from_srgb(srgb: Floats) -> Floats:
    """Undo the sRGB transfer function (IEC 61966-2-1): values in [0, 1], any shape."""
    return np.where(srgb > 0.04045, ((srgb + 0.055) / 1.055) ** 2.4, srgb / 12.92)


def srgb_from_linear(linear: Floats) -> Floats:
    """Apply the sRGB transfer function (IEC 61966-2-1): values in [0, 1], any shape."""
    linear = np.clip(linear, 0.0, 1.0)
    return np.where(linear > 0.0031308, 1.055 * linear ** (1 / 2.4) - 0.055, linear * 12.92)


def lab_from_rgb(rgb: NDArray[np.uint8] | Floats) -> Floats:
    """Convert 8-bit sRGB to CIE-Lab.

    Parameters
    ----------
    rgb : uint8 (..., 3), or means of such: float in [0, 255]

    Returns
    -------
    float64 (..., 3): L in [0, 100], a in [-86.19, 98.24], b in [-107.86, 94.48]

    Examples
    --------
    >>> lab_from_rgb(np.array([255, 0, 0], np.uint8)).round(2).tolist()
    [53.24, 80.09, 67.2]
    """
    xyz = linear_from_srgb(rgb / 255) @ XYZ_FROM_RGB.T / D65_WHITE
    f = np.where(xyz > EPSILON, np.cbrt(xyz), (KAPPA * xyz + 16) / 116)
    fx, fy, fz = f[..., 0], f[..., 1], f[..., 2]
    return np.stack([116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)], axis=-1)


def linear_from_lab(lab: Floats) -> Floats:
    """Convert CIE-Lab to linear sRGB, unclipped: (..., 3), a color of the gamut is in [0, 1] in every channel."""
    L, a, b = lab[..., 0], lab[..., 1], lab[..., 2]
    fy = (L + 16) / 116
    f = np.stack([fy + a / 500, fy, fy - b / 200], axis=-1)
    xyz = np.where(f**3 > EPSILON, f**3, (116 * f - 16) / KAPPA) * D65_WHITE
    linear: Floats = xyz @ np.linalg.inv(XYZ_FROM_RGB).T
    return linear


def srgb_from_lab(lab: Floats) -> Floats:
    """Convert CIE-Lab to sRGB in [0, 1], clipping what lies outside the gamut: (..., 3) -> float64 (..., 3)."""
    return srgb_from_linear(linear_from_lab(lab))


def rgb_from_lab(lab: Floats) -> NDArray[np.uint8]:
    """Convert CIE-Lab to 8-bit sRGB, clipping what lies outside the gamut: (..., 3) -> uint8 (..., 3)."""
    return np.floor(srgb_from_lab(lab) * 255 + 0.5).astype(np.uint8)
