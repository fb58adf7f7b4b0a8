"""Model folders: what a StarDist network is, read and checked without loading its weights.

A folder holds ``config.json``, ``thresholds.json`` and one file of weights: ``weights_best.h5`` (as
the stardist package writes it) or ``weights.safetensors`` (ours). This module imports no torch, so
that a plan can be made without it.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from engine.errors import ModelError
from engine.networks.checking import is_int, is_number, require
from engine.networks.lookup import Kind, bundled_folders, find
from engine.networks.weight_files import digest_files, find_weights, read_json

CONFIG_FILE = "config.json"
THRESHOLDS_FILE = "thresholds.json"

Activation = Literal["relu", "elu", "selu", "tanh", "sigmoid", "softplus", "linear"]
ACTIVATIONS: tuple[Activation, ...] = (
    "relu", "elu", "selu", "tanh", "sigmoid", "softplus", "linear",
)  # fmt: skip


_KIND = Kind(
    "model", "a model folder or the name of a bundled model", "Bundled models",
    inside=CONFIG_FILE, named="a model folder",
)  # fmt: skip

_ONLY: tuple[tuple[str, object], ...] = (("n_dim", 2), ("n_classes", None), ("backbone", "unet"))


@dataclass(frozen=True, slots=True)
class StarDistConfig:
    """Shape of a StarDist 2-D U-Net; field names are the keys of ``config.json``.

    Parameters
    ----------
    n_rays : int
        Number of rays of a star-convex polygon, at least 3.
    grid : tuple of int
        (y, x) subsampling of the output against the input; powers of two.
    n_channel_in : int
        Channels of the input image.
    unet_n_depth, unet_n_filter_base, unet_n_conv_per_depth : int
        Levels of pooling, filters at the first level, convolutions per level.
    unet_kernel_size, unet_pool : tuple of int
        (y, x) sizes of every convolution and of every pooling of the U-Net.
    unet_activation, unet_last_activation : str
        Activations, the last one being that of the U-Net's last convolution.
    unet_batch_norm : bool
        Whether batch normalisation stands between convolution and activation.
    unet_expansion : float
        Factor of the number of filters from level to level.
    unet_prefix : str
        Prefix of layer names in an HDF5 file.
    net_conv_after_unet : int
        Filters of the convolution after the U-Net; 0 for none.

    Raises
    ------
    ModelError
        If a value is out of its range.

    Notes
    -----
    Fields and defaults follow ``Config2D`` of stardist 0.9.

    Examples
    --------
    >>> StarDistConfig(grid=(2, 2)).divisor
    (16, 16)
    """

    n_rays: int = 32
    grid: tuple[int, int] = (1, 1)
    n_channel_in: int = 1
    unet_n_depth: int = 3
    unet_kernel_size: tuple[int, int] = (3, 3)
    unet_n_filter_base: int = 32
    unet_n_conv_per_depth: int = 2
    unet_pool: tuple[int, int] = (2, 2)
    unet_activation: Activation = "relu"
    unet_last_activation: Activation = "relu"
    unet_batch_norm: bool = False
    unet_expansion: float = 2
    unet_prefix: str = ""
    net_conv_after_unet: int = 128

    def __post_init__(self) -> None:
        for field, low in (("n_rays", 3), ("n_channel_in", 1), ("unet_n_depth", 0),
                           ("unet_n_filter_base", 1), ("unet_n_conv_per_depth", 1),
                           ("net_conv_after_unet", 0)):  # fmt: skip
            require(is_int(getattr(self, field), low), field, f"an integer >= {low}", self)
        for field in ("grid", "unet_kernel_size", "unet_pool"):
            value = getattr(self, field)
            pair = isinstance(value, tuple) and len(value) == 2
            require(pair and all(is_int(v, 1) for v in value), field, "two integers >= 1", self)
        powers = all(v & (v - 1) == 0 for v in self.grid)
        require(powers, "grid", "powers of two", self)
        for field in ("unet_activation", "unet_last_activation"):
            require(getattr(self, field) in ACTIVATIONS, field, " | ".join(ACTIVATIONS), self)
        require(isinstance(self.unet_batch_norm, bool), "unet_batch_norm", "true or false", self)
        require(isinstance(self.unet_prefix, str), "unet_prefix", "a string", self)
        expansion = self.unet_expansion
        positive = is_number(expansion) and expansion > 0
        require(positive, "unet_expansion", "a number > 0", self)

    @property
    def divisor(self) -> tuple[int, int]:
        """(y, x) pixels of which an input's height and width must be multiples."""
        (gy, gx), (py, px), depth = self.grid, self.unet_pool, self.unet_n_depth
        return gy * py**depth, gx * px**depth

    def filters(self, level: int) -> int:
        """Count the filters at a level: base · expansionˡᵉᵛᵉˡ, rounded down as stardist does."""
        return int(self.unet_n_filter_base * self.unet_expansion**level)


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Which candidates become objects.

    Parameters
    ----------
    prob : float
        Least object probability of a candidate, in (0, 1).
    nms : float
        Overlap above which the less probable of two candidates is dropped, in (0, 1).

    Raises
    ------
    ModelError
        If a value is not in (0, 1).

    Examples
    --------
    >>> Thresholds(prob=0.5, nms=0.4).nms
    0.4
    """

    prob: float
    nms: float

    def __post_init__(self) -> None:
        for field in ("prob", "nms"):
            value = getattr(self, field)
            inside = is_number(value) and 0 < value < 1
            require(inside, field, "a number in (0, 1)", self, THRESHOLDS_FILE)


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A checked model folder; its weights are not loaded.

    Parameters
    ----------
    path : Path
        The folder.
    config : StarDistConfig
        Shape of the network.
    thresholds : Thresholds
        Thresholds found when the network was trained.
    weights : Path
        The file of weights.
    sha256 : str
        Digest of the three files' bytes: two folders with equal digests give equal results.
    name : str
        The folder's own name.
    """

    path: Path
    config: StarDistConfig
    thresholds: Thresholds
    weights: Path
    sha256: str
    name: str


