"""Class maps and entropy of stacks of images, by the engine itself, kept in a folder."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tifffile
import zarr

import engine
from engine.stages.base import Frame, Place, Raster
from engine.stages.inpaint import Inpaint, pixels_at_once
from engine.stages.semantic import Entropy, Segment

if TYPE_CHECKING:
    from mae_autoencoder import Autoencoder

    from engine.device import Launch
    from engine.networks.ensemble import Ensemble
    from engine.networks.mae_folder import MaeFolder
    from engine.stages.base import Made

#: As the recipe `mitochondria`, but for percentiles of each plane, since images are normalised one
#: by one in training.
RECIPE = """\
method: semantic
normalise: {{over: plane}}
tiling: {{tile: 512, overlap: 64, margin: 24}}
classes:
  ensemble: {ensemble}
  precision: {precision}
  entropy: {entropy}
  keep: [{classes}]
  repair: {{model: {mae}, threshold: {threshold}}}
"""

#: What the source masks by.
THRESHOLD = 0.4


@dataclass(frozen=True)
class Maps:
    """What a run says of a stack.

    Parameters
    ----------
    initial, repaired : ndarray of shape (Z, Y, X), uint8
        Class maps of the ensemble, and after repair at `THRESHOLD`.
    entropy : ndarray of shape (Z, Y, X), uint8
        255 times the entropy.
    probability : tuple of zarr.Array
        255 times the mean probability of each class, (Z, Y, X) uint8, on disk.
    """

    initial: np.ndarray
    repaired: np.ndarray
    entropy: np.ndarray
    probability: tuple[zarr.Array[Any], ...]

    def stored_mean(self, plane: int) -> np.ndarray:
        """255 times the mean probability of one plane: (C, Y, X) uint8."""
        return np.stack([np.asarray(one[plane]) for one in self.probability])

    def mean(self, plane: int) -> np.ndarray:
        """Mean probability of one plane: (C, Y, X) float32."""
        return self.stored_mean(plane).astype(np.float32) / 255


@dataclass(frozen=True)
class Networks:
    """An ensemble, an autoencoder, how they run, and where results lie.

    Parameters
    ----------
    ensemble : Ensemble
        The members.
    mae : MaeFolder
        What repairs.
    launch : Launch
        Device and precision; windows per launch where the stage is called alone.
    folder : Path
        The cache.
    cluster : str
        "local", or the address of a Dask scheduler.
    autoencoder : Autoencoder or None
        A convolutional one to compare with.
    """

    ensemble: Ensemble
    mae: MaeFolder
    launch: Launch
    folder: Path
    cluster: str = "local"
    autoencoder: Autoencoder | None = None

    def segment(self, stack: np.ndarray, entropy: str = "soft") -> Maps:
        """Run the engine on a stack (Z, Y, X), or read what it said before."""
        image = self.folder / f"image-{digest(stack)}.ome.zarr"
        facts = (self.ensemble.sha256, self.mae.sha256, entropy, self.launch, RECIPE,
                 Segment.version, Entropy.version, Inpaint.version)  # fmt: skip
        out = self.folder / f"maps-{digest(stack, *facts)}.ome.zarr"
        done = out.with_suffix(".done")
        if not done.exists():
            self._ingest(stack, image)
            recipe = out.with_suffix(".yaml")
            recipe.write_text(self._recipe(entropy))
            settings = (f"resources.device={self.launch.device}",)
            outcome = engine.run(image, out, recipe, overrides=settings, cluster=self.cluster)
            if not outcome.complete:
                raise RuntimeError(f"the run failed: {outcome.failures}")
            done.touch()

        def stored(name: str) -> zarr.Array[Any]:
            return zarr.open_array(out / name / "0", mode="r")

        names = ("labels/classes_initial", "labels/classes", "maps/entropy")
        initial, repaired, doubt = (np.asarray(stored(name)[...]) for name in names)
        probability = [stored(f"maps/probability/{name}") for name in self.ensemble.classes]
        return Maps(initial, repaired, doubt, tuple(probability))

    def repair(
        self, maps: Maps, planes: range, threshold: float, prior_weight: float | None = None
    ) -> tuple[np.ndarray, int]:
        """Repair some planes at another threshold, by the stage; windows left as they were.

        With a weight of the prior, the ensemble's mean probabilities have their say too.
        """
        stacks = maps.initial[planes.start : planes.stop], maps.entropy[planes.start : planes.stop]
        facts = [self.mae.sha256, threshold, self.launch, Inpaint.version]
        if prior_weight is not None:
            facts += [self.ensemble.sha256, prior_weight]
        file = self.folder / f"repair-{digest(np.stack(stacks), *facts)}.npz"
        if not file.exists():
            made = [self._repair(maps, plane, threshold, prior_weight) for plane in planes]
            found = np.stack([one.products["classes"].data[0] for one in made])
            left = sum(int(one.notes["left"]) for one in made)
            write_arrays(file, classes=found, left=np.array(left))
        with np.load(file) as arrays:
            return arrays["classes"], int(arrays["left"])

    def _repair(self, maps: Maps, plane: int, threshold: float, prior_weight: float | None) -> Made:
        """Repair one plane by the stage."""
        frame = Frame((), maps.initial.shape[1:], 1, "uint16")
        pixels = pixels_at_once(self.launch, self.mae.config.window)
        stage = Inpaint(frame, self.mae, threshold, pixels, frame.bounds, prior_weight)
        given = {
            "classes_initial": Raster(frame.bounds, maps.initial[plane][None]),
            "entropy": Raster(frame.bounds, maps.entropy[plane][None]),
        }
        if prior_weight is not None:
            given["class_probability"] = Raster(frame.bounds, maps.stored_mean(plane))
        return stage.run(given, {"classes": frame.bounds}, Place((), self.launch))

    def _recipe(self, entropy: str) -> str:
        return RECIPE.format(
            ensemble=self.ensemble.path.resolve(), mae=self.mae.path.resolve(), entropy=entropy,
            precision=self.launch.precision, classes=", ".join(self.ensemble.classes),
            threshold=THRESHOLD,
        )  # fmt: skip

    def _ingest(self, stack: np.ndarray, image: Path) -> None:
        done = image.with_suffix(".done")
        if done.exists():
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        source = image.with_suffix(".tif")
        if not source.exists():  # another one would have another time, and the copy begin anew
            partial = source.with_suffix(".part")
            tifffile.imwrite(partial, stack, ome=True, metadata={"axes": "ZYX"})
            partial.rename(source)
        if not engine.ingest(source, image, pixel_size_um=1, cluster=self.cluster).complete:
            raise RuntimeError(f"{source} was not copied whole")
        done.touch()
        source.unlink()


def write_arrays(file: Path, **arrays: np.ndarray) -> None:
    """Write arrays; the file appears complete or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".part.npz")
    np.savez_compressed(partial, allow_pickle=False, **arrays)
    partial.rename(file)


def digest(stack: np.ndarray, *facts: object) -> str:
    """Name what an array and facts beside it are."""
    found = hashlib.sha256(repr((stack.shape, stack.dtype.str, facts)).encode())
    found.update(np.ascontiguousarray(stack).tobytes())
    return found.hexdigest()[:16]
