"""What a class map adds to a job: the ensemble that makes it, and what repairs it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from engine.errors import ModelError, RecipeError
from engine.networks.ensemble import open_ensemble
from engine.networks.mae_folder import open_mae
from engine.planning.additions import Addition, wrong_channels
from engine.planning.elements import CLASSES, ENTROPY, INITIAL, Layer, probability_layer
from engine.planning.layers import derived_layer, label_dtype
from engine.stages.inpaint import Inpaint
from engine.stages.semantic import Entropy, Segment

if TYPE_CHECKING:
    from engine.networks.ensemble import Ensemble
    from engine.networks.mae_folder import MaeFolder
    from engine.planning.job import Job
    from engine.recipe import ClassSettings, Settings
    from engine.store import ImageInfo

#: Edition in which the regions pass writes all of its layers.
_REGIONS = "probability"


def add_classes(
    job: Job, wanted: ClassSettings, info: ImageInfo, settings: Settings
) -> tuple[Job, Addition]:
    """Add the ensemble that makes a class map, and what repairs it."""
    ensemble = open_ensemble(wanted.ensemble)
    members = tuple(
        replace(m, path=m.path.absolute(), weights=m.weights.absolute()) for m in ensemble.members
    )
    ensemble = replace(ensemble, path=ensemble.path.absolute(), members=members)
    _check_ensemble(ensemble, wanted, job.frame.channels)
    job.network.tiling.with_network(ensemble.divisor, 1)
    level = job.source.level
    sides = (settings.storage.chunk, settings.storage.shard)

    def layer(name: str, group: str, dtype: str, made_with: str = _REGIONS) -> Layer:
        return replace(
            derived_layer(name, group, dtype, 1, info, level, sides), made_with=made_with
        )

    layers = [layer(ENTROPY, f"maps/{ENTROPY}", "uint8")]
    layers += [
        layer(probability_layer(name), f"maps/probability/{name}", "uint8") for name in wanted.keep
    ]
    facts = {"members": ensemble.sha256}
    facts |= {f"stage.{s.name}": str(s.version) for s in (Segment, Entropy)}
    mae = None
    if wanted.repair is not None:
        mae = _mae(wanted, ensemble)
        layers.append(layer(INITIAL, f"labels/{INITIAL}", "uint8"))
        layers.append(layer(CLASSES, f"labels/{CLASSES}", "uint8", ""))
        facts |= {"mae.weights": mae.sha256, "mae.stage": str(Inpaint.version)}
    else:
        layers.append(layer(CLASSES, f"labels/{CLASSES}", "uint8"))
    if wanted.objects is not None:
        ids = label_dtype(info.levels[level].shape)
        layers.append(layer(wanted.objects.name, f"labels/{wanted.objects.name}", ids, ""))
    return replace(job, ensemble=ensemble, mae=mae), Addition(tuple(layers), facts)


def _check_ensemble(ensemble: Ensemble, wanted: ClassSettings, channels: int) -> None:
    """Refuse an ensemble that does not fit the channels, or settings that it cannot serve."""
    if ensemble.n_channel_in != channels:
        raise wrong_channels(f"ensemble '{wanted.ensemble}'", ensemble.n_channel_in, channels)
    if wanted.entropy == "vote" and len(ensemble.members) < 2:
        raise RecipeError(
            where="classes.entropy",
            expected="soft, for an ensemble of one, whose vote is never divided",
            found="vote",
            remedy="Use soft, or an ensemble of several members.",
        )
    objects = wanted.objects.classes if wanted.objects else ()
    for where, names in (("classes.keep", wanted.keep), ("classes.objects.classes", objects)):
        for name in names:
            if name not in ensemble.classes:
                raise RecipeError(
                    where=where,
                    expected=f"classes of '{wanted.ensemble}': {', '.join(ensemble.classes)}",
                    found=name,
                    remedy="Name one of them.",
                )
    if len(set(wanted.keep)) < len(wanted.keep):
        raise RecipeError(
            where="classes.keep", expected="each class once", found=", ".join(wanted.keep),
            remedy="Leave the second out.",
        )  # fmt: skip


def _mae(wanted: ClassSettings, ensemble: Ensemble) -> MaeFolder:
    """Open the masked autoencoder of a recipe that repairs; of the same classes."""
    if wanted.repair is None:
        msg = "a recipe that repairs nothing names no autoencoder"
        raise TypeError(msg)
    mae = open_mae(wanted.repair.model)
    if mae.config.classes != ensemble.classes:
        raise ModelError(
            where=f"masked autoencoder '{wanted.repair.model}'",
            expected=f"the classes of '{wanted.ensemble}': {', '.join(ensemble.classes)}",
            found=", ".join(mae.config.classes),
            remedy="Train one on these classes: tilewright train mae.",
        )
    if wanted.repair.prior_weight is not None and set(wanted.keep) != set(ensemble.classes):
        raise RecipeError(
            where="classes.repair.prior_weight",
            expected=f"classes.keep of all classes: [{', '.join(ensemble.classes)}]",
            found=f"classes.keep of [{', '.join(wanted.keep)}]",
            remedy="Keep all, since repair reads what the ensemble saw; or leave the weight out.",
        )
    return replace(mae, path=mae.path.absolute(), weights=mae.weights.absolute())
