"""Objects of pieces under defenses and noises, kept on disk: an experiment goes on where it was."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from engine.methods import noises
from engine.methods.defenses import perturb, perturb_field, stretch
from engine.methods.starconvex import StarObjects

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engine.training.defenses.pieces import Piece
    from engine.training.flags.variants import Change, Segmenter

#: Polynomial defenses, the paper's noises, and noises of the energy of the defenses.
KINDS = ("pd", "gaussian", "poisson", "fair_gaussian", "fair_poisson")

#: Strength of the paper's noises, in its code.
NOISE_STRENGTH = 0.4


@dataclass(frozen=True)
class Pass:
    """What is subtracted from every piece.

    Parameters
    ----------
    kind : str
        One of `KINDS`.
    strength : float
        X of the defenses, or of the defenses whose energy a fair noise has.
    numbers : tuple of int
        Defenses of the bank; for noises as many draws.
    mode : {"global", "field"}
        Whether pieces are scaled by percentiles of their image, once, or by their own extremes,
        before and after every change, as in the paper.
    """

    kind: str
    strength: float
    numbers: tuple[int, ...]
    mode: str = "global"

    def changes(self, fields: np.ndarray, piece: Piece) -> list[Change]:
        """Make the changes of one piece: fields (N, 256, 256) float32 at strength 1."""
        return [self._change(k, fields, piece) for k in self.numbers]

    def _change(self, number: int, fields: np.ndarray, piece: Piece) -> Change:
        field = fields[number % len(fields)]
        seed = [KINDS.index(self.kind), number]
        if self.kind == "fair_poisson":  # the noise of this image, so each has its own draw
            seed.append(int(piece.sha256[:8], 16))
        rng = np.random.default_rng(seed)
        if self.kind == "fair_poisson":
            rms = self.strength * float(np.sqrt(np.mean(field.astype(np.float64) ** 2)))
            noise = noises.fair_poisson(piece.pixels, rms, rng)
            return partial(_add_field if self.mode == "field" else _add, noise=noise)
        if self.kind == "fair_gaussian":
            field = noises.fair_gaussian(field, rng)
        elif self.kind != "pd":
            field = {"gaussian": noises.gaussian, "poisson": noises.poisson}[self.kind](rng)
        how = perturb_field if self.mode == "field" else perturb
        return partial(how, field=field, strength=self.strength)


@dataclass(frozen=True)
class Cache:
    """Objects that a model finds in variants of pieces.

    Parameters
    ----------
    folder : Path
        Where files lie.
    segmenter : Segmenter
        The model.
    fields : ndarray of shape (N, 256, 256), float32
        Defenses of the bank at strength 1.
    """

    folder: Path
    segmenter: Segmenter
    fields: np.ndarray

    def references(self, pieces: Sequence[Piece]) -> list[StarObjects]:
        """Segment the pieces as they are."""
        return [self.segmenter.objects([piece.pixels])[0] for piece in pieces]

    def variants(self, what: Pass, pieces: Sequence[Piece]) -> list[list[StarObjects]]:
        """Objects of each piece in each variant; computed, or read where they were before."""
        file = self.folder / f"{what.kind}-{what.strength:g}-{self._name(what, pieces)}.npz"
        if not file.exists():
            found = [self._segment(what, piece) for piece in pieces]
            _write(file, [one for row in found for one in row])
        every = _read(file)
        count = len(what.numbers)
        return [every[k * count : (k + 1) * count] for k in range(len(pieces))]

    def _segment(self, what: Pass, piece: Piece) -> list[StarObjects]:
        return self.segmenter.variants(piece.pixels, what.changes(self.fields, piece))

    def _name(self, what: Pass, pieces: Sequence[Piece]) -> str:
        facts = [
            self.segmenter.model.sha256, self.segmenter.launch.precision,
            what.numbers, [piece.sha256 for piece in pieces],
        ]  # fmt: skip
        if what.mode != "global":
            facts.append(what.mode)
        if what.kind not in ("gaussian", "poisson"):  # these know nothing of the bank
            used = self.fields[list(what.numbers)]
            facts.append(hashlib.sha256(used.tobytes()).hexdigest())
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


def _add(pixels: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Add noise; no pixel falls below 0, or below what it was, as with a defense."""
    changed: np.ndarray = np.maximum(pixels + noise, np.minimum(pixels, np.float32(0)))
    return changed


def _add_field(pixels: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Add noise to a piece that spans 0 to 1, as `perturb_field` subtracts a defense."""
    return stretch(np.maximum(pixels + noise, np.float32(0)))


def _write(file: Path, found: list[StarObjects]) -> None:
    """Write objects; the file appears complete or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    together = StarObjects.concatenate(found, found[0].rays.shape[1])
    partial_file = file.with_suffix(".part.npz")
    np.savez_compressed(
        partial_file, points=together.points.astype(np.int32), scores=together.scores,
        rays=together.rays, counts=np.array([len(one) for one in found]),
    )  # fmt: skip
    partial_file.rename(file)


def _read(file: Path) -> list[StarObjects]:
    with np.load(file) as arrays:
        edges = np.cumsum(arrays["counts"])[:-1]
        parts = [np.split(arrays[name], edges) for name in ("points", "scores", "rays")]
    return [StarObjects(p.astype(np.int64), s, r) for p, s, r in zip(*parts, strict=True)]
