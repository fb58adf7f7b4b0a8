"""What the sample values of a TIFF page mean: light or ink, an index, or a colour model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from engine.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from tifffile import TiffPage

    from engine.store.sources.tiff_layout import PageStack

# TIFF 6.0 and TIFF/EP, PhotometricInterpretation.
_WHITE_IS_ZERO, _RGB, _PALETTE, _YCBCR = 0, 2, 3, 6
_TAKEN = {_WHITE_IS_ZERO, 1, _RGB, _PALETTE, 4, _YCBCR, 34892}
# JPEG is decoded to RGB; of other YCbCr data nobody would convert the colours.
_JPEG = {6, 7}


@dataclass(frozen=True, slots=True)
class Meaning:
    """How stored values become intensities.

    Parameters
    ----------
    white : int or None
        Where not None, white is stored as zero and ``white - value`` is the intensity.
    rgb : bool
        The samples of a pixel are red, green, blue and perhaps alpha.
    color : str or None
        ``RRGGBB`` of the brightest value, where the file has a colour ramp.
    """

    white: int | None
    rgb: bool
    color: str | None

    def intensities(self, values: NDArray[np.generic]) -> NDArray[np.generic]:
        """Intensities of stored values; one-bit values become uint8.

        Parameters
        ----------
        values : ndarray
            As decoded.

        Returns
        -------
        ndarray
            Same shape; uint8 where `values` is bool, the same dtype otherwise.
        """
        taken = values.view(np.uint8) if values.dtype == np.bool_ else values
        if self.white is None:
            return taken
        return np.subtract(taken.dtype.type(self.white), taken)


def meaning_of(where: str, stack: PageStack) -> Meaning:
    """Find what the values mean, from photometric interpretation and colour map.

    ImageJ stores display settings there and measures the values as they are, so in its files
    neither an inverting nor a coloured lookup table changes a value.

    Parameters
    ----------
    where : str
        Path, for messages.
    stack : PageStack
        The pages.

    Returns
    -------
    Meaning
        For all pages of the stack.

    Raises
    ------
    InputError
        If values are indices into a table of unordered colours, or in a colour model that is
        neither grey nor RGB.
    """
    page = stack.keyframe
    kind = page.photometric if 262 in page.tags else 1
    rgb = kind in {_RGB, _YCBCR}
    if kind not in _TAKEN or (kind == _YCBCR and page.compression not in _JPEG):
        raise InputError(
            where=where,
            expected="grey or RGB pixels",
            found=f"{page.photometric!r} with {page.compression!r}",
            remedy="Convert the image to RGB or to separate channels.",
        )
    if stack.kind == "imagej":
        return Meaning(None, rgb, None)
    if kind == _WHITE_IS_ZERO and stack.dtype.kind in "bu":
        return Meaning((1 << page.bitspersample) - 1, rgb=False, color=None)
    color = _ramp_color(where, page) if kind == _PALETTE and page.colormap is not None else None
    return Meaning(None, rgb, color)


def _ramp_color(where: str, page: TiffPage) -> str:
    """Colour of the largest index, where the colour map is a ramp from dark to bright."""
    table = np.asarray(page.colormap).astype(np.int64)
    if np.any(np.diff(table, axis=1) < 0):
        raise InputError(
            where=where,
            expected="intensities",
            found="indices into a table of colours that do not grow from dark to bright",
            remedy="Convert the image to RGB, or label images to greyscale without a palette.",
        )
    return "".join(f"{value >> 8:02X}" for value in table[:, -1])
