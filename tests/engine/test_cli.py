"""The command line itself: usage, exit codes, what is printed where."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from command_line import Command, commands_in
from journeys import save_image
from rich.console import Console
from semantics import make_ensemble

from engine.cli.progress import TerminalProgress
from engine.errors import InterruptedRunError, RegionError
from engine.recipe import bundled_recipes, recipe_text

COMMANDS = [
    *("ingest", "plan", "run", "batch", "status", "verify", "recipes", "evaluate", "train"),
    *("preview", "export", "phantom"),
]


@pytest.fixture
def tilewright(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    pixels = np.random.default_rng(7).integers(0, 255, (60, 70), dtype=np.uint8)
    save_image(tmp_path / "image.ome.zarr", pixels)
    return commands_in(tmp_path, monkeypatch, capsys)


def test_help_lists_every_command(tilewright: Command) -> None:
    answer = tilewright("--help")
    assert (answer.code, answer.err) == (0, "")
    assert all(f" {name} " in answer.out for name in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command(tilewright: Command, command: str) -> None:
    answer = tilewright(command, "--help")
    assert (answer.code, answer.err, answer.touched) == (0, "", ())
    assert f"tilewright {command}" in answer.out


@pytest.mark.parametrize("words", [(), ("train",)])
def test_no_words_print_help_and_are_refused(tilewright: Command, words: tuple[str, ...]) -> None:
    answer = tilewright(*words)
    assert answer.code == 2
    assert "Usage: tilewright" in answer.out + answer.err


@pytest.mark.parametrize(
    ("words", "messages"),
    [
        (["nope"], ["No such command 'nope'", "tilewright --help"]),
        (["rnu"], ["Did you mean 'run'?"]),
        (["--nope"], ["No such option: --nope"]),
        (["run"], ["Missing argument", "image", "tilewright run --help"]),
        (["run", "a.zarr"], ["Missing argument", "out"]),
        (["run", "a.zarr", "b.zarr", "c.zarr"], ["unexpected extra argument", "c.zarr"]),
        (["run", "a.zarr", "b.zarr", "--regoin", "3"], ["No such option: --regoin"]),
        (["plan", "a.zarr", "b.zarr", "--set"], ["'--set' requires an argument"]),
        (["plan", "a.zarr", "b.zarr", "--region", "x"], ["'--region'", "integer"]),
        (["plan", "a.zarr", "b.zarr", "--workers", "0"], ["'--workers'", "1"]),
        (["ingest", "a.tif", "b.zarr", "--workers", "-2"], ["'--workers'", "1"]),
        (["ingest", "a.tif", "b.zarr", "--pixel-size", "x"], ["'--pixel-size'"]),
        (["preview", "a.zarr", "b.png", "--level", "x"], ["'--level'"]),
        (["evaluate", "a.tif"], ["Missing argument"]),
        (["train", "nope"], ["No such command 'nope'", "tilewright train --help"]),
    ],
)
def test_usage_errors_are_one_message(
    tilewright: Command, words: list[str], messages: list[str]
) -> None:
    answer = tilewright(*words)
    assert (answer.code, answer.out, answer.touched) == (2, "", ())
    assert answer.err.startswith("error tilewright")
    assert answer.err.count("\n") == 1
    assert all(message in answer.err for message in messages), answer


def test_recipes_are_listed_and_printed(tilewright: Command) -> None:
    listed = tilewright("recipes")
    assert listed.code == 0
    assert [line.split()[0] for line in listed.out.splitlines()] == list(bundled_recipes())
    for name in bundled_recipes():
        assert tilewright("recipes", name).out == recipe_text(name)
    tilewright("recipes", "nope").refuses("recipe 'nope'", ", ".join(bundled_recipes()))
    tilewright("recipes", "nucleii").refuses("Did you mean 'nuclei'?")


def test_debug_shows_the_traceback_and_keeps_the_code(tilewright: Command) -> None:
    answer = tilewright("--debug", "status", "absent")
    assert answer.code == 2
    assert "Traceback" in answer.err
    assert answer.err.splitlines()[-1].startswith("error 'absent'")
    assert "Traceback" not in tilewright("status", "absent").err  # the next call starts afresh


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (RegionError(where="a", expected="b", found="c", remedy="d."), 3, "error a: expected b"),
        (InterruptedRunError(where="a", expected="b", found="c", remedy="d."), 130, "error a:"),
        (KeyboardInterrupt(), 130, ""),
        (ZeroDivisionError("by zero"), 1, "a defect of tilewright, ZeroDivisionError: by zero"),
    ],
)
def test_every_end_has_its_code(
    tilewright: Command,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    code: int,
    message: str,
) -> None:
    def raising(*_: object) -> None:
        raise error

    monkeypatch.setattr("engine.report.show_status", raising)
    answer = tilewright("status", "image.ome.zarr")
    assert answer.code == code
    assert message in answer.err
    assert "Traceback" not in answer.err


def test_messages_are_shown_as_they_are_not_as_markup(tilewright: Command) -> None:
    tilewright("status", "[red]a[/red]").refuses("'[red]a[/red]'")
    tilewright("plan", "[/b].zarr", "OUT.zarr").refuses("[/b].zarr")


def test_a_plan_writes_nothing_and_says_what_it_costs(tilewright: Command) -> None:
    answer = tilewright("plan", "image.ome.zarr", "OUT.ome.zarr")
    assert (answer.code, answer.err, answer.touched) == (0, "", ())
    for row in ("60 x 70", "1 to do", "GiB projected", "GB, decoded", "nuclei-fluo", "twice"):
        assert row in answer.out


def test_a_plan_and_the_report_count_the_same_tiles(
    tilewright: Command, tmp_path: Path, cluster_address: str
) -> None:
    """Those of the lattice, with what regions share; not once for each member."""
    ensemble = make_ensemble(tmp_path / "ensemble", ("background", "cell"), 3)
    text = "method: semantic\ntiling: {tile: 32, overlap: 16, margin: 4}\n"
    (tmp_path / "cells.yaml").write_text(f"{text}classes: {{ensemble: {ensemble}}}\n")
    words = ("image.ome.zarr", "OUT.ome.zarr", "--recipe", "cells.yaml", "--region", "32")
    words = (*words, "--set", "storage.chunk=32", "--set", "storage.shard=32")
    words = (*words, "--cluster", cluster_address)
    found = re.search(r"^tiles +(\d+) of 32 px", tilewright("plan", *words).out, re.MULTILINE)
    assert found is not None
    assert tilewright("run", *words).code == 0
    report = json.loads((tmp_path / "OUT.ome.zarr/.tilewright/report.json").read_text())
    assert int(found[1]) == report["tiles"]
    assert report["regions"]["regions"] == 6
    assert report["tiles"] > 12  # of the lattice: regions share some


def test_a_run_ends_with_a_summary_and_a_status(tilewright: Command, cluster_address: str) -> None:
    words = ("run", "image.ome.zarr", "OUT.ome.zarr", "--cluster", cluster_address)
    answer = tilewright(*words)
    assert (answer.code, answer.err) == (0, "")
    assert "done" in answer.out
    status = tilewright("status", "OUT.ome.zarr")
    assert (status.code, status.touched) == (0, ())
    assert "complete" in status.out
    assert "not complete" not in status.out
    again = tilewright(*words)
    assert again.code == 0
    assert "all done" in again.out


def test_missing_regions_end_with_3_and_are_named_until_they_are_done(
    tilewright: Command, tmp_path: Path, cluster_address: str
) -> None:
    shard = next(p for p in (tmp_path / "image.ome.zarr" / "0" / "c").rglob("*") if p.is_file())
    sound, stamp = shard.read_bytes(), shard.stat()
    # Damage that a disk does: the bytes are others, size and time are not.
    shard.write_bytes(b"\0" * len(sound))
    os.utime(shard, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    words = ("run", "image.ome.zarr", "OUT.ome.zarr", "--recipe", "identity")
    words = (*words, "--cluster", cluster_address, "--set", "resources.retries=0")
    answer = tilewright(*words)
    assert answer.code == 3
    assert "1 regions are missing" in answer.out
    assert "stored bytes that decode to pixels" in answer.out
    status = tilewright("status", "OUT.ome.zarr")
    assert "missing copy, [0:60,0:70]" in status.out
    assert "not complete" in status.out
    shard.write_bytes(sound)
    mended = tilewright(*words)
    assert mended.code == 2
    assert "--check listing" in mended.err
    os.utime(shard, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert tilewright(*words).code == 0
    assert "missing copy" not in tilewright("status", "OUT.ome.zarr").out


def test_scores_as_json(tilewright: Command) -> None:
    answer = tilewright("evaluate", "image.ome.zarr", "image.ome.zarr", "--json")
    assert answer.code == 0
    rows = json.loads(answer.out)
    assert [row["iou"] for row in rows][::5] == [0.5, 0.75]
    names = {"f1", "precision", "recall", "accuracy", "panoptic_quality", "dice", "iou_pixels"}
    assert all(row[name] == 1 for row in rows for name in names)
    assert all(row["hd95"] == 0 for row in rows)


def test_the_command_as_a_process(tmp_path: Path) -> None:
    call = [sys.executable, "-m", "engine.cli", "status", "absent"]
    done = subprocess.run(call, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error 'absent': expected a result")
    assert "Traceback" not in done.stderr


def test_an_interrupt_that_python_dropped_is_asked_for_again() -> None:
    asked = False
    with TerminalProgress(Console(quiet=True), lambda: asked) as progress:
        progress.pass_started("regions", 4, 0, 100)
        progress.regions_done("regions", 1, 25)
        asked = True
        with pytest.raises(KeyboardInterrupt):
            progress.regions_done("regions", 1, 25)
