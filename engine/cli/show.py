"""What the commands print: plans, summaries, states."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from engine.cli.describe import channel_row, facts_table, image_rows, show_colour_warning
from engine.errors import InputError
from engine.report import REASONS
from engine.store import inspect_image

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console

    from engine.device import Launch
    from engine.evaluation import ClassScores, Evaluation
    from engine.planning import Plan, StepCount
    from engine.running import Outcome
    from engine.sampling import Sample
    from engine.verifying import Verification


def show_plan(console: Console, plan: Plan, *, channels_by_default: bool = False) -> None:
    """Print what a run would do and cost; warn of a channel of a colour image that nobody named."""
    table, job = facts_table(), plan.job
    info = inspect_image(job.source.path)
    on_device = (
        f", {plan.device_bytes / 2**30:.2f} GiB of it on the device" if plan.device_bytes else ""
    )
    rows = [
        ("image", f"{job.source.path}, level {job.source.level}"),
        *image_rows(plan, info),
        ("result", str(job.out)),
        ("regions", f"{plan.regions} of {plan.region} px; {_left(plan.steps[0])}"),
        *(
            (f"  {step.name}", f"{step.regions}; {_left(step)}")
            for step in plan.steps[1:]
            if plan.choice.started and step.pending
        ),
        ("workers", f"{plan.workers} with {plan.resources.threads} threads each"),
        ("memory per worker", f"{plan.worker_bytes / 2**30:.2f} GiB projected{on_device}"),
        ("to read", f"{plan.read_bytes / 1e9:.3f} GB, decoded"),
        ("to write", f"{plan.write_bytes / 1e9:.3f} GB, decoded"),
        ("disk set aside", f"{plan.disk_bytes / 1e9:.3f} GB"),
    ]
    if job.launch is not None:
        rows += [channel_row(plan, info), *_network_rows(plan, job.launch)]
    if job.bank and (flags := job.stardist.flags):
        early = ", fields left early" if flags.stop == "early" else ""
        rows.append(
            ("defenses", f"{job.defenses} of {flags.bank}, each over all tiles again{early}")
        )
    for name, value in rows:
        table.add_row(f"[bold]{name}[/bold]", escape(value))
    console.print(table, highlight=False)
    if channels_by_default:
        show_colour_warning(console, plan, info)


def _network_rows(plan: Plan, launch: Launch) -> list[tuple[str, str]]:
    """Say which networks run, and over which tiles."""
    job, on = plan.job, f"on {launch.device}, {launch.precision}"
    rows = [("network", f"{job.model.name} {on}")] if job.model else []
    if job.ensemble is not None:
        count = len(job.ensemble.members)
        alone = "; of one, so its entropy is that of its own softmax" if count == 1 else ""
        turns = ", in turn" if job.in_turn else ""
        rows.append(("ensemble", f"{job.ensemble.name}, {count} members{turns} {on}{alone}"))
    if job.mae is not None:
        rows.append(("repair", f"{job.mae.name} {on}, windows with an uncertain patch only"))
    tiling = job.tilings()[0][0]
    text = f"{plan.tiles.computed} of {tiling.tile} px, stride {tiling.stride}, margin "
    text += f"{tiling.margin}, {tiling.blend}; {plan.tiles.twice:.1%} computed twice"
    return [*rows, ("tiles", text)]


def show_sample(console: Console, sample: Sample) -> None:
    """Print what one region took, and what that means for the run."""
    minutes = sample.total_s / 60
    total = f"{sample.total_s:.0f} s" if minutes < 5 else f"{minutes:.0f} min"
    total = total if minutes < 300 else f"{minutes / 60:.1f} h"
    console.print(
        f"sample             {sample.region.core.size / 1e6:.2f} Mpx in {sample.seconds:.2f} s on "
        f"one worker: about {total} for what is left, statistics and pyramids beside",
        highlight=False,
    )


def _left(step: StepCount) -> str:
    """Say what is left of a pass, by reason."""
    if not step.pending:
        return "all done"
    reasons = ", ".join(f"{n} {REASONS[state]}" for state, n in sorted(step.reasons.items()))
    return f"{step.pending} to do ({reasons})"


def show_verification(console: Console, found: Verification) -> None:
    """Print what a verification found."""
    findings = found.findings
    console.print(f"{findings.regions} regions, {findings.objects} objects", highlight=False)
    for message in found.documents:
        console.print(f"  [red]no document[/red] {escape(message)}", highlight=False)
    for mark in findings.marks[:20]:
        text = f"  {REASONS[mark.state]}: {mark.pass_name}, {mark.region}"
        console.print(text, markup=False, highlight=False)
    if len(findings.marks) > 20:
        console.print(f"  and {len(findings.marks) - 20} more", highlight=False)
    if found.clean:
        console.print("all stand as recorded")
    elif found.repaired or not findings.marks:
        console.print("Give the run's command again to compute just these.")
    else:
        console.print("Mark them with --repair, then give the run's command again.")


def show_outcome(
    console: Console, outcome: Outcome, *, computed: int | None = None, foreign: bool = False
) -> None:
    """Print how a run ended.

    Parameters
    ----------
    console : Console
        Where to print.
    outcome : Outcome
        What became of the run.
    computed : int or None
        Regions that this call did; None where nobody counted.
    foreign : bool
        Whether the run was an ingest, which a mended source is another for.
    """
    report = outcome.report
    if report:
        console.print(
            f"[bold]{'done' if outcome.complete else 'incomplete'}[/bold] {escape(report['out'])}"
        )
        if outcome.complete and computed == 0:
            console.print(
                "  all of it stood already: nothing was computed now. Of the run that ended "
                f"{report['finished']}:",
                highlight=False,
            )
        for name, value in summary_rows(report):
            console.print(f"  {name:<26}{value}", highlight=False)
    if outcome.failures:
        console.print(f"[red]{outcome.missing} regions are missing:[/red]")
        for failure in outcome.failures[:20]:
            text = f"  {failure.pass_name}, {failure.region}: {failure.message}"
            console.print(text, markup=False)
        console.print(_what_next(outcome, foreign=foreign))


def _what_next(outcome: Outcome, *, foreign: bool) -> str:
    """Say what to do about regions that are missing."""
    # The class of the error, as tasks put it first; what a damaged input needs, its message says.
    of_input = [f.message.startswith(f"{InputError.__name__}: ") for f in outcome.failures]
    if not any(of_input):
        return "Give the same command again to try just these."
    which = "These come" if all(of_input) else "Those that begin with InputError come"
    mend = f"{which} from the input: mend it first, as the messages say. "
    if foreign:
        return f"{mend}A mended source is another one: ingest it with --overwrite."
    return f"{mend}Then give the same command again to compute just these."


def summary_rows(report: dict[str, Any]) -> list[tuple[str, str]]:
    """Lines of a report that a person reads first."""
    told = (tell(report) for part, tell in _TOLD.items() if part in report)
    rows = [row for found in told for row in found]
    peak, projected = report["worker_bytes_peak"], report["worker_bytes_projected"]
    rows.append(
        ("memory per worker", f"{peak / 2**30:.2f} GiB, projected {projected / 2**30:.2f} GiB")
    )
    if report.get("regions_tried_again"):
        rows.append(("tried more than once", f"{report['regions_tried_again']} regions"))
    pixels, seconds = report["pixels_computed_now"], report["seconds_total"]
    speed = f", {pixels / 1e6 / seconds:.2f} Mpx/s in all" if pixels else ""
    return [*rows, ("time", f"{seconds:.1f} s{speed}")]


def _objects(report: dict[str, Any]) -> list[tuple[str, str]]:
    seams = report["seams"]
    text = f"{seams['crossing']} objects cross one; {seams['ghosts']} seen only by a neighbour, "
    return [
        ("objects", f"{report['objects']}"),
        ("seams", f"{text}{seams['missed']} not seen by it"),
    ]


def _components(report: dict[str, Any]) -> list[tuple[str, str]]:
    joined = report["components"]
    text = f"{joined['objects']} of the class map, {joined['crossing']} over seams"
    return [("objects", text)]


def _class_seams(report: dict[str, Any]) -> list[tuple[str, str]]:
    seams = report["class_seams"]
    text = f"{seams['pixels']} pixels of class maps seen twice, {seams['differing']} differ"
    return [("seams", text if seams["pixels"] else "none in the class map")]


def _repairs(report: dict[str, Any]) -> list[tuple[str, str]]:
    done = report["repairs"]
    text = f"{done['repairs']}, {done['pixels']} pixels changed, {done['left']} left; "
    return [("repairs", f"{text}{done['windows_run']} of {done['windows']} windows ran")]


def _suspects(report: dict[str, Any]) -> list[tuple[str, str]]:
    found = report["suspects"]
    text = f"{found['false_positives']} objects that may be none, "
    return [("suspects", f"{text}{found['false_negatives']} places where one may be missing")]


def _tiles(report: dict[str, Any]) -> list[tuple[str, str]]:
    mean = report["tile_overlap_deviation_mean"]
    largest = report["tile_overlap_deviation_largest"]
    return [
        ("tiles disagree by", f"{mean:.4f} probability on average, {largest:.3f} at most"),
        ("longest ray, halo", f"{report['longest_ray']:.0f} px, {report['halo']} px"),
    ]


#: Who tells of a part of a report, where it has one; in the order of the lines.
_TOLD: dict[str, Callable[[dict[str, Any]], list[tuple[str, str]]]] = {
    "objects": _objects,
    "class_seams": _class_seams,
    "components": _components,
    "repairs": _repairs,
    "suspects": _suspects,
    "tile_overlap_deviation_mean": _tiles,
}


def show_class_scores(console: Console, scores: ClassScores) -> None:
    """Print Dice of every class, before and after repair, and what entropy finds."""
    table = Table(box=None, pad_edge=False)
    found = {"before repair": scores.before, "after": scores.after}
    found |= {"changed, before": scores.changed_before, "changed, after": scores.changed_after}
    shown = {name: counts for name, counts in found.items() if counts is not None}
    for name in ("Dice", *shown):
        table.add_column(name, justify="left" if name == "Dice" else "right")
    for k, name in enumerate(scores.names):
        table.add_row(name, *(_score(counts.dice[k]) for counts in shown.values()))
    table.add_row("pixels right", *(_score(counts.micro) for counts in shown.values()))
    console.print(table, highlight=False)
    if scores.errors is not None:
        rate, found_by = scores.errors.base_rate, scores.errors.auprc
        text = f"entropy finds wrong pixels: average precision {_score(found_by)}, of chance "
        console.print(text + _score(rate), highlight=False)


def _score(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def show_scores(console: Console, scores: Evaluation) -> None:
    """Print a table of scores over the thresholds."""
    table = Table(box=None, pad_edge=False)
    for name in ("IoU", "F1", "precision", "recall", "accuracy", "PQ"):
        table.add_column(name, justify="right")
    for s in scores.instances:
        values = (s.f1, s.precision, s.recall, s.accuracy, s.panoptic_quality)
        table.add_row(f"{s.iou:.2f}", *(f"{v:.3f}" for v in values))
    console.print(table, highlight=False)
    pixel = (("Dice", scores.dice), ("IoU", scores.iou_pixels), ("HD95", scores.hd95))
    text = ", ".join(f"{name} {'none' if v is None else f'{v:.3f}'}" for name, v in pixel)
    console.print(f"foreground: {text}", highlight=False)
    if scores.hd95_note:
        console.print(scores.hd95_note, highlight=False)