def open_model(path_or_name: str) -> ModelFolder:
    """Open and check a model folder, or a bundled model by its name.

    Parameters
    ----------
    path_or_name : str
        Path of a folder, or a name of `bundled_models`. A bundled name wins; write ``./NAME`` for
        a folder of the same name.

    Returns
    -------
    ModelFolder
        The model, with its files digested.

    Raises
    ------
    ModelError
        If the name is unknown, a file is missing, damaged or a pickle, or a value is unsupported.
    """
    return _open_folder(find(path_or_name, _bundled(), _KIND))


def bundled_models() -> tuple[str, ...]:
    """Names of the models that come with the package, sorted."""
    return tuple(_bundled())


def parse_config(values: Mapping[str, object], where: str) -> StarDistConfig:
    """Make a `StarDistConfig` of the keys and values of a ``config.json``.

    Parameters
    ----------
    values : mapping
        As stardist writes it; keys that only concern training are not used.
    where : str
        The file, for messages.

    Returns
    -------
    StarDistConfig
        The shape of the network. `unet_expansion` and `unet_prefix` are absent in files of older
        versions, which had 2 and an empty string.

    Raises
    ------
    ModelError
        If a key is missing, or a value is wrong or not supported.
    """
    for key, only in _ONLY:
        if values.get(key, only) != only:
            raise ModelError(
                where=f"{where}: {key}", expected=json.dumps(only), found=repr(values[key]),
                remedy="Only 2-D StarDist U-Nets without object classes are supported.",
            )  # fmt: skip
    known: dict[str, object] = {"unet_expansion": 2, "unet_prefix": ""}
    for key in StarDistConfig.__dataclass_fields__:
        if key in values:
            value = values[key]
            known[key] = tuple(value) if isinstance(value, list) else value
        elif key not in known:
            raise ModelError(
                where=f"{where}: {key}", expected="a value", found="no such key",
                remedy="Is this the config.json of a StarDist 2-D model?",
            )  # fmt: skip
    if known["unet_last_activation"] is None:  # stardist then uses the other activation
        known["unet_last_activation"] = known["unet_activation"]
    try:
        return StarDistConfig(**known)  # type: ignore[arg-type] # __post_init__ checks each value
    except ModelError as err:
        raise ModelError(
            where=f"{where}: {err.where}", expected=err.expected, found=err.found,
            remedy=err.remedy,
        ) from err  # fmt: skip


def _open_folder(path: Path) -> ModelFolder:
    config_path, thresholds_path = path / CONFIG_FILE, path / THRESHOLDS_FILE
    config = parse_config(read_json(config_path), str(config_path))
    found = read_json(thresholds_path)
    thresholds = Thresholds(prob=_number(found, "prob"), nms=_number(found, "nms"))
    weights = find_weights(path)
    digest = digest_files((config_path, thresholds_path, weights))
    return ModelFolder(path, config, thresholds, weights, digest, path.resolve().name)


def _number(values: Mapping[str, object], key: str) -> float:
    value = values.get(key, math.nan)
    return value if isinstance(value, int | float) else math.nan


def _bundled() -> dict[str, Path]:
    return bundled_folders("bundled", CONFIG_FILE)
