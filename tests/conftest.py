"""Settings and fixtures that all tests share."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from distributed import LocalCluster
from hypothesis import settings
from journeys import Runner
from stardist import data

from engine.api import checked
from engine.networks.model_folder import bundled_models
from engine.planning import Wish, make_plan
from engine.recipe import load_settings
from engine.running import Outcome, execute

# No deadline: machines that run these tests are shared, and a slow second is no failure.
settings.register_profile("tilewright", deadline=None, print_blob=True)
settings.load_profile("tilewright")

SHARED = Path(__file__).parents[2] / "shared" / "data"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--golden", action="store_true", help="write tests/engine/golden.npz anew")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real images with truth, beside the checkout; tests that need them skip without."""
    if not SHARED.is_dir():
        pytest.skip(f"needs the shared data folder at {SHARED}, which is absent")
    return SHARED


class Quiet:
    """A listener that keeps what it is told."""

    def __init__(self) -> None:
        self.done: list[str] = []

    def waiting(self, reason: str) -> None: ...

    def cluster_started(self, dashboard: str, workers: int) -> None: ...

    def pass_started(self, name: str, regions: int, done: int, pixels: int) -> None: ...

    def regions_done(self, name: str, regions: int, pixels: int) -> None:
        self.done += [name] * regions

    def region_failed(self, failure: object) -> None: ...


@pytest.fixture(scope="session")
def cluster_address() -> Iterator[str]:
    """Scheduler with one worker of two threads, in this process: tasks run as on a real one."""
    with LocalCluster(
        n_workers=1,
        threads_per_worker=2,
        processes=False,
        protocol="tcp",
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
        memory_limit=0,
    ) as cluster:
        yield cluster.scheduler_address


@pytest.fixture(scope="session")
def model() -> str:
    """The bundled model."""
    assert "nuclei-fluo" in bundled_models()
    return "nuclei-fluo"


@pytest.fixture(scope="session")
def nuclei() -> np.ndarray:
    """A real fluorescence image that comes with stardist, (512, 512) uint16."""
    return np.asarray(data.test_image_nuclei_2d())


@pytest.fixture(scope="session")
def run_recipe(cluster_address: str) -> Runner:
    """Run a recipe in this process; settings as for ``--set``."""

    def run(
        image: Path,
        out: Path,
        *overrides: str,
        recipe: str = "nuclei",
        within: object = None,
        restart: bool = False,
        recompute: str | None = None,
        check: str = "records",
    ) -> Outcome:
        small = ["storage.chunk=128", "storage.shard=256"]
        if recipe == "nuclei":
            small.append("tiling.tile=256")
        settings = load_settings(recipe, [*small, *overrides])
        wish, trust = Wish(restart, recompute), check == "records"
        plan = make_plan(str(image), out, settings, within, wish, trust_input=trust)  # type: ignore[arg-type]
        return execute(checked(plan, check), cluster_address, Quiet())

    return run
