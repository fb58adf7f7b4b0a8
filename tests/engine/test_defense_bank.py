"""Fields of defenses, what they do to an image, noises, and the file that holds them."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from engine.errors import InputError, OutputError
from engine.methods.defenses import (
    CAP,
    Layout,
    evaluate,
    evaluate_tensor,
    perturb,
    perturb_field,
    perturb_tensor,
    spread,
    stretch,
)
from engine.methods.noises import fair_gaussian, fair_poisson, gaussian, poisson
from engine.methods.polynomials import lagrange_matrix
from engine.networks.defense_bank import DefenseBank, bundled_banks, open_bank, save_bank
from engine.networks.model_folder import open_model

SMALL = Layout(degree=3, blocks=2, field=32)


def _coefficients(layout: Layout, count: int, seed: int = 0) -> np.ndarray:
    """Coefficients of fields within the cap."""
    drawn = np.random.default_rng(seed).uniform(-1, 1, (count, *layout.shape))
    largest = np.abs(evaluate(drawn, layout)).max(axis=(1, 2))[:, None, None, None]
    return (drawn * 0.9 * CAP / largest).astype(np.float32)


def _bank(count: int = 3) -> DefenseBank:
    layout = Layout(degree=3, blocks=4)
    return DefenseBank(
        name="b", layout=layout, coefficients=_coefficients(layout, count),
        model_sha256="ab" * 32, f1_before=np.full(count, 0.5, np.float32),
        f1_after=np.full(count, 0.75, np.float32), mode="global",
        origins=tuple(f"image {k} at (0, 256)" for k in range(count)),
    )  # fmt: skip


def test_blocks_lie_in_c_order() -> None:
    coefficients = np.zeros((2, 2, SMALL.terms))
    coefficients[0, 1] = np.random.default_rng(0).normal(size=SMALL.terms)
    field = evaluate(coefficients, SMALL)
    block = (lagrange_matrix(3, 16) @ coefficients[0, 1]).reshape(16, 16)
    np.testing.assert_allclose(field[:16, 16:], block, atol=1e-6)
    assert not field[16:].any()
    assert not field[:, :16].any()


def test_torch_makes_the_same_fields() -> None:
    coefficients = _coefficients(SMALL, 4)
    tensor = torch.tensor(coefficients, requires_grad=True)
    fields = evaluate_tensor(tensor, SMALL)
    np.testing.assert_allclose(
        fields.detach().numpy(), evaluate(coefficients, SMALL), rtol=0, atol=1e-7
    )
    fields[0].sum().backward()
    assert tensor.grad is not None
    assert tensor.grad[0].abs().min() > 0
    assert not tensor.grad[1:].any()


@pytest.mark.parametrize(("degree", "blocks"), [(0, 4), (3, 0), (3, 3), (3, 256)])
def test_bad_layouts_are_refused(degree: int, blocks: int) -> None:
    with pytest.raises(ValueError, match="must"):
        Layout(degree, blocks)


def test_wrong_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \(2, 2, 11\), got \(2, 2, 10\)"):
        evaluate(np.zeros((2, 2, 10)), SMALL)


@given(
    origin=st.tuples(st.integers(0, 900), st.integers(0, 900)),
    shape=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    strength=st.sampled_from([0.0, 0.3, 1.0]),
)
def test_any_cut_is_the_whole(
    origin: tuple[int, int], shape: tuple[int, int], strength: float
) -> None:
    """The field is anchored to the plane: a box of a changed plane is the changed box."""
    rng = np.random.default_rng(0)
    plane = rng.normal(0.4, 0.4, (2, 960, 960)).astype(np.float32)
    field = evaluate(_coefficients(SMALL, 1)[0], SMALL)
    (y, x), (h, w) = origin, shape
    box = (slice(None), slice(y, y + h), slice(x, x + w))
    whole = perturb(plane, field, strength)
    assert np.array_equal(perturb(plane[box], field, strength, origin), whole[box])
    assert spread(field, origin, (1, 1))[0, 0] == field[y % 32, x % 32]


def test_strength_0_changes_no_bit() -> None:
    pixels = np.array([[[-0.5, -0.0, 0.0, 0.2, 1.3]]], np.float32)
    field = evaluate(_coefficients(SMALL, 1)[0], SMALL)
    assert perturb(pixels, field, 0.0).tobytes() == pixels.tobytes()
    fields = torch.from_numpy(field)[None]
    same = perturb_tensor(torch.from_numpy(pixels), fields, 0.0, (0, 0))
    assert same[0].numpy().tobytes() == pixels.tobytes()


def test_lower_bound_of_changed_pixels() -> None:
    """Nothing falls below 0, or below where it was; nothing rises from below 0 beyond its own."""
    field = np.full((32, 32), 0.25, np.float32)
    pixels = np.array([[[-0.5, 0.1, 0.5]]], np.float32)
    np.testing.assert_allclose(perturb(pixels, field, 1.0)[0, 0], [-0.5, 0.0, 0.25])
    np.testing.assert_allclose(perturb(pixels, -field, 1.0)[0, 0], [-0.25, 0.35, 0.75])


@pytest.mark.parametrize("strength", [0.7, 1.0])
def test_torch_changes_alike(strength: float) -> None:
    pixels = np.random.default_rng(1).normal(0.4, 0.4, (3, 50, 41)).astype(np.float32)
    fields = evaluate(_coefficients(SMALL, 2), SMALL)
    batch = perturb_tensor(torch.from_numpy(pixels), torch.from_numpy(fields), strength, (70, 5))
    for k in range(2):
        assert np.array_equal(batch[k].numpy(), perturb(pixels, fields[k], strength, (70, 5)))


def test_field_mode_is_the_papers() -> None:
    pixels = np.random.default_rng(2).uniform(10, 250, (1, 32, 32)).astype(np.float32)
    field = evaluate(_coefficients(SMALL, 1)[0], SMALL)
    changed = perturb_field(pixels, field, 1.0)
    assert (changed.min(), changed.max()) == (0, 1)
    assert np.array_equal(perturb_field(pixels, field, 0.0), stretch(pixels))
    low, high = pixels.min(), pixels.max()
    by_hand = np.clip((pixels - low) / (high - low) - field, 0, None)
    by_hand = (by_hand - by_hand.min()) / np.ptp(by_hand)
    np.testing.assert_allclose(changed, by_hand, atol=1e-6)
    assert not perturb_field(np.full_like(pixels, 7), field * 0, 1.0).any()


def test_noises_of_the_paper() -> None:
    """Spreads and means that METHODS measured on the published code."""
    rng = np.random.default_rng(0)
    normal, counts = gaussian(rng), poisson(rng)
    assert normal.std() == pytest.approx(0.054, abs=0.008)
    assert abs(normal.mean()) < 1e-3
    # The largest count of 65 536 draws is 4 to 6: the offset is always near -0.25.
    assert counts.mean() == pytest.approx(-0.238, abs=0.006)
    assert (counts.min(), counts.max()) == (-0.25, 0.25)
    assert np.abs(normal).max() <= CAP


def test_fair_noises_match_the_energy() -> None:
    rng = np.random.default_rng(0)
    layout = Layout(degree=3, blocks=4)
    field = evaluate(_coefficients(layout, 1)[0], layout)
    rms = float(np.sqrt(np.square(field).mean()))
    normal = fair_gaussian(field, rng)
    assert np.sqrt(np.square(normal).mean()) == pytest.approx(rms, rel=1e-4)
    assert abs(normal.mean()) < 1e-6
    image = rng.uniform(-0.05, 1, (1, 256, 256)).astype(np.float32)
    counts = fair_poisson(image, rms, rng)
    assert np.sqrt(np.square(counts).mean()) == pytest.approx(rms, rel=0.02)
    assert abs(counts.mean()) < 0.02 * rms + 1e-3
    assert not fair_poisson(np.zeros((1, 8, 8), np.float32), rms, rng).any()


def test_a_bank_comes_back(tmp_path: Path) -> None:
    bank = _bank()
    save_bank(bank, tmp_path / "sub" / "b.safetensors")
    again = open_bank(str(tmp_path / "sub" / "b.safetensors"))
    assert np.array_equal(again.coefficients, bank.coefficients)
    assert again.sha256 == bank.sha256
    assert (again.layout, again.origins, again.mode) == (bank.layout, bank.origins, bank.mode)
    np.testing.assert_allclose(again.gains, 0.25)
    assert np.array_equal(again.fields()[1], evaluate(bank.coefficients[1], bank.layout))
    with pytest.raises(OutputError, match="no such file yet"):
        save_bank(bank, tmp_path / "sub" / "b.safetensors")


def test_half_precision_only_where_it_is_exact(tmp_path: Path) -> None:
    bank = _bank()
    with pytest.raises(ValueError, match="round them first"):
        save_bank(bank, tmp_path / "b.safetensors", half=True)
    rounded = replace(bank, coefficients=bank.coefficients.astype(np.float16).astype(np.float32))
    save_bank(rounded, tmp_path / "b.safetensors", half=True)
    assert load_file(tmp_path / "b.safetensors")["coefficients"].dtype == np.float16
    assert open_bank(str(tmp_path / "b.safetensors")).sha256 == rounded.sha256 != bank.sha256


def test_digest_follows_what_decides() -> None:
    bank = _bank()
    assert replace(bank, name="other").sha256 == bank.sha256
    assert replace(bank, mode="field").sha256 != bank.sha256
    assert replace(bank, model_sha256="cd" * 32).sha256 != bank.sha256


def test_another_model_is_refused() -> None:
    bank = _bank()
    bank.check_model("ab" * 32)
    with pytest.raises(InputError, match=r"model abababababab…, for which it was made, found cdcd"):
        bank.check_model("cd" * 32)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"coefficients": np.zeros((3, 4, 4, 5), np.float32)}, "expected shape"),
        ({"coefficients": np.zeros((3, 4, 4, 11))}, "expected float32"),
        ({"coefficients": np.full((3, 4, 4, 11), np.nan, np.float32)}, "finite"),
        ({"coefficients": np.full((3, 4, 4, 11), 0.3, np.float32)}, "within ±0.25"),
        ({"f1_after": np.zeros(2, np.float32)}, "f1_after: expected shape"),
        ({"mode": "local"}, "global or field"),
    ],
)
def test_wrong_values_are_refused(change: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        replace(_bank(), **change)  # type: ignore[arg-type]


def _rewritten(file: Path, **changes: object) -> Path:
    arrays = load_file(file)
    layout = _bank().layout
    facts = {"version": 1, "name": "b", "degree": layout.degree, "blocks": layout.blocks,
             "field": 256, "model_sha256": "ab" * 32, "mode": "global",
             "origins": ["a", "b", "c"]} | changes  # fmt: skip
    save_file(arrays, file, {"tilewright.defenses": json.dumps(facts)})
    return file


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"version": 2}, "newer tilewright"),
        ({"field": 128}, "expected 256 pixels, found 128"),
        ({"degree": 4}, r"expected shape \(3, 4, 4, 17\)"),
        ({"blocks": 3}, "equal sides"),
        ({"version": "x"}, "a bank of defenses"),
        ({"origins": None}, "a bank of defenses"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, changes: dict[str, object], words: str) -> None:
    file = tmp_path / "b.safetensors"
    save_bank(_bank(), file)
    with pytest.raises(InputError, match=words):
        open_bank(str(_rewritten(file, **changes)))


def test_damaged_and_absent_files_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "b.safetensors"
    save_bank(_bank(), file)
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(InputError, match="expected a bank of defenses"):
        open_bank(str(file))
    file.unlink()
    save_file({"weight": np.zeros(3, np.float32)}, file)
    with pytest.raises(InputError, match="some other safetensors file"):
        open_bank(str(file))
    with pytest.raises(InputError, match="found neither"):
        open_bank("no-such-bank")
    with pytest.raises(InputError, match="found a folder"):
        open_bank(str(tmp_path))


@pytest.mark.parametrize("name", bundled_banks())
def test_bundled_banks_are_for_their_models(name: str) -> None:
    bank = open_bank(name)
    bank.check_model(open_model(name).sha256)
    assert len(bank) >= 100
    assert (bank.gains > 0).all()
    assert np.abs(bank.fields()).max() <= CAP
    assert len(set(bank.origins)) == len(bank)


def test_there_is_a_bundled_bank() -> None:
    assert "nuclei-fluo" in bundled_banks()
