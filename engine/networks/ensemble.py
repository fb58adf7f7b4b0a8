"""Ensembles: folders of members that answer for the same classes, read and checked without torch.

::

    ENSEMBLE/ensemble.json            version, classes, channels, members in their order
    ENSEMBLE/README.md                the card
    ENSEMBLE/MEMBER/config.json       architecture: unet and its fields, or stardist and its model
    ENSEMBLE/MEMBER/weights.safetensors
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

from engine.errors import ModelError
from engine.networks.checking import PLAIN_NAMES, is_int, is_number, is_plain
from engine.networks.lookup import Kind, bundled_folders, find
from engine.networks.model_folder import CONFIG_FILE, ModelFolder, bundled_models, open_model
from engine.networks.unet_config import UNetConfig
from engine.networks.weight_files import digest_files, find_weights, read_json

ENSEMBLE_FILE = "ensemble.json"
WEIGHTS_FILE = "weights.safetensors"
CARD_FILE = "README.md"

#: Version of ``ensemble.json``; a reader takes its own and older ones.
VERSION = 1

_KIND = Kind(
    "ensemble", "an ensemble folder or the name of a bundled ensemble", "Bundled ensembles"
)

Architecture = Literal["unet", "stardist"]
ARCHITECTURES: tuple[Architecture, ...] = ("unet", "stardist")


@dataclass(frozen=True, slots=True)
class Member:
    """One network of an ensemble; its weights are not loaded.

    Parameters
    ----------
    name : str
        Name of its folder.
    path : Path
        The folder.
    architecture : {"unet", "stardist"}
        What `network` is.
    network : UNetConfig or ModelFolder
        Shape of a U-Net, or the StarDist model whose object probability answers.
    weights : Path
        The file of weights; for StarDist that of the model.
    sha256 : str
        Digest of what decides its answers.
    scale, shift : float
        Of the logit of a StarDist model: ``scale * logit + shift`` is that of "pixel of an object".
    """

    name: str
    path: Path
    architecture: Architecture
    network: UNetConfig | ModelFolder
    weights: Path
    sha256: str
    scale: float = 1.0
    shift: float = 0.0

    @property
    def n_classes(self) -> int:
        """Classes that it tells apart; StarDist's probability: background and object."""
        return self.network.n_classes if isinstance(self.network, UNetConfig) else 2

    @property
    def n_channel_in(self) -> int:
        """Channels of the input image."""
        if isinstance(self.network, UNetConfig):
            return self.network.n_channel_in
        return self.network.config.n_channel_in

    @property
    def divisor(self) -> int:
        """Pixels of which an input's height and width must be multiples."""
        if isinstance(self.network, UNetConfig):
            return self.network.divisor
        return math.lcm(*self.network.config.divisor)


@dataclass(frozen=True, slots=True)
class Ensemble:
    """A checked ensemble folder; its weights are not loaded.

    Parameters
    ----------
    path : Path
        The folder.
    classes : tuple of str
        Names of the classes; their places are their indices, 0 is background.
    n_channel_in : int
        Channels of the input image.
    members : tuple of Member
        At least one; all for these classes and channels.
    sha256 : str
        Digest over classes, channels and all members in their order.
    """

    path: Path
    classes: tuple[str, ...]
    n_channel_in: int
    members: tuple[Member, ...]
    sha256: str

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.path.resolve().name

    @property
    def divisor(self) -> int:
        """Least common multiple of the members' divisors."""
        return math.lcm(*(member.divisor for member in self.members))

    @property
    def weights_bytes(self) -> int:
        """Size of all files of weights."""
        return sum(member.weights.stat().st_size for member in self.members)


def open_ensemble(path_or_name: str) -> Ensemble:
    """Open and check an ensemble folder, or a bundled ensemble by its name.

    Parameters
    ----------
    path_or_name : str
        Path of a folder, or a name of `bundled_ensembles`. A bundled name wins; write ``./NAME``
        for a folder of the same name.

    Returns
    -------
    Ensemble
        With its files digested.

    Raises
    ------
    ModelError
        If the name is unknown, a file is missing, damaged or a pickle, a value is unsupported, or
        the members do not go together.
    """
    return _open_folder(find(path_or_name, _bundled(), _KIND))


def bundled_ensembles() -> tuple[str, ...]:
    """Names of the ensembles that come with the package, sorted."""
    return tuple(_bundled())


