"""The command that finds the settings of flags on images with truth."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import yaml
from rich.markup import escape

from engine.cli.train_options import OUT, numbers
from engine.errors import OutputError, RecipeError
from engine.training.flags.options import MERGES, MIN_VOTES, STRENGTHS, TAUS, FlagOptions

if TYPE_CHECKING:
    from engine.training.flags.searching import FlagChoice, FlagRow

#: Rows of the table that are printed.
SHOWN = 5


def _text_of(numbers: tuple[float, ...]) -> str:
    """Write numbers as an option takes them."""
    return ",".join(f"{value:g}" for value in numbers)


def flags(
    images: Annotated[Path, typer.Option(help="Folder of validation images, PNG or TIFF.")],
    labels: Annotated[Path, typer.Option(help="Folder of label images with the same names.")],
    model: Annotated[str, typer.Option(help="Model whose objects are flagged.")] = "nuclei-fluo",
    bank: Annotated[str, typer.Option(help="Bank of defenses made for it.")] = "nuclei-fluo",
    strengths: Annotated[
        str, typer.Option(help="X: each costs a pass over all images and defenses.")
    ] = _text_of(STRENGTHS),
    taus: Annotated[str, typer.Option(help="Largest distances of a match.")] = _text_of(TAUS),
    rs: Annotated[str, typer.Option(help="R: how candidates are merged.")] = _text_of(MERGES),
    min_votes: Annotated[
        str, typer.Option(help="Shares of the defenses; 0 for one vote.")
    ] = _text_of(MIN_VOTES),
    min_votes_missing: Annotated[
        str | None, typer.Option(help="The same for what only defenses show; else as --min-votes.")
    ] = None,
    trials: Annotated[
        int | None,
        typer.Option(help="Settings that a sampler (Optuna) tries between the ends of the lists."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the sampler.")] = 0,
    precision: Annotated[
        float, typer.Option(help="Share of flags that are right, for the second choice.")
    ] = 0.73,
    out: Annotated[Path | None, typer.Option(help="JSON or YAML file to write.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Find the settings of flags that help most; they are for --set and for a recipe."""
    from engine.training.flags.document import document
    from engine.training.flags.searching import search_flags

    _check_out(out)
    if not 0 < precision <= 1:
        raise RecipeError(
            where="--precision",
            expected="a number in (0, 1]",
            found=str(precision),
            remedy="Correct it.",
        )
    options = FlagOptions(
        model=model,
        bank=bank,
        images=images,
        labels=labels,
        strengths=_numbers("--strengths", strengths),
        taus=_numbers("--taus", taus),
        merges=_numbers("--rs", rs),
        min_votes=_numbers("--min-votes", min_votes),
        min_votes_missing=(
            None
            if min_votes_missing is None
            else _numbers("--min-votes-missing", min_votes_missing)
        ),
        trials=trials,
        seed=seed,
        device=device,
    )
    choice = search_flags(options, _show)
    _print(choice, precision)
    if out is not None:
        out.write_text(_text(document(choice, precision), out), encoding="utf-8")
        OUT.print(f"all {len(choice.rows)} settings are in {escape(str(out))}")


def _check_out(out: Path | None) -> None:
    """Refuse a place before the work is done, not after."""
    if out is None:
        return
    if out.suffix not in (".json", ".yaml", ".yml"):
        raise RecipeError(
            where="--out",
            expected="a name that ends in .json, .yaml or .yml",
            found=str(out),
            remedy="Rename it.",
        )
    if out.exists() or not out.parent.is_dir():
        raise OutputError(
            where=str(out),
            expected="no such file yet, in a folder that exists",
            found="a file" if out.exists() else "no folder",
            remedy="Choose another --out.",
        )


def _numbers(option: str, text: str) -> tuple[float, ...]:
    return numbers(option, text, example=", such as 0.5,0.7")


def _show(done: int, total: int) -> None:
    """Print a line for an image."""
    OUT.print(f"image {done} of {total}", highlight=False)


def _print(choice: FlagChoice, precision: float) -> None:
    """Print the best settings and what they are worth."""
    from engine.training.flags.document import most_right

    head = f"{choice.counted} of {choice.images} images are below F1 0.95 and decide"
    lines = [f"{head}; their mean F1 without flags is {choice.before:.4f}", ""]
    lines.append("    X    tau      R  min_votes  missing  objective  precision  right  wrong")
    ranked = sorted(choice.rows, key=lambda row: -row.objective)
    lines += map(_line, ranked[:SHOWN])
    best, precise = choice.best, most_right(choice.rows, precision)
    if best.objective <= choice.before:
        lines.append("no setting helps: heeding these flags does not raise F1 on these images")
    average = choice.average_precision[best.setting.strength, best.setting.tau]
    lines.append(f"average precision of false-positive flags over the votes: {average:.2f}")
    lines += ["", f"most right flags with a precision of at least {precision:g}:"]
    lines.append("none is so precise" if precise is None else _line(precise))
    OUT.print("\n".join(lines), highlight=False)
    for name, row in (("precise", precise), ("best", best)):
        if row is not None:
            values = row.setting.overrides().items()
            chosen = (f"--set {key}={_word(value, 'null')}" for key, value in values)
            OUT.print(f"[bold]{name:8}[/bold]{' '.join(chosen)}", highlight=False)


def _line(row: FlagRow) -> str:
    """One row of the table."""
    at, right, wrong = row.setting, row.fp_right + row.fn_right, row.fp_wrong + row.fn_wrong
    return (
        f"{at.strength:5g}{at.tau:7.4g}{at.merge:7.3g}{at.min_votes:11.3g}"
        f"{_word(at.min_votes_missing, 'same', '.3g'):>9}{row.objective:11.4f}"
        f"{row.precision:11.2f}{right:7}{wrong:7}"
    )


def _word(value: float | None, absent: str, form: str = "g") -> str:
    """Write a number, or what stands for none."""
    return absent if value is None else format(value, form)


def _text(document: dict[str, Any], out: Path) -> str:
    """JSON or YAML, as the file's name asks."""
    if out.suffix == ".json":
        return json.dumps(document, indent=1) + "\n"
    return str(yaml.safe_dump(document, sort_keys=False))
