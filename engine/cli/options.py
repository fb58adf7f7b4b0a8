"""Options that several commands have, and the settings that they stand for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from engine.recipe import Settings

Recipe = Annotated[str, typer.Option("--recipe", help="Name of a recipe, or a YAML file.")]
Set = Annotated[list[str] | None, typer.Option("--set", help="Change a setting: key=value.")]
Region = Annotated[int | None, typer.Option(help="Side of a region in pixels.")]
Workers = Annotated[int | None, typer.Option(min=1, help="Worker processes.")]
Device = Annotated[str | None, typer.Option(help="auto, cpu or cuda.")]
Cluster = Annotated[
    str,
    typer.Option(
        help="local, gateway, kubernetes, slurm, or a scheduler's address: tcp://host:8786."
    ),
]
ClusterSet = Annotated[
    list[str] | None,
    typer.Option("--cluster-set", help="A setting of the cluster: key=value."),
]


def settings_of(
    recipe: str,
    overrides: list[str] | None,
    region: int | None,
    workers: int | None,
    device: str | None,
) -> Settings:
    """Recipe with the options that stand for settings of `resources`."""
    from engine.recipe import load_settings

    options = {"region": region, "workers": workers, "device": device}
    chosen = [f"resources.{name}={value}" for name, value in options.items() if value is not None]
    return load_settings(recipe, [*(overrides or []), *chosen])
