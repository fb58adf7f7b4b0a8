"""Blocks of a transformer whose attention leaves padding out and may turn by places."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# As the source of the masked autoencoder [004] and the transformers it builds on.
NORM_EPSILON = 1e-6

# Longest wavelength of the rotary positions is 2π times this, in patches; a window has 32.
ROTARY_BASE = 100.0

# Tokens of a window up to which the attention of all windows of a launch is computed at once.
CACHED = 300


class Blocks(nn.Module):
    """Blocks of a transformer and the norm after them.

    Parameters
    ----------
    dim, depth, heads, mlp_ratio : int
        Width, number of blocks, heads, and width of the hidden layer in units of `dim`.
    """

    def __init__(self, dim: int, depth: int, heads: int, mlp_ratio: int) -> None:
        super().__init__()
        self.head_dim = dim // heads
        self.blocks = nn.ModuleList(Block(dim, heads, mlp_ratio) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, eps=NORM_EPSILON)

    def forward(self, x: Tensor, valid: Tensor, turns: tuple[Tensor, Tensor] | None) -> Tensor:
        """Map (N, T, D) to (N, T, D); attention leaves out tokens where `valid` (N, T) is False."""
        for block in self.blocks:
            x = block(x, valid, turns)
        normed: Tensor = self.norm(x)
        return normed


class Block(nn.Module):
    """Attention and a perceptron, each after a norm and added to what came in.

    Parameters
    ----------
    dim, heads, mlp_ratio : int
        As for `Blocks`.
    """

    def __init__(self, dim: int, heads: int, mlp_ratio: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(dim, eps=NORM_EPSILON)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.norm2 = nn.LayerNorm(dim, eps=NORM_EPSILON)
        self.fc1 = nn.Linear(dim, mlp_ratio * dim)
        self.fc2 = nn.Linear(mlp_ratio * dim, dim)

    def forward(self, x: Tensor, valid: Tensor, turns: tuple[Tensor, Tensor] | None) -> Tensor:
        """Map (N, T, D) to (N, T, D), as `Blocks`."""
        qkv = self.qkv(self.norm1(x)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        if turns is not None:
            q, k = turned(q, turns), turned(k, turns)
        x = x + self.proj(attend(q, k, v, valid).transpose(1, 2).flatten(2))
        added: Tensor = x + self.fc2(F.gelu(self.fc1(self.norm2(x))))
        return added


def attend(q: Tensor, k: Tensor, v: Tensor, valid: Tensor) -> Tensor:
    """Attention that leaves padded keys out.

    Parameters
    ----------
    q, k, v : Tensor
        (N, heads, T, d).
    valid : Tensor
        (N, T) bool, at least one True for each window.

    Returns
    -------
    Tensor
        (N, heads, T, d).

    Notes
    -----
    In bfloat16 on a CPU the products are written out: torch's fused attention does not use the
    processor's bfloat16 multiplication there and is 2 to 6 times slower (measured, torch 2.13).
    Beyond `CACHED` tokens one window at a time: its scores stay in the cache.
    """
    keep = valid[:, None, None, :]
    if q.device.type != "cpu" or q.dtype != torch.bfloat16:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=keep)
    with torch.autocast("cpu", enabled=False):
        barred = torch.zeros(keep.shape, dtype=q.dtype).masked_fill_(~keep, -math.inf)
        scaled, turned = q * q.shape[-1] ** -0.5, k.transpose(-1, -2)
        if q.shape[2] <= CACHED:
            return torch.softmax(scaled @ turned + barred, dim=-1) @ v
        parts = zip(scaled, turned, v, barred, strict=True)
        return torch.stack([torch.softmax(a @ b + bar, dim=-1) @ c for a, b, c, bar in parts])


def turned(x: Tensor, turns: tuple[Tensor, Tensor]) -> Tensor:
    """Turn pairs (first half, second half) of (N, heads, T, d) by angles (N, 1, T, d / 2).

    Parameters
    ----------
    x : Tensor
        Queries or keys.
    turns : tuple of Tensor
        Cosines and sines of the angles.

    Returns
    -------
    Tensor
        As `x`.
    """
    cos, sin = (t.to(x.dtype) for t in turns)
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)


def rotary_angles(places: Tensor, head_dim: int) -> Tensor:
    """Angles by which pairs of a head turn.

    Parameters
    ----------
    places : Tensor
        (..., 2): y and x, patches.
    head_dim : int
        Width of a head, a multiple of 4.

    Returns
    -------
    Tensor
        (..., head_dim / 2), radians: of y, then of x.
    """
    quarter = head_dim // 4
    steps = torch.arange(quarter, dtype=torch.float32, device=places.device)
    return (places[..., None] * ROTARY_BASE ** (-steps / quarter)).flatten(-2)
