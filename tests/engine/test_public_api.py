"""What `import engine` offers, what it costs, and that plans need neither torch nor a scheduler."""

import inspect
import json
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import tifffile
from journeys import save_image

import engine
import engine.planning
import engine.recipe
import tiling
from engine import errors

ROOT = Path(engine.__file__).parents[1]
HEAVY = ("torch", "distributed", "stardist", "skimage", "monai", "xarray")


def test_all_is_what_can_be_imported() -> None:
    assert sorted(engine.__all__) == engine.__all__
    assert set(engine.__all__) == {"evaluate", "ingest", "open_result", "plan", "run", "verify"}
    for name in engine.__all__:
        assert callable(getattr(engine, name))
        assert name in dir(engine)
    with pytest.raises(AttributeError, match="no attribute 'nope'"):
        engine.nope  # noqa: B018 - the access is what is tested


def test_lazy_names_and_their_annotations_agree() -> None:
    """The names for type checkers and those that are imported on use come from the same homes."""
    source = (ROOT / "engine" / "__init__.py").read_text()
    for name, home in engine._HOME.items():
        assert getattr(engine, name) is getattr(import_module(home), name)
        lines = [line for line in source.splitlines() if f"from {home} import" in line]
        assert any(name in line for line in lines), name
    assert set(engine._HOME) == set(engine.__all__)


@pytest.mark.parametrize("name", engine.__all__)
def test_every_function_is_documented(name: str) -> None:
    function = getattr(engine, name)
    text = inspect.getdoc(function)
    assert text is not None
    for section in ("Parameters", "Returns", "Raises"):
        assert f"\n{section}\n{'-' * len(section)}\n" in text, section
    for parameter in inspect.signature(function).parameters:
        assert parameter in text.split("Returns\n-------")[0], parameter


@pytest.mark.parametrize(
    "name",
    [
        "engine.errors",
        "engine.evaluation",
        "engine.planning",
        "engine.recipe",
        "engine.review",
        "engine.running",
        "engine.store",
        "engine.store.sources",
        "tiling",
    ],
)
def test_what_a_package_offers_is_there_and_documented(name: str) -> None:
    module = import_module(name)
    offered = getattr(module, "__all__", None) or [
        key for key, value in vars(module).items() if inspect.isclass(value)
    ]
    assert module.__doc__
    for key in offered:
        value = getattr(module, key)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert inspect.getdoc(value), key


def test_every_error_has_an_exit_code_and_stands_in_the_tree() -> None:
    kinds = [v for v in vars(errors).values() if inspect.isclass(v)]
    assert errors.__doc__ is not None
    assert all(kind.__name__ in errors.__doc__ for kind in kinds)
    codes = {kind.__name__: kind.exit_code for kind in kinds}
    assert {k for k, v in codes.items() if v == 2} == {
        "RefusedError",
        *(kind.__name__ for kind in errors.RefusedError.__subclasses__()),
    }
    assert codes["RegionError"] == 3
    assert codes["InterruptedRunError"] == 130


def test_the_command_is_the_one_that_the_package_declares() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["scripts"] == {"tilewright": "engine.cli:main"}
    assert callable(import_module("engine.cli").main)
    assert project["name"] == "tilewright"


def loaded_after(code: str, folder: Path) -> set[str]:
    """Heavy modules that a fresh interpreter holds after some code."""
    script = (
        f"{code}\nimport json, sys\nprint(json.dumps(sorted(set({HEAVY!r}) & set(sys.modules))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=folder, check=False
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


COMMAND = """
import sys
from engine.cli import main
sys.argv = ["tilewright", {words}]
try:
    main()
except SystemExit as end:
    assert end.code == {code}, end.code
"""


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["plan", "image.ome.zarr", "OUT.ome.zarr"], 0),
        (["plan", "absent.ome.zarr", "OUT.ome.zarr"], 2),
        (["status", "absent"], 2),
        (["recipes"], 0),
        (["--help"], 0),
    ],
)
def test_plan_and_status_import_neither_torch_nor_distributed(
    tmp_path: Path, model: str, words: list[str], code: int
) -> None:
    assert model
    save_image(tmp_path / "image.ome.zarr", np.zeros((60, 70), np.uint8))
    text = COMMAND.format(words=", ".join(map(repr, words)), code=code)
    assert not loaded_after(text, tmp_path) & {"torch", "distributed"}


def test_status_of_a_run_imports_neither_torch_nor_distributed(
    tmp_path: Path, cluster_address: str
) -> None:
    save_image(tmp_path / "image.ome.zarr", np.zeros((60, 70), np.uint8))
    out = tmp_path / "OUT.ome.zarr"
    done = engine.run(tmp_path / "image.ome.zarr", out, "identity", cluster=cluster_address)
    assert done.complete
    text = COMMAND.format(words="'status', 'OUT.ome.zarr'", code=0)
    assert not loaded_after(text, tmp_path) & {"torch", "distributed"}


def test_importing_the_package_loads_nothing_heavy(tmp_path: Path) -> None:
    assert loaded_after("import engine; dir(engine); engine.__all__", tmp_path) == set()
    assert loaded_after("import tiling", tmp_path) == set()
    code = "import sys, tiling; assert not {'zarr', 'scipy', 'engine'} & set(sys.modules)"
    loaded_after(code, tmp_path)


def test_planning_an_ingest_needs_no_torch(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((60, 70), np.uint8))
    code = (
        "from engine.planning import make_ingest_plan\n"
        "from engine.recipe import Resources, Storage\n"
        "make_ingest_plan('a.tif', 'a.ome.zarr', Storage(), Resources())"
    )
    assert not loaded_after(code, tmp_path) & {"torch", "distributed"}


def test_the_journey_in_python(tmp_path: Path, cluster_address: str) -> None:
    pixels = np.arange(60 * 70, dtype=np.uint16).reshape(60, 70)
    save_image(tmp_path / "image.ome.zarr", pixels)
    out = tmp_path / "OUT.ome.zarr"
    plan = engine.plan(tmp_path / "image.ome.zarr", out, "identity", overrides=["storage.chunk=64"])
    assert isinstance(plan, engine.planning.Plan)
    assert not out.exists()
    settings = engine.recipe.load_settings("identity", ["storage.chunk=64"])
    assert engine.plan(tmp_path / "image.ome.zarr", out, settings).job == plan.job
    outcome = engine.run(tmp_path / "image.ome.zarr", out, settings, cluster=cluster_address)
    assert outcome.complete
    tree = engine.open_result(out)
    assert np.array_equal(tree["/0/image"].to_numpy(), pixels)
    assert engine.evaluate(pixels, pixels).dice == 1


def test_a_box_is_made_from_the_public_package() -> None:
    assert tiling.Box((0, 0), (2, 3)).shape == (2, 3)
