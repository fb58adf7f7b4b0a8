"""Workers of a batch: as many as fit whatever image comes, by the first that is planned."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
from journeys import save_image

from engine.errors import ResourceError
from engine.planning import Job, make_ingest_plan, make_plan
from engine.planning.many import settle_resources
from engine.recipe import Settings, load_settings
from engine.store import (
    ArraySpec,
    ImageMetadata,
    Level,
    create_array,
    make_axes,
    write_image_metadata,
)


def large_image(path: Path) -> Path:
    """Metadata of an image of 20 000 x 20 000 pixels, all background."""
    shape, axes = (20_000, 20_000), make_axes("yx", "micrometer")
    create_array(path, "0", ArraySpec(shape, "uint8", (512, 512), (2048, 2048), axes))
    level = Level("0", shape, (0.5, 0.5), (0.0, 0.0))
    write_image_metadata(path, ImageMetadata("large", axes, (level,), "uint8"))
    return path


@pytest.mark.parametrize("foreign", [True, False])
def test_a_tiny_image_first_leaves_room_for_a_large_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, foreign: bool
) -> None:
    for module in ("engine.planning.many", "engine.planning.cost"):
        monkeypatch.setattr(f"{module}.cores", lambda: 64)
    settings = load_settings("nuclei", ["resources.memory_gib=8"])
    found = settle_resources(settings, tiny_job(tmp_path, settings, foreign=foreign))
    assert found.workers is not None
    assert 1 < found.workers < 64
    large = str(large_image(tmp_path / "large.ome.zarr"))
    fitting = settings.model_copy(update={"resources": found})
    assert make_plan(large, tmp_path / "l.ome.zarr", fitting).workers == found.workers
    more = found.model_copy(update={"workers": found.workers + 1})
    with pytest.raises(ResourceError, match="memory"):
        make_plan(large, tmp_path / "m.ome.zarr", settings.model_copy(update={"resources": more}))


def tiny_job(folder: Path, settings: Settings, *, foreign: bool) -> Job:
    """Job of an image of a few pixels, or of its ingest."""
    pixels = np.zeros((40, 50), np.uint8)
    if not foreign:
        image = save_image(folder / "tiny.ome.zarr", pixels)
        return make_plan(str(image), folder / "t.ome.zarr", settings).job
    tifffile.imwrite(folder / "tiny.tif", pixels)
    place = folder / "t.ome.zarr"
    plan = make_ingest_plan(str(folder / "tiny.tif"), place, settings.storage, settings.resources)
    return plan.job


def test_what_was_asked_for_stays(tmp_path: Path) -> None:
    settings = load_settings("nuclei", ["resources.workers=3"])
    found = settle_resources(settings, tiny_job(tmp_path, settings, foreign=True))
    assert found.workers == 3
    assert found.memory_gib is not None
