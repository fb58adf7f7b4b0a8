"""Editions: what is made anew goes into new arrays, beside those that stand, until it is complete.

::

    labels/nuclei/0            edition 1, shown from its first pixel on
    labels/nuclei/e2/0         edition 2: written beside, shown when the whole run is complete

Level 0 of a layer and its pyramid have editions of their own, so that what is downstream of a
change can be made anew alone. `run.json` says what is shown; `next.json` what is being made to
replace it. Publishing is the one step from the one to the other (`engine.running.publishing`).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, get_args

from engine.errors import OutputError, RecipeError
from engine.planning.changes import named_changes
from engine.planning.elements import PassKind
from engine.planning.identity import outputs, pass_digests

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from engine.planning.elements import Layer
    from engine.planning.job import Job

#: What `--recompute` takes, beside the kinds of passes: what the changed settings reach.
CHANGED = "changed"
STAGES = (*get_args(PassKind), CHANGED)


@dataclass(frozen=True)
class Wish:
    """What the user asked for where a run stands already.

    Parameters
    ----------
    restart : bool
        Make everything anew, beside what stands.
    recompute : str or None
        One of `STAGES`: make this kind of pass, and what depends on it, anew.
    """

    restart: bool = False
    recompute: str | None = None

    def __post_init__(self) -> None:
        if self.recompute is not None and self.recompute not in STAGES:
            raise RecipeError(
                where=f"--recompute {self.recompute}",
                expected=f"one of {', '.join(STAGES)}",
                found=self.recompute,
                remedy="Name the first stage to compute anew.",
            )
        if self.restart and self.recompute is not None:
            raise RecipeError(
                where="--restart and --recompute",
                expected="one of them",
                found="both",
                remedy="--restart makes everything anew; --recompute only what it names.",
            )


@dataclass(frozen=True)
class Choice:
    """Which run is meant: the one that stands, one that is half made beside it, or a new one.

    Parameters
    ----------
    editions : mapping of str to int
        Edition of what each pass writes.
    beside : bool
        Whether it replaces what stands only when it is complete.
    started : bool
        Whether its document stands in OUT already.
    """

    editions: Mapping[str, int]
    beside: bool
    started: bool


def choose(
    job: Job,
    parts: Mapping[str, str],
    standing: Mapping[str, Any] | None,
    coming: Mapping[str, Any] | None,
    wish: Wish,
) -> Choice:
    """Decide which run is meant.

    Parameters
    ----------
    job : Job
        With its digest, its layers in edition 1.
    parts : mapping of str to str
        Everything that decides pixels, by name.
    standing, coming : mapping or None
        ``run.json`` and ``next.json``.
    wish : Wish
        What the user asked for.

    Raises
    ------
    OutputError
        If something changed and the user did not say what to do about it: names every
        difference, and the passes that it reaches.
    """
    if standing is None:
        return Choice(dict.fromkeys(outputs(job), 1), beside=False, started=False)
    if coming is not None and coming["digest"] == job.digest and _continues(coming, wish):
        return Choice(coming["editions"], beside=True, started=True)
    if coming is not None and coming["publishing"]:
        raise OutputError(
            where=f"OUT '{job.out}'",
            expected=f"the settings of the run that is about to replace what stands: "
            f"{named_changes(parts, coming['parts']) or coming['wish']}",
            found="others",
            remedy="Give the command of that run once more; it only has to be put in place.",
        )
    kept: dict[str, int] = {n: standing["editions"].get(n, 1) for n in outputs(job)}
    reached = _reached(job, parts, standing, kept)
    if wish.restart:
        anew = set(kept)
    elif wish.recompute is not None:
        anew = downstream(job, _named(job, parts, standing, wish.recompute, reached))
    elif standing["digest"] == job.digest:
        return Choice(kept, beside=False, started=True)
    else:
        raise _refusal(job, parts, standing, reached)
    return renewed(kept, anew, standing, coming)


def renewed(
    kept: Mapping[str, int],
    anew: Iterable[str],
    standing: Mapping[str, Any],
    coming: Mapping[str, Any] | None,
) -> Choice:
    """Choice with new editions of some arrays, of a number that was never used."""
    used = [*standing["editions"].values(), *(coming or {"editions": {}})["editions"].values()]
    number = max(used, default=1) + 1
    fresh = dict.fromkeys(anew, number)
    return Choice({**kept, **fresh}, beside=True, started=False)


def fingerprint(standing: Mapping[str, Any] | None, coming: Mapping[str, Any] | None) -> str:
    """Name the state of the documents of OUT; a plan is good for the state that it saw."""
    text = json.dumps([standing, coming], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def downstream(job: Job, first: Iterable[str]) -> set[str]:
    """Name what these passes, and all that depend on them, write; passes by name."""
    names = set(first)
    if "statistics" in names:
        names.add("regions")
    for step in job.passes():
        if step.after in names:
            names.add(step.name)
    found = {step.written for step in job.passes() if step.name in names}
    return found | ({"statistics"} & names)


def with_editions(layer: Layer, editions: Mapping[str, int]) -> Layer:
    """Layer whose arrays lie where those of its editions do.

    Examples
    --------
    Level 0 of edition 2 lies in ``e2/0``; that of edition 1 in ``0``.
    """
    first = editions.get(layer.made_with or layer.name, 1)
    rest = editions.get(f"{layer.name}/pyramid", 1)
    levels = tuple(
        replace(level, path=_place(level.path, rest if k else first))
        for k, level in enumerate(layer.levels)
    )
    return replace(layer, levels=levels)


def _place(path: str, edition: int) -> str:
    level = path.rsplit("/", 1)[-1]
    return level if edition == 1 else f"e{edition}/{level}"


def _continues(coming: Mapping[str, Any], wish: Wish) -> bool:
    """Whether what is half made is what the user asks for."""
    return wish == Wish() or coming.get("wish") == (wish.recompute or "restart")


def _reached(
    job: Job, parts: Mapping[str, str], standing: Mapping[str, Any], kept: Mapping[str, int]
) -> tuple[str, ...]:
    """Names of the passes that the changed parts reach, in order."""
    old, new = standing["digests"], pass_digests(job, parts, kept)
    return tuple(name for name in new if old.get(name) != new[name])


def _named(
    job: Job,
    parts: Mapping[str, str],
    standing: Mapping[str, Any],
    stage: str,
    reached: tuple[str, ...],
) -> set[str]:
    """Find the passes that ``--recompute`` names, if all that changed lies among them."""
    if stage == CHANGED:
        return set(reached)
    kinds = {"statistics": "statistics"} | {step.name: step.kind for step in job.passes()}
    first = {name for name, kind in kinds.items() if kind == stage}
    if not first or (stage == "statistics" and "regions" not in kinds):
        raise RecipeError(
            where=f"--recompute {stage}",
            expected=f"one of {', '.join(sorted(set(kinds.values())))}, which this recipe has",
            found=stage,
            remedy="Name the first stage to compute anew.",
        )
    covered = downstream(job, first)
    outside = [s.name for s in job.passes() if s.name in reached and s.written not in covered]
    if outside:
        raise _refusal(job, parts, standing, tuple(outside))
    return first


def _refusal(
    job: Job, parts: Mapping[str, str], standing: Mapping[str, Any], reached: tuple[str, ...]
) -> OutputError:
    """Name every difference, and what it reaches."""
    anew = (
        "ingest --overwrite" if job.source.foreign
        else "--recompute changed for what the change reaches, --restart for everything"
    )  # fmt: skip
    return OutputError(
        where=f"OUT '{job.out}'",
        expected="the settings, model and input that it was started with",
        found=named_changes(standing["parts"], parts),
        remedy=f"This reaches {', '.join(reached) or 'no pass'}. Choose another OUT, go back to "
        f"the settings of this one, or make anew beside it, until complete: {anew}.",
    )
