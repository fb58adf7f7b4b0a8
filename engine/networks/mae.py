"""The masked autoencoder of class maps: patches that are seen tell what stands in the others.

Sauer et al. [004]: a vision transformer encodes the patches that can be trusted, a smaller one
decodes all patches, where a learned token stands for those that are masked, and predicts classes.
Masks are boolean and belong to each window; windows of one launch are padded to one number of
tokens, and attention leaves the padding out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engine.networks.transformer import Blocks, rotary_angles

if TYPE_CHECKING:
    from engine.networks.mae_folder import MaeConfig

# He et al. 2022, "Masked autoencoders are scalable vision learners".
TOKEN_STD = 0.02

# Vaswani et al. 2017, "Attention is all you need".
SINCOS_BASE = 10000.0


@dataclass(frozen=True, slots=True)
class Prediction:
    """Classes for some patches of each window.

    Parameters
    ----------
    logits : Tensor
        (N, L, patch², C) float32 or the dtype of the weights.
    index : Tensor
        (N, L) int64: which patch.
    valid : Tensor
        (N, L) bool: False where a row only pads.
    """

    logits: Tensor
    index: Tensor
    valid: Tensor


def chosen(present: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """List the patches that are present, in order, padded to a length.

    Parameters
    ----------
    present : Tensor
        (N, P) bool, at most `length` True in a row.
    length : int
        Entries of each list, at most P.

    Returns
    -------
    index : Tensor
        (N, length) int64; padding names patches that are not present.
    valid : Tensor
        (N, length) bool: False where a list only pads.
    """
    order = torch.argsort((~present).to(torch.uint8), dim=1, stable=True)
    counts = present.sum(dim=1, keepdim=True)
    return order[:, :length], torch.arange(length, device=present.device) < counts


class MaskedAutoencoder(nn.Module):
    """Encoder, decoder and head; see `MaeConfig` for their sizes.

    Parameters
    ----------
    config : MaeConfig
        Shape of the network.

    Notes
    -----
    Of fixed sines and cosines the source scales those of the encoder alone, by 0.08. So do we, and
    the decoder adds its own unscaled: but for them, all masked tokens would be equal. With rotary
    positions, our departure, nothing is added: attention turns by places in both.
    """

    def __init__(self, config: MaeConfig) -> None:
        super().__init__()
        self.config = config
        pixels, count = config.patch**2, len(config.classes)
        dim, small = config.encoder_dim, config.decoder_dim
        self.embed = nn.Linear(pixels * (count if config.class_input == "onehot" else 1), dim)
        self.encoder_cls = nn.Parameter(torch.zeros(1, 1, dim))
        self.encoder = Blocks(dim, config.encoder_depth, config.encoder_heads, config.mlp_ratio)
        self.narrow = nn.Linear(dim, small)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, small))
        self.decoder = Blocks(small, config.decoder_depth, config.decoder_heads, config.mlp_ratio)
        self.head = nn.Linear(small, pixels * count)
        self.places: Tensor
        self.register_buffer("places", _places(config.side), persistent=False)
        self.encoder_added: Tensor
        self.decoder_added: Tensor
        for name, width, scale in (
            ("encoder_added", dim, config.position_scale), ("decoder_added", small, 1.0),
        ):  # fmt: skip
            added = _sincos(self.places, width) * scale
            used = added if config.positions == "sincos" else torch.zeros_like(added)
            self.register_buffer(name, used, persistent=False)

    def forward(
        self, patches: Tensor, visible: Tensor, wanted: Tensor, lengths: tuple[int, int]
    ) -> Prediction:
        """Predict the classes of the wanted patches from those that are visible.

        Parameters
        ----------
        patches : Tensor
            (N, P, patch²) uint8 class indices; those that are not visible have no influence.
        visible, wanted : Tensor
            (N, P) bool: what the encoder sees, and what the decoder holds besides the class
            token; visible patches are among the wanted ones.
        lengths : tuple of int
            Patches in encoder and decoder, padding included.

        Returns
        -------
        Prediction
            For the wanted patches.
        """
        seen, seen_valid = chosen(visible, lengths[0])
        encoded = self._encode(patches, seen, seen_valid)
        small = self.narrow(encoded)
        tokens = self.mask_token.to(small.dtype).expand(*patches.shape[:2], -1)
        # Padding writes the mask token, onto patches that are not visible.
        rows = torch.where(seen_valid[..., None], small[:, 1:], tokens[:, :1])
        tokens = tokens.scatter(1, _wide(seen, rows.shape[2]), rows)
        index, valid = chosen(wanted, lengths[1])
        rows = _take(tokens, index) + self.decoder_added[index]
        x = torch.cat([small[:, :1], rows.to(small.dtype)], dim=1)
        x = self.decoder(x, _with_class(valid), self._turns(index, self.decoder.head_dim))
        # A slice of one window is contiguous, of several it is not: other kernels, other last bits.
        logits = self.head(x[:, 1:].contiguous())
        pixels, count = self.config.patch**2, len(self.config.classes)
        return Prediction(logits.unflatten(2, (pixels, count)), index, valid)

    def _encode(self, patches: Tensor, index: Tensor, valid: Tensor) -> Tensor:
        classes = _take(patches, index)
        dtype = self.embed.weight.dtype
        if self.config.class_input == "onehot":
            known = torch.arange(len(self.config.classes), device=classes.device)
            values = (classes[..., None] == known).flatten(2).to(dtype)
        else:
            values = classes.to(dtype)
        tokens = self.embed(values) + self.encoder_added[index]
        first = self.encoder_cls.expand(len(tokens), -1, -1)
        x = torch.cat([first.to(tokens.dtype), tokens], dim=1)
        encoded: Tensor = self.encoder(
            x, _with_class(valid), self._turns(index, self.encoder.head_dim)
        )
        return encoded

    def _turns(self, index: Tensor, head_dim: int) -> tuple[Tensor, Tensor] | None:
        if self.config.positions == "sincos":
            return None
        angles = rotary_angles(self.places[index], head_dim)
        angles = F.pad(angles, (0, 0, 1, 0))[:, None]  # the class token stands at the origin
        dtype = self.embed.weight.dtype
        return angles.cos().to(dtype), angles.sin().to(dtype)


def _places(side: int) -> Tensor:
    """(y, x) of the patches, (P, 2) float32."""
    steps = torch.arange(side, dtype=torch.float32)
    return torch.cartesian_prod(steps, steps)


def _sincos(places: Tensor, dim: int) -> Tensor:
    """Sines and cosines of y, then of x: (P, dim) float32 (Vaswani et al. 2017, for two axes)."""
    quarter = dim // 4
    rates = SINCOS_BASE ** (-torch.arange(quarter, dtype=torch.float64) / quarter)
    angles = places.double()[..., None] * rates
    both = torch.cat([angles.sin(), angles.cos()], dim=-1)
    return both.flatten(1).float()


def _with_class(valid: Tensor) -> Tensor:
    return F.pad(valid, (1, 0), value=True)


def _wide(index: Tensor, width: int) -> Tensor:
    return index[..., None].expand(-1, -1, width)


def _take(rows: Tensor, index: Tensor) -> Tensor:
    """Rows (N, P, D) at index (N, L): (N, L, D)."""
    return rows.gather(1, _wide(index, rows.shape[2]))