def _open_folder(path: Path) -> Ensemble:
    file = path / ENSEMBLE_FILE
    if not file.is_file():
        raise ModelError(
            where=str(path), expected=f"an ensemble folder, with {ENSEMBLE_FILE}", found="none",
            remedy="Name the folder of the ensemble, not that of a member or of another model.",
        )  # fmt: skip
    values = read_json(file)
    version, channels = values.get("version"), values.get("channels")
    if not is_int(version, 1) or version > VERSION:
        raise _wrong(file, "version", f"at most {VERSION}", version)
    if not is_int(channels, 1):
        raise _wrong(file, "channels", "an integer >= 1", channels)
    classes = _names(values, "classes", file, least=2)
    if not all(map(is_plain, classes)):
        raise _wrong(file, "classes", PLAIN_NAMES, list(classes))
    members = tuple(_open_member(path / name) for name in _names(values, "members", file, least=1))
    for member in members:
        _check_member(member, file, len(classes), channels)
    facts = [classes, channels, [member.sha256 for member in members]]
    digest = hashlib.sha256(json.dumps(facts).encode()).hexdigest()
    return Ensemble(path, classes, members[0].n_channel_in, members, digest)


def _check_member(member: Member, file: Path, classes: int, channels: int) -> None:
    for what, expected, found in (
        ("classes", classes, member.n_classes),
        ("input channels", channels, member.n_channel_in),
    ):
        if found != expected:
            raise ModelError(
                where=f"{file}: member {member.name!r}",
                expected=f"{expected} {what}, as the ensemble has",
                found=f"{found} ({member.architecture})",
                remedy="All members of an ensemble answer for the same classes and channels.",
            )


def _open_member(path: Path) -> Member:
    file = path / CONFIG_FILE
    values = read_json(file)
    match values.get("architecture"):
        case "unet":
            weights = find_weights(path)
            if weights.name != WEIGHTS_FILE:
                raise _wrong(path, "weights", WEIGHTS_FILE, weights.name)
            digest = digest_files((file, weights))
            return Member(path.name, path, "unet", _parse_unet(values, file), weights, digest)
        case "stardist":
            model = _referred_model(values, file)
            scale, shift = _number(values, "scale", file), _number(values, "shift", file)
            facts = f"stardist:{model.sha256}:{scale!r}:{shift!r}"
            digest = hashlib.sha256(facts.encode()).hexdigest()
            return Member(path.name, path, "stardist", model, model.weights, digest, scale, shift)
        case other:
            raise _wrong(file, "architecture", " or ".join(ARCHITECTURES), other)


def _parse_unet(values: Mapping[str, object], file: Path) -> UNetConfig:
    known = {field.name for field in fields(UNetConfig)}
    keys = values.keys() - {"architecture"}
    for key in sorted(known ^ keys):
        expected = "a value" if key in known else f"only {', '.join(sorted(known))}"
        raise _wrong(file, key, expected, values.get(key, "no such key"))
    given = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items() if k in known}
    try:
        return UNetConfig(**given)  # type: ignore[arg-type] # __post_init__ checks each value
    except ModelError as err:
        raise ModelError(
            where=f"{file}: {err.where}", expected=err.expected, found=err.found,
            remedy=err.remedy,
        ) from err  # fmt: skip


def _referred_model(values: Mapping[str, object], file: Path) -> ModelFolder:
    """Open the StarDist model of a member: bundled, or at a path relative to its folder."""
    model = values.get("model")
    if not isinstance(model, str) or not model:
        raise _wrong(file, "model", "a bundled model or a path relative to this folder", model)
    if model in bundled_models() or not (file.parent / model).is_dir():
        return open_model(model)
    # Workers may stand in another folder than the user.
    return open_model(str((file.parent / model).resolve()))


def _number(values: Mapping[str, object], key: str, file: Path) -> float:
    value = values.get(key)
    if not is_number(value):
        raise _wrong(file, key, "a finite number", value)
    return float(value)


def _names(values: Mapping[str, object], key: str, file: Path, least: int) -> tuple[str, ...]:
    """Get a list of different names: they become folders and columns."""
    found = values.get(key)
    names = found if isinstance(found, list) else []
    sound = all(isinstance(n, str) and n not in ("", ".", "..") and "/" not in n for n in names)
    if not sound or len(set(names)) != len(names) or len(names) < least:
        raise _wrong(file, key, f"a list of at least {least} different names", found)
    return tuple(names)


def _wrong(file: Path, key: str, expected: str, found: object) -> ModelError:
    return ModelError(
        where=f"{file}: {key}", expected=expected, found=repr(found),
        remedy="Copy the ensemble again, or make one: tilewright train unet.",
    )  # fmt: skip


def _bundled() -> dict[str, Path]:
    return bundled_folders("bundled_ensembles", ENSEMBLE_FILE)
