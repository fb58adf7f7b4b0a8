"""What networks at work share: loaded once per process, run on launches of nearly equal size."""

from __future__ import annotations

from copy import deepcopy
from itertools import pairwise
from threading import Lock
from typing import TYPE_CHECKING, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator, Sequence

    from engine.device import Device, Launch, Precision
    from tiling import Placement

ModuleT = TypeVar("ModuleT", bound=torch.nn.Module)

_DTYPES: dict[Precision, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16}

_HELD: dict[tuple[Hashable, Device, Precision], torch.nn.Module] = {}
_LOADING = Lock()
#: Networks that a process holds at most; the one loaded first goes first.
MOST_HELD = 16

#: Values of one float32 image up to which torch convolves it with another algorithm, and other last
#: bits, than the same image among several (ATen, ``ConvParams::use_mkldnn``).
SMALL = 20_480

#: Fewest values that a convolution of a network sees, by the shape of a tile.
_FEWEST: WeakKeyDictionary[torch.nn.Module, dict[tuple[int, ...], int]] = WeakKeyDictionary()


def shared_module(key: Hashable, launch: Launch, build: Callable[[], ModuleT]) -> ModuleT:
    """Build a network on its device, or take the one that this process already holds.

    Parameters
    ----------
    key : hashable
        What the network is: its checked folder.
    launch : Launch
        Device and precision.
    build : callable
        Makes the network: float32, on the CPU, in evaluation mode.

    Returns
    -------
    Module
        Its convolutions channels last, in the launch's precision.
    """
    full = (key, launch.device, launch.precision)
    with _LOADING:
        held = _HELD.get(full)
        if held is None:
            while len(_HELD) >= MOST_HELD:
                del _HELD[next(iter(_HELD))]
            held = _HELD[full] = _place(build(), launch)
    return held  # type: ignore[return-value] # one key, one kind of network


def release_module(key: Hashable) -> None:
    """Forget a network on every device, so that its memory can be used by the next one.

    Parameters
    ----------
    key : hashable
        As given to `shared_module`; nothing happens where it is not held.
    """
    with _LOADING:
        for full in [full for full in _HELD if full[0] == key]:
            del _HELD[full]


def in_launches(tiles: Sequence[Placement], most: int) -> Iterator[Sequence[Placement]]:
    """Split the tiles of a row into launches of nearly equal size, `most` at the most."""
    count = -(-len(tiles) // most)
    edges = [round(k * len(tiles) / count) for k in range(count + 1)]
    for a, b in pairwise(edges):
        yield tiles[a:b]


def stack_tiles(
    image: np.ndarray, origin: tuple[int, ...], tiles: Sequence[Placement]
) -> np.ndarray:
    """Cut tiles out of the image under them.

    Parameters
    ----------
    image : ndarray of shape (C, Y, X), float32
        Normalised image under all tiles.
    origin : tuple of int
        Place of its first pixel in the padded plane.
    tiles : sequence of Placement
        What to cut.

    Returns
    -------
    ndarray of shape (N, C, y, x), float32
        In the order of `tiles`.
    """
    return np.stack([image[(slice(None), *place.tile.slices(origin))] for place in tiles])


def with_company(batch: np.ndarray, module: torch.nn.Module, launch: Launch) -> np.ndarray:
    """Put a small tile that is alone beside its copy, so that it is answered as among others.

    Parameters
    ----------
    batch : ndarray of shape (N, C, y, x), float32
        A launch.
    module : Module
        The network, of shape (N, C, y, x) to anything.
    launch : Launch
        Its device and precision.

    Returns
    -------
    ndarray of shape (N, C, y, x), or (2, C, y, x) where N is 1
        The launch itself unless it is a lone float32 tile of which a convolution on the CPU sees
        at most `SMALL` values.
    """
    if len(batch) > 1 or launch.device != "cpu" or launch.precision != "float32":
        return batch
    return np.repeat(batch, 2, axis=0) if _fewest(module, batch.shape) <= SMALL else batch


def to_device(batch: np.ndarray, launch: Launch) -> torch.Tensor:
    """Move a batch (N, C, Y, X) to the device: in the launch's precision, channels last."""
    tensor = torch.from_numpy(batch).to(torch.device(launch.device), _DTYPES[launch.precision])
    return tensor.contiguous(memory_format=torch.channels_last)


def _fewest(module: torch.nn.Module, shape: tuple[int, ...]) -> int:
    """Fewest values that a convolution sees of a batch of some shape; tried once in a process."""
    with _LOADING:
        known = _FEWEST.setdefault(module, {})
        if shape not in known:
            # A copy, since other threads may be running the network.
            shadow, seen = deepcopy(module), list[int]()
            for part in shadow.modules():
                if isinstance(part, torch.nn.Conv2d):
                    part.register_forward_pre_hook(lambda _, given: seen.append(given[0].numel()))
            shadow(torch.zeros(shape))
            known[shape] = min(seen)
        return known[shape]


def _place(module: ModuleT, launch: Launch) -> ModuleT:
    """Fix what decides the last bits, and move a network to its device."""
    # One thread: the last bits of a convolution change with their number, and processes scale
    # better than threads (measured: 10.3 against 7.1 tiles/s on two cores).
    torch.set_num_threads(1)
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    module = module.to(torch.device(launch.device), _DTYPES[launch.precision])
    for weight in module.parameters():
        if weight.dim() == 4:
            weight.data = weight.data.contiguous(memory_format=torch.channels_last)
    return module
