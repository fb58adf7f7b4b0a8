"""The commands of `tilewright`; exit codes 0 done, 2 refused, 3 regions missing, 130 stopped."""

from __future__ import annotations

import logging
import signal
import sys
import time
import traceback
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from engine.api import checked, on_cluster, plan_ingest, run_plan
from engine.cli import train
from engine.cli.batch import batch
from engine.cli.describe import channels_by_default, show_source
from engine.cli.options import (
    Cluster,
    ClusterSet,
    Device,
    Recipe,
    Region,
    Set,
    Workers,
    settings_of,
)
from engine.cli.phantom import phantom
from engine.cli.progress import CheckProgress, TerminalProgress
from engine.cli.results import (
    Within,
    evaluate,
    export,
    parse_box,
    preview,
    status,
    verify,
)
from engine.cli.show import show_outcome, show_plan, show_sample
from engine.errors import TilewrightError
from engine.planning import STAGES, Wish, make_plan

if TYPE_CHECKING:
    from engine.planning import Plan
    from engine.recipe import ClusterSettings, Settings
    from tiling import Box

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Microscopy images of any size: tiled, resumable, stitched into OME-Zarr.",
)
app.add_typer(train.app, name="train")
app.command()(phantom)
app.command()(batch)
for _command in (status, verify, evaluate, preview, export):
    app.command()(_command)

OUT = Console(soft_wrap=True)
ERR = Console(stderr=True, soft_wrap=True)
_STATE: dict[str, Any] = {"debug": False, "asked": None}

#: How long a stop takes at most; asking again meanwhile does not hurry it.
STOPPING_S = 10.0

Restart = Annotated[bool, typer.Option(help="Make everything anew beside OUT, then replace it.")]
Recompute = Annotated[
    str | None,
    typer.Option(help=f"Make a stage and what depends on it anew: {', '.join(STAGES)}."),
]
Check = Annotated[
    str, typer.Option(help="How closely to look at what stands: records, listing or bytes.")
]


