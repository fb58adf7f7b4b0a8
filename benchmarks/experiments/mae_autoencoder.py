"""The competitor of Sauer et al. in table 2: a convolutional autoencoder that refines class maps.

Theirs (`AE_Alternative` in the authors' code, BioMaeRef) squeezes a window with strided
convolutions and a linear layer into 2 by 2 positions and answers for every pixel; it is never told
what is doubtful. Ours is a denoising one and stronger: a channel says what is masked, 4 by 4
pixels have a code of their own, and dilated convolutions carry knowledge over 187 pixels, more
than a window of the masked autoencoder. As in the source there are no skips past the code.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from engine.errors import ModelError
from engine.networks.mae import Prediction
from engine.networks.states import load_state, read_state, stored_state

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from engine.networks.mae_folder import MaeConfig

#: Channels of the image at half its size, and of the code.
NARROW, WIDE = 32, 96

#: Steps between the samples of the 3 by 3 convolutions of the code.
DILATIONS = (1, 2, 4, 8, 4, 2, 1)

#: Pixels along y and x for which there is one code.
STRIDE = 4

_CLASSES = "classes"


class Residual(nn.Module):
    """Normalisation, ReLU and a dilated convolution, added to what came in (He et al. 2016)."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.conv = nn.Conv2d(channels, channels, 3, padding=dilation, dilation=dilation)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, Y, X) to the same shape."""
        return x + self.conv(F.relu(self.norm(x)))


class ConvolutionalAutoencoder(nn.Module):
    """Classes of masked pixels from those around, by convolutions alone.

    Parameters
    ----------
    count : int
        Classes.
    """

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count
        self.encoder = nn.Sequential(
            _block(count + 1, NARROW, stride=2),
            nn.Conv2d(NARROW, WIDE, 3, padding=1, stride=2, bias=False),
            *(Residual(WIDE, dilation) for dilation in DILATIONS),
            nn.BatchNorm2d(WIDE), nn.ReLU(),
        )  # fmt: skip
        self.decoder = nn.Sequential(
            nn.Upsample(scale_factor=2), _block(WIDE, NARROW),
            nn.Upsample(scale_factor=2), _block(NARROW, NARROW // 2),
            nn.Conv2d(NARROW // 2, count, 1),
        )  # fmt: skip

    def forward(self, classes: Tensor, masked: Tensor) -> Tensor:
        """Predict logits.

        Parameters
        ----------
        classes : Tensor
            (N, Y, X) uint8, class indices; those that are masked have no influence.
        masked : Tensor
            (N, Y, X) bool; Y and X are multiples of `STRIDE`.

        Returns
        -------
        Tensor
            (N, C, Y, X).
        """
        known = torch.arange(self.count, device=classes.device)[:, None, None]
        seen = (classes[:, None] == known) & ~masked[:, None]
        x = torch.cat([seen, masked[:, None]], dim=1).to(self.decoder[-1].weight.dtype)
        logits: Tensor = self.decoder(self.encoder(x.contiguous(memory_format=torch.channels_last)))
        return logits


class OfPatches(nn.Module):
    """The same network, asked as a masked autoencoder is: its loss and its score serve here too.

    Parameters
    ----------
    config : MaeConfig
        Classes, window and patch.
    """

    def __init__(self, config: MaeConfig) -> None:
        super().__init__()
        self.config = config
        self.network = ConvolutionalAutoencoder(len(config.classes))

    def forward(
        self, patches: Tensor, visible: Tensor, wanted: Tensor, _lengths: tuple[int, int]
    ) -> Prediction:
        """Predict the classes of all patches, as `MaskedAutoencoder.forward`.

        Patches that are not wanted are far from any foreground: seen, as background.
        """
        side, patch = self.config.side, self.config.patch

        def wide(values: Tensor) -> Tensor:
            grid = values.unflatten(1, (side, side)).unflatten(3, (patch, patch))
            return grid.transpose(2, 3).flatten(3, 4).flatten(1, 2)

        masked = (wanted & ~visible)[..., None].expand(patches.shape)
        logits = self.network(wide(patches), wide(masked)).permute(0, 2, 3, 1)
        cut = logits.unflatten(2, (side, patch)).unflatten(1, (side, patch)).transpose(2, 3)
        index = torch.arange(visible.shape[1], device=visible.device).expand(visible.shape)
        return Prediction(cut.flatten(3, 4).flatten(1, 2), index, wanted)


@dataclass(frozen=True)
class Autoencoder:
    """A trained one, in its file.

    Parameters
    ----------
    path : Path
        Safetensors, as `save_autoencoder` writes them.
    classes : tuple of str
        Names, background first.
    sha256 : str
        Digest of the file.
    device : str
        Where it runs, in float32.
    """

    path: Path
    classes: tuple[str, ...]
    sha256: str
    device: str

    @cached_property
    def network(self) -> ConvolutionalAutoencoder:
        """In evaluation mode."""
        network = ConvolutionalAutoencoder(len(self.classes))
        load_state(network, read_state(self.path, str(self.path)), str(self.path))
        return network.eval().requires_grad_(requires_grad=False).to(self.device)

    @torch.inference_mode()
    def fill(self, classes: np.ndarray, doubtful: np.ndarray) -> np.ndarray:
        """Fill doubtful pixels (Y, X) bool of a class map (Y, X) uint8; all else is copied."""
        pad = [(0, -n % STRIDE) for n in classes.shape]
        given = (np.pad(one, pad, mode="symmetric")[None] for one in (classes, doubtful))
        logits = self.network(*(torch.from_numpy(one).to(self.device) for one in given))
        found = logits[0].argmax(dim=0).to(torch.uint8).cpu().numpy()
        return np.where(doubtful, found[: classes.shape[0], : classes.shape[1]], classes)


def open_autoencoder(path: Path, classes: Sequence[str], device: str) -> Autoencoder:
    """Open a file.

    Parameters
    ----------
    path : Path
        The file.
    classes : sequence of str
        That it must answer for.
    device : str
        Where it shall run.

    Returns
    -------
    Autoencoder
        Its weights are read when it is first asked.

    Raises
    ------
    ModelError
        If it is no such file, or answers for other classes.
    """
    try:
        with safe_open(path, framework="pt") as file:
            told = (file.metadata() or {}).get(_CLASSES)
    except (SafetensorError, OSError) as err:
        raise _refused(path, "readable safetensors", str(err)) from err
    if told != ",".join(classes):
        raise _refused(path, f"the classes {','.join(classes)}", told or "no names of classes")
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return Autoencoder(path, tuple(classes), sha256, device)


def save_autoencoder(network: ConvolutionalAutoencoder, classes: Sequence[str], path: Path) -> None:
    """Write weights and the names of the classes; the file appears complete or not at all."""
    partial = path.with_suffix(".part")
    state = {name: value.contiguous() for name, value in stored_state(network).items()}
    save_file(state, partial, metadata={_CLASSES: ",".join(classes)})
    partial.chmod(0o644)  # save_file makes it readable by its owner alone
    partial.rename(path)


def _block(channels: int, out: int, stride: int = 1) -> nn.Sequential:
    """Convolution, normalisation, ReLU."""
    conv = nn.Conv2d(channels, out, 3, padding=1, stride=stride, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out), nn.ReLU())


def _refused(path: Path, expected: str, found: str) -> ModelError:
    return ModelError(
        where=str(path), expected=expected, found=found,
        remedy="Name a file that mae_autoencoder_training.py wrote for these classes.",
    )  # fmt: skip
