"""A device without memory: tried alone, then in smaller launches; the objects stay the same."""

import gc
import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from journeys import Runner, make_bank, read, save_image

from engine.checking import kept_passes
from engine.device import is_out_of_memory
from engine.ledger import Ledger, Record
from engine.networks.model_folder import open_model
from engine.networks.runtime import OpenNetwork
from engine.store import Location

Predict = Callable[[OpenNetwork, np.ndarray], tuple[torch.Tensor, torch.Tensor]]
SETTINGS = ("segment.precision=float32", "resources.launch=4", "resources.retries=0")


@pytest.fixture
def image(tmp_path: Path, nuclei: np.ndarray) -> Path:
    return save_image(tmp_path / "image.zarr", nuclei)


def records(out: Path) -> list[Record]:
    """Records of the regions."""
    ledger = Ledger(Location.parse(out))
    step = next(s for s in kept_passes(ledger.read_run()) if s.name == "regions")
    return list(ledger.records(step.name, step.digest, step.grid))


def refusing(above: int, first: int = 10**9) -> tuple[Predict, list[int]]:
    """A network that has no memory for more than some tiles, in its first calls."""
    asked: list[int] = []
    real = OpenNetwork.predict
    failed: list[weakref.ref[np.ndarray]] = []

    def predict(self: OpenNetwork, batch: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        # What the failed try held is gone before the next begins, without the garbage collector.
        assert [ref() for ref in failed] == [None] * len(failed)
        asked.append(len(batch))
        if len(batch) > above and len(asked) <= first:
            held = np.array(batch)
            failed.append(weakref.ref(held))
            msg = "CUDA out of memory. Tried to allocate 2.00 GiB"
            raise torch.OutOfMemoryError(msg)
        return real(self, batch)

    return predict, asked


def test_smaller_launches_give_the_same_and_are_told(
    image: Path, tmp_path: Path, run_recipe: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, out = tmp_path / "whole.ome.zarr", tmp_path / "out.ome.zarr"
    assert run_recipe(image, whole, *SETTINGS).report["smaller_launches"] == []
    predict, asked = refusing(above=1)
    monkeypatch.setattr(OpenNetwork, "predict", predict)
    gc.disable()
    try:
        outcome = run_recipe(image, out, *SETTINGS, "resources.region=512")
    finally:
        gc.enable()
    # Once more alone with as many tiles, then half, then a quarter of them.
    first = asked[0]
    assert first > 2
    assert asked[:2] == [first, first]
    assert 1 < asked[2] < first
    assert set(asked[3:]) == {1}
    assert outcome.complete
    (record,) = records(out)
    assert record.notes["launch"] == 1
    assert outcome.report["smaller_launches"] == [f"{record.region}: 1 tiles"]
    for name in ("labels/nuclei/0", "maps/probability/0"):
        assert np.array_equal(read(whole, name), read(out, name)), name
    tables = [pq.read_table(o / "tables" / "nuclei.parquet").sort_by("id") for o in (whole, out)]
    assert tables[0].equals(tables[1])
    assert tables[0].num_rows > 50


def test_smaller_launches_of_the_flags_are_told_too(
    tmp_path: Path,
    nuclei: np.ndarray,
    model: str,
    run_recipe: Runner,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    image = save_image(tmp_path / "image.zarr", nuclei[:300, :300])
    bank = make_bank(tmp_path / "bank.safetensors", open_model(model).sha256, 1)
    out, settings = tmp_path / "out.ome.zarr", (*SETTINGS, f"flags.bank={bank}")
    predict, _ = refusing(above=1)
    monkeypatch.setattr(OpenNetwork, "predict", predict)
    told = run_recipe(image, out, *settings, "resources.region=512").report["smaller_launches"]
    (record,) = records(out)
    assert told == [f"{record.region}: 1 tiles", f"flags, {record.region}: 1 tiles"]


def test_trouble_that_passes_leaves_the_launch_as_it_was(
    image: Path, tmp_path: Path, run_recipe: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    predict, asked = refusing(above=0, first=1)
    monkeypatch.setattr(OpenNetwork, "predict", predict)
    outcome = run_recipe(image, tmp_path / "out.ome.zarr", *SETTINGS, "resources.region=512")
    assert outcome.complete
    assert asked[0] == asked[1]
    assert outcome.report["smaller_launches"] == []
    assert all("launch" not in record.notes for record in records(tmp_path / "out.ome.zarr"))


def test_no_memory_for_one_tile_is_trouble_of_the_region(
    image: Path, tmp_path: Path, run_recipe: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    predict, asked = refusing(above=0)
    monkeypatch.setattr(OpenNetwork, "predict", predict)
    outcome = run_recipe(image, tmp_path / "out.ome.zarr", *SETTINGS, "resources.region=512")
    assert not outcome.complete
    (failure,) = outcome.failures
    assert "expected memory on the device for a launch of 1 tile, found OutOfMemory" in (
        failure.message
    )
    assert "Lower resources.region" in failure.message
    assert asked[-1] == 1


def test_other_errors_are_not_taken_for_it(
    image: Path, tmp_path: Path, run_recipe: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def predict(_self: OpenNetwork, batch: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        asked.append(len(batch))
        msg = "CUDA error: an illegal memory access was encountered"
        raise RuntimeError(msg)

    monkeypatch.setattr(OpenNetwork, "predict", predict)
    outcome = run_recipe(image, tmp_path / "out.ome.zarr", *SETTINGS, "resources.region=512")
    assert len(asked) == 1
    assert "illegal memory access" in outcome.failures[0].message


@pytest.mark.parametrize(
    ("err", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory."), True),
        (MemoryError(), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("out of memory of another kind"), False),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), False),
        (ValueError("DefaultCPUAllocator"), False),
    ],
)
def test_what_says_that_there_is_no_memory(err: Exception, expected: bool) -> None:
    assert is_out_of_memory(err) is expected


def test_the_allocator_of_the_cpu_says_so_itself() -> None:
    with pytest.raises(RuntimeError) as raised:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(raised.value)
