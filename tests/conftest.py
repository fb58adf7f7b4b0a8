"""Settings that all tests share."""

from pathlib import Path

import pytest
from hypothesis import settings

# No deadline: machines that run these tests are shared, and a slow second is no failure.
settings.register_profile("tilewright", deadline=None, print_blob=True)
settings.load_profile("tilewright")

SHARED = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real images with truth, beside the checkout; tests that need them skip without."""
    if not SHARED.is_dir():
        pytest.skip(f"needs the shared data folder at {SHARED}, which is absent")
    return SHARED