@app.callback()
def common(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Take the options that stand before a command."""
    _STATE["debug"] = debug


@app.command()
def ingest(
    source: Annotated[str, typer.Argument(help="TIFF, slide, PNG, JPEG; a folder or glob.")],
    dest: Annotated[str, typer.Argument(help="DEST.ome.zarr")],
    pixel_size: Annotated[float | None, typer.Option(help="Micrometres per pixel.")] = None,
    axes: Annotated[
        str | None,
        typer.Option(help="Axes of an array whose file names none, in its order, such as yxc."),
    ] = None,
    chunk: Annotated[int, typer.Option(help="Side of a chunk in pixels.")] = 512,
    shard: Annotated[int, typer.Option(help="Side of a shard in pixels.")] = 2048,
    overwrite: Annotated[bool, typer.Option(help="Replace an image made by tilewright.")] = False,
    workers: Workers = None,
    cluster: Cluster = "local",
    cluster_set: ClusterSet = None,
) -> None:
    """Copy a foreign image into OME-Zarr 0.5."""
    from engine.recipe import parse_settings

    document: dict[str, Any] = {
        "method": "identity",
        "storage": {"chunk": chunk, "shard": shard},
        "resources": {"workers": workers},
    }
    settings, asked = on_cluster(parse_settings(document, "options"), cluster, cluster_set or ())
    plan = plan_ingest(
        source, dest, pixel_size, axes, settings.storage, settings.resources, overwrite=overwrite
    )
    show_source(OUT, plan)
    _execute(plan, cluster, asked)


@app.command()
def plan(
    image: Annotated[str, typer.Argument(help="An OME-Zarr image.")],
    out: Annotated[str, typer.Argument(help="OUT.ome.zarr")],
    recipe: Recipe = "nuclei",
    set_: Set = None,
    region: Region = None,
    workers: Workers = None,
    device: Device = None,
    within: Within = None,
    restart: Restart = False,
    recompute: Recompute = None,
    check: Check = "records",
    cluster: Cluster = "local",
    cluster_set: ClusterSet = None,
    sample: Annotated[bool, typer.Option(help="Measure one region, to estimate the time.")] = False,
) -> None:
    """Say what a run would do and cost; refuse what cannot be done."""
    settings = settings_of(recipe, set_, region, workers, device)
    settings, _ = on_cluster(settings, cluster, cluster_set or ())
    wish = Wish(restart, recompute)
    prepared = _plan(image, out, settings, parse_box(within), wish, check)
    by_default = channels_by_default(recipe, set_ or (), settings)
    show_plan(OUT, prepared, channels_by_default=by_default)
    if sample:
        from engine.sampling import measure

        show_sample(OUT, measure(prepared))


@app.command()
def run(
    image: Annotated[str, typer.Argument(help="An OME-Zarr image.")],
    out: Annotated[str, typer.Argument(help="OUT.ome.zarr")],
    recipe: Recipe = "nuclei",
    set_: Set = None,
    region: Region = None,
    workers: Workers = None,
    device: Device = None,
    within: Within = None,
    restart: Restart = False,
    recompute: Recompute = None,
    check: Check = "records",
    cluster: Cluster = "local",
    cluster_set: ClusterSet = None,
) -> None:
    """Run a recipe, or continue a run that stopped."""
    settings = settings_of(recipe, set_, region, workers, device)
    settings, asked = on_cluster(settings, cluster, cluster_set or ())
    wish = Wish(restart, recompute)
    prepared = _plan(image, out, settings, parse_box(within), wish, check)
    by_default = channels_by_default(recipe, set_ or (), settings)
    show_plan(OUT, prepared, channels_by_default=by_default)
    _execute(prepared, cluster, asked)


@app.command()
def recipes(
    name: Annotated[str | None, typer.Argument(help="Print this one.")] = None,
) -> None:
    """List the recipes that come with tilewright, or print one."""
    from engine.recipe import bundled_recipes, recipe_text

    if name is not None:
        OUT.print(recipe_text(name), markup=False, highlight=False, end="")
        return
    for known in bundled_recipes():
        first = recipe_text(known).splitlines()[0].removeprefix("# ")
        OUT.print(f"{known:<16}{first}", highlight=False)


def main() -> None:
    """Run the command line; every refusal is one message, with a traceback only for --debug."""
    # Also where a shell started this in the background and had it ignore SIGINT.
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, _stop)
    # A terminal that was closed; `nohup` has it ignored on purpose.
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, _stop)
    _STATE["asked"] = None
    # What libraries log goes to the file beside the run, not between the lines of progress.
    logging.getLogger().addHandler(logging.NullHandler())
    # A call in the same process before this one may have asked for it.
    _STATE["debug"] = False
    try:
        code = app(prog_name="tilewright", standalone_mode=False)
    except typer.TyperException as err:
        code = _usage(err)
    except TilewrightError as err:
        code = _complain(str(err), err.exit_code)
    except typer.Abort:
        code = 130
    except Exception as err:
        code = _complain(
            f"a defect of tilewright, {type(err).__name__}: {err}. Run it again as "
            "`tilewright --debug COMMAND ...` and report what that prints.",
            1,
        )
    sys.exit(code or 0)


def _usage(err: typer.TyperException) -> int:
    """Say what is wrong with the words of a command; print help where there are none."""
    context: typer.Context | None = getattr(err, "ctx", None)
    command = context.command_path if context is not None else "tilewright"
    # Typer has printed the help already where a command was given no words at all.
    message = err.format_message()
    if message:
        stop = "" if message.endswith((".", "?")) else "."
        _complain(f"{command}: {message}{stop} See `{command} --help`.", err.exit_code)
    return err.exit_code


def _complain(message: str, code: int) -> int:
    """Print the message of an error, after its traceback where that was asked for."""
    if _STATE["debug"]:
        traceback.print_exc()
    ERR.print(f"[red]error[/red] {escape(message)}", highlight=False)
    return code


def _plan(
    image: str, out: str, settings: Settings, within: Box | None, wish: Wish, check: str
) -> Plan:
    """Plan a run; with what a check of OUT and image finds, where one is asked for."""
    trust = check == "records"
    prepared = make_plan(image, out, settings, within, wish, trust_input=trust)
    with CheckProgress(OUT) as progress:
        return checked(prepared, check, progress.tell)


def _execute(prepared: Plan, cluster: str, asked: ClusterSettings) -> None:
    """Run a plan with progress, and end with the code that says how it went."""
    with TerminalProgress(OUT, lambda: _STATE["asked"] is not None) as progress:
        outcome = run_plan(prepared, cluster, progress, asked)
    foreign = prepared.job.source.foreign
    show_outcome(OUT, outcome, computed=progress.computed, foreign=foreign)
    if not outcome.complete:
        raise typer.Exit(3)


def _stop(signum: int, frame: object) -> None:
    """Stop: the run ends cleanly and keeps what is done."""
    now = time.monotonic()
    if _STATE["asked"] is None or now - _STATE["asked"] > STOPPING_S:
        _STATE["asked"] = now
        raise KeyboardInterrupt
