"""Folders of masked autoencoders: what one is, read and checked without loading its weights.

A folder holds ``config.json``, ``weights.safetensors`` and ``README.md``, the card. This module
imports no torch, so that a plan can be made without it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from engine.errors import ModelError
from engine.networks.checking import PLAIN_NAMES, is_int, is_number, is_plain, require
from engine.networks.lookup import Kind, bundled_folders, find
from engine.networks.weight_files import digest_files, find_weights, read_json

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "weights.safetensors"
ARCHITECTURE = "mae"

ClassInput = Literal["index", "onehot"]
Positions = Literal["sincos", "rotary"]

_KIND = Kind(
    "masked autoencoder", "a folder or the name of a bundled one", "Bundled ones",
    inside=CONFIG_FILE, named="the folder of a masked autoencoder",
)  # fmt: skip

# A class index is stored as uint8; 255 stays free.
_MOST_CLASSES = 255


@dataclass(frozen=True, slots=True)
class MaeConfig:
    """Shape of a masked autoencoder of class maps; field names are the keys of ``config.json``.

    Parameters
    ----------
    classes : tuple of str
        Names of the classes, background first; at least 2; letters, digits, - and _.
    window : int
        Side of its square input, pixels; a multiple of `patch`, at least twice as long.
    patch : int
        Side of a patch, pixels; a patch is a token.
    encoder_dim, encoder_depth, encoder_heads : int
        Width, blocks and heads of the encoder; the heads divide the width.
    decoder_dim, decoder_depth, decoder_heads : int
        The same of the decoder.
    mlp_ratio : int
        Width of the hidden layer of a block, in widths of the block.
    class_input : {"index", "onehot"}
        Whether a pixel enters as the number of its class, as in the source, or as one channel for
        each class.
    positions : {"sincos", "rotary"}
        Fixed sines and cosines added to the tokens, as in the source, or queries and keys turned
        by their place (the class token's is the origin): attention sees differences of places.
    position_scale : float
        Factor of the sines and cosines in the encoder, the source's 0.08; those of the decoder are
        not scaled. Not used with "rotary".
    near_patches : int or None
        Patches farther than so many patches (along y or x, whichever are more) from one with
        foreground leave encoder and decoder and stay background; None keeps all.

    Raises
    ------
    ModelError
        If a value is out of its range.

    Notes
    -----
    Sauer et al. [004]; the defaults are theirs (128 x 14, one head; 64 x 7, eight heads), apart
    from `near_patches`, for which they drop 30 % of the patches of any window. One-hot input and
    rotary positions (Su et al. 2021, "RoFormer", for two axes) are our additions.

    Examples
    --------
    >>> MaeConfig(classes=("background", "object")).tokens
    1024
    """

    classes: tuple[str, ...]
    window: int = 128
    patch: int = 4
    encoder_dim: int = 128
    encoder_depth: int = 14
    encoder_heads: int = 1
    decoder_dim: int = 64
    decoder_depth: int = 7
    decoder_heads: int = 8
    mlp_ratio: int = 2
    class_input: ClassInput = "index"
    positions: Positions = "sincos"
    position_scale: float = 0.08
    near_patches: int | None = None

    def __post_init__(self) -> None:
        names = self.classes
        named = isinstance(names, tuple) and all(isinstance(n, str) and n for n in names)
        distinct = named and len(set(names)) == len(names) and 2 <= len(names) <= _MOST_CLASSES
        require(distinct, "classes", f"2 to {_MOST_CLASSES} different names", self)
        require(all(map(is_plain, names)), "classes", PLAIN_NAMES, self)
        for field in _SIZES:
            require(is_int(getattr(self, field), 1), field, "an integer >= 1", self)
        require(self.window % self.patch == 0, "window", f"a multiple of {self.patch}", self)
        # Of a single patch nothing would be left to see when it is masked.
        rule = f"at least two patches of {self.patch} pixels"
        require(self.window >= 2 * self.patch, "window", rule, self)
        require(self.class_input in ("index", "onehot"), "class_input", "index | onehot", self)
        require(self.positions in ("sincos", "rotary"), "positions", "sincos | rotary", self)
        for part in ("encoder", "decoder"):
            dim, heads = getattr(self, f"{part}_dim"), getattr(self, f"{part}_heads")
            require(dim % heads == 0, f"{part}_dim", f"a multiple of {heads} heads", self)
            turned = dim // heads if self.positions == "rotary" else dim
            rule = "a width (with rotary: of a head) that is a multiple of 4"
            require(turned % 4 == 0, f"{part}_dim", rule, self)
        scaled = is_number(self.position_scale) and 0 < self.position_scale < 100
        require(scaled, "position_scale", "a number in (0, 100)", self)
        near = self.near_patches
        require(near is None or is_int(near, 0), "near_patches", "null or an integer >= 0", self)

    @property
    def side(self) -> int:
        """Patches along one side of a window."""
        return self.window // self.patch

    @property
    def tokens(self) -> int:
        """Patches of a window."""
        return self.side**2


_SIZES = (
    "window", "patch", "encoder_dim", "encoder_depth", "encoder_heads",
    "decoder_dim", "decoder_depth", "decoder_heads", "mlp_ratio",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class MaeFolder:
    """A checked folder of a masked autoencoder; its weights are not loaded.

    Parameters
    ----------
    path : Path
        The folder.
    config : MaeConfig
        Shape of the network.
    weights : Path
        The file of weights.
    weights_bytes : int
        Its size.
    sha256 : str
        Digest of config and weights: two folders with equal digests give equal results.
    name : str
        The folder's own name.
    """

    path: Path
    config: MaeConfig
    weights: Path
    weights_bytes: int
    sha256: str
    name: str


def open_mae(name_or_path: str) -> MaeFolder:
    """Open and check the folder of a masked autoencoder, or a bundled one by its name.

    Parameters
    ----------
    name_or_path : str
        A name of `bundled_maes`, or the path of a folder. A bundled name wins; write ``./NAME``
        for a folder of the same name.

    Returns
    -------
    MaeFolder
        With its files digested.

    Raises
    ------
    ModelError
        If the name is unknown, a file is missing, damaged or a pickle, or a value is wrong.
    """
    return _open_folder(find(name_or_path, _bundled(), _KIND))


def bundled_maes() -> tuple[str, ...]:
    """Names of the masked autoencoders that come with the package, sorted."""
    return tuple(_bundled())


def parse_mae_config(values: Mapping[str, object], where: str) -> MaeConfig:
    """Make a `MaeConfig` of the keys and values of a ``config.json``.

    Parameters
    ----------
    values : mapping
        ``architecture``, which is "mae", and every field of `MaeConfig`.
    where : str
        The file, for messages.

    Returns
    -------
    MaeConfig
        The shape of the network.

    Raises
    ------
    ModelError
        If a key is missing or unknown, or a value is wrong.
    """
    if values.get("architecture") != ARCHITECTURE:
        raise ModelError(
            where=f"{where}: architecture", expected=f'"{ARCHITECTURE}"',
            found=repr(values.get("architecture")),
            remedy="Name the folder of a masked autoencoder, as `tilewright train mae` writes it.",
        )  # fmt: skip
    fields = MaeConfig.__dataclass_fields__.keys()
    for key in sorted((values.keys() - {"architecture"}) ^ fields):
        expected, found = ("a value", "no such key") if key in fields else ("no such key", "one")
        raise ModelError(
            where=f"{where}: {key}", expected=expected, found=found,
            remedy="The file is damaged or of another version; copy it again.",
        )  # fmt: skip
    known = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items() if k in fields}
    try:
        return MaeConfig(**known)  # type: ignore[arg-type] # __post_init__ checks each value
    except ModelError as err:
        raise ModelError(
            where=f"{where}: {err.where}", expected=err.expected, found=err.found,
            remedy=err.remedy,
        ) from err  # fmt: skip


def config_values(config: MaeConfig) -> dict[str, object]:
    """Make the keys and values of a ``config.json``: the inverse of `parse_mae_config`."""
    return {"architecture": ARCHITECTURE, **asdict(config)}


def _open_folder(path: Path) -> MaeFolder:
    config_path = path / CONFIG_FILE
    if not config_path.is_file():
        raise ModelError(
            where=str(config_path), expected="a file", found="none",
            remedy=f"The folder of a masked autoencoder holds {CONFIG_FILE} and {WEIGHTS_FILE}.",
        )  # fmt: skip
    config = parse_mae_config(read_json(config_path), str(config_path))
    weights = find_weights(path)
    if weights.name != WEIGHTS_FILE:
        raise ModelError(
            where=str(weights), expected=WEIGHTS_FILE, found=weights.name,
            remedy="Masked autoencoders are read from safetensors only.",
        )  # fmt: skip
    digest = digest_files((config_path, weights))
    size = weights.stat().st_size
    return MaeFolder(path, config, weights, size, digest, path.resolve().name)


def _bundled() -> dict[str, Path]:
    return bundled_folders("bundled_maes", CONFIG_FILE)
