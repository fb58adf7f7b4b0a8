"""Settings of flags that a sampler proposes, where a grid of all dimensions has too many."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engine.errors import ResourceError
from engine.training.flags.options import FlagOptions, FlagSetting

if TYPE_CHECKING:
    from collections.abc import Callable


def sampler(options: FlagOptions) -> Any:  # noqa: ANN401 - of a package that may be absent
    """Open a study that proposes settings and learns from what they are worth.

    Parameters
    ----------
    options : FlagOptions
        The seed.

    Returns
    -------
    optuna.Study
        Of Optuna's sampler TPE (Bergstra et al., Algorithms for hyper-parameter optimization,
        NeurIPS 2011); the same proposals for the same answers.

    Raises
    ------
    ResourceError
        If Optuna is not installed.
    """
    try:
        import optuna
    except ImportError as err:
        raise ResourceError(
            where="--trials", expected="the package optuna", found="none",
            remedy="Install it: pip install 'tilewright[tune]'. Without --trials a grid is tried.",
        ) from err  # fmt: skip
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    seeded = optuna.samplers.TPESampler(seed=options.seed)
    return optuna.create_study(sampler=seeded, direction="maximize")


def propose(
    study: Any,  # noqa: ANN401 - as `sampler` gives it
    options: FlagOptions,
    worth: Callable[[FlagSetting], float],
) -> None:
    """Try as many settings as are asked for.

    Parameters
    ----------
    study : optuna.Study
        As `sampler` gives it.
    options : FlagOptions
        Its lists name the strengths, and between which values the rest is sought.
    worth : callable
        Judges a setting; called `options.trials` times, in the order of the trials.
    """
    missing = options.min_votes_missing or options.min_votes

    def judge(trial: Any) -> float:  # noqa: ANN401
        def between(name: str, values: tuple[float, ...]) -> float:
            # Rounded, so that what is printed for --set is what was tried.
            return round(float(trial.suggest_float(name, min(values), max(values))), 4)

        setting = FlagSetting(
            trial.suggest_categorical("strength", options.strengths),
            between("tau", options.taus),
            between("merge", options.merges),
            between("min_votes", options.min_votes),
            between("min_votes_missing", missing),
        )
        return worth(setting)

    study.optimize(judge, n_trials=options.trials)
