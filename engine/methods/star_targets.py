"""What a StarDist network is trained to predict, computed from instance labels.

Schmidt et al. 2018, "Cell detection with star-convex polygons", section 2: for each pixel the
distance to its object's border along every ray, and a probability that grows with the distance to
the nearest background pixel. Both come from the stardist package's own functions.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.segmentation import relabel_sequential
from stardist.geometry import star_dist
from stardist.utils import edt_prob

# stardist's C++ casts labels to uint16: larger ids would wrap and join objects.
_LARGEST_ID = np.iinfo(np.uint16).max


@dataclass(frozen=True, slots=True)
class StarTargets:
    """Targets of one label image on the grid.

    Parameters
    ----------
    prob : ndarray
        (h, w) float32 in [0, 1]: distance to the background over its largest value in the object;
        0 on background.
    dist : ndarray
        (R, h, w) float32: pixels of the label image along ray k, at angle 2πk/R; 0 on background.
    """

    prob: NDArray[np.float32]
    dist: NDArray[np.float32]


def star_targets(
    labels: NDArray[np.integer[Any]], n_rays: int, grid: tuple[int, int]
) -> StarTargets:
    """Compute the training targets of a label image.

    Parameters
    ----------
    labels : ndarray
        (H, W) integer, 0 background. At most 65535 objects.
    n_rays : int
        Number of rays.
    grid : tuple of int
        (y, x) subsampling: output pixel (i, j) belongs to pixel (i·gy, j·gx).

    Returns
    -------
    StarTargets
        With h = ceil(H / gy), w = ceil(W / gx).

    Notes
    -----
    An image that lies wholly in one object is taken to be surrounded by background, as stardist
    does. Distances end at the image's border.

    Examples
    --------
    >>> labels = np.zeros((9, 9), np.int32)
    >>> labels[2:7, 2:7] = 1
    >>> targets = star_targets(labels, n_rays=4, grid=(1, 1))
    >>> targets.dist.shape, float(targets.prob[4, 4])
    ((4, 9, 9), 1.0)
    """
    if labels.max(initial=0) > _LARGEST_ID:
        labels = relabel_sequential(labels)[0]
    small = np.ascontiguousarray(labels, dtype=np.int32)
    dist = star_dist(small, n_rays, grid=grid, mode="cpp")
    return StarTargets(
        prob=_object_probability(small[:: grid[0], :: grid[1]]),
        dist=np.ascontiguousarray(np.moveaxis(dist, -1, 0), dtype=np.float32),
    )


def _object_probability(labels: NDArray[np.int32]) -> NDArray[np.float32]:
    """Distance to the background over its largest value in each object."""
    constant = labels.size > 0 and labels.min() == labels.max() and labels.flat[0] > 0
    padded = np.pad(labels, 1) if constant else labels
    prob = np.asarray(edt_prob(padded), dtype=np.float32)
    return prob[1:-1, 1:-1] if constant else prob
