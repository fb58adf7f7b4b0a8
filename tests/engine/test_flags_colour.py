"""Images of several channels: a defense is subtracted from each alike, or there is an error.

The network is the bundled one, taught to read three equal channels as it reads one; so whatever
defenses do to its objects is known.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from journeys import Runner, make_bank, save_image
from skimage.io import imsave

from engine.device import Launch
from engine.errors import InputError, ModelError
from engine.methods.defenses import Layout, perturb, perturb_field
from engine.networks.defense_bank import open_bank
from engine.networks.model_folder import open_model
from engine.networks.star_unet import StarDistUNet
from engine.networks.stardist import load_network, save_folder
from engine.training.data import normalise
from engine.training.defenses.making import read_pieces
from engine.training.defenses.options import DefenseOptions
from engine.training.defenses.pieces import Piece
from engine.training.defenses.routes import Case, descend
from engine.training.defenses.scoring import Judge
from engine.training.flags.variants import Segmenter, bank_changes

COUNT = 3
LAYOUT = Layout(degree=3, blocks=2)


@pytest.fixture(scope="module")
def colour(tmp_path_factory: pytest.TempPathFactory, model: str) -> str:
    """The bundled model with three channels in."""
    folder = open_model(model)
    state = load_network(folder).state_dict()
    wide = StarDistUNet(replace(folder.config, n_channel_in=3))
    (first,) = (name for name, v in wide.state_dict().items() if v.shape != state[name].shape)
    state[first] = state[first].repeat(1, 3, 1, 1) / 3
    wide.load_state_dict(state)
    path = tmp_path_factory.mktemp("models") / "colour"
    save_folder(wide, folder.thresholds, "# colour\n", path)
    return str(path)


@pytest.fixture(scope="module")
def piece(nuclei: np.ndarray, model: str) -> Piece:
    """A piece whose truth is what the model finds, but for some objects."""
    pixels = normalise(nuclei[None, 100:356, 100:356])
    torch.set_num_threads(1)
    segmenter = Segmenter(open_model(model), Launch("cpu", "float32", 1))
    labels = np.zeros((256, 256), np.int32)
    for k, box in enumerate(segmenter.objects([pixels])[0].boxes()[::2]):
        y0, x0, y1, x1 = np.maximum(box, 0)
        labels[y0:y1, x0:x1] = k + 1
    labels = np.unique(labels, return_inverse=True)[1].reshape(labels.shape).astype(np.int32)
    return Piece("nuclei", (0, 0), pixels, labels)


def in_colour(piece: Piece) -> Piece:
    return replace(piece, pixels=np.repeat(piece.pixels, 3, axis=0))


@pytest.fixture(scope="module")
def fields(tmp_path_factory: pytest.TempPathFactory, model: str) -> np.ndarray:
    bank = make_bank(
        tmp_path_factory.mktemp("b") / "b.safetensors", open_model(model).sha256, COUNT
    )
    return open_bank(str(bank)).fields()


def test_a_field_is_subtracted_from_every_channel(fields: np.ndarray) -> None:
    pixels = np.random.default_rng(0).uniform(0.3, 1, (3, 256, 256)).astype(np.float32)
    changed = perturb(pixels, fields[0], 0.7)
    np.testing.assert_allclose(pixels - changed, np.repeat(0.7 * fields[:1], 3, 0), atol=1e-6)
    alone = np.concatenate([perturb(one[None], fields[0], 0.7) for one in pixels])
    np.testing.assert_array_equal(changed, alone)
    pixels[0] += 1  # one scale for all channels: colours stay
    changed = perturb_field(pixels, fields[0], 0)
    np.testing.assert_allclose(changed, (pixels - pixels.min()) / np.ptp(pixels), atol=1e-6)


@pytest.mark.parametrize("mode", ["global", "field"])
def test_calibration_sees_colour_as_it_sees_grey(
    colour: str, model: str, piece: Piece, fields: np.ndarray, mode: str
) -> None:
    torch.set_num_threads(1)
    grey, rgb = (Judge(open_model(name), "cpu", "float32", mode) for name in (model, colour))
    one, other = grey.scores(piece, fields), rgb.scores(in_colour(piece), fields)
    assert [s.f1 for s in one] == pytest.approx([s.f1 for s in other], abs=0.02)
    assert [s.fine for s in one] == pytest.approx([s.fine for s in other], abs=1e-3)
    assert len({round(s.fine, 3) for s in one}) == COUNT


def test_the_gradient_goes_through_all_channels(colour: str, model: str, piece: Piece) -> None:
    torch.set_num_threads(1)
    found = []
    for name, one in ((model, piece), (colour, in_colour(piece))):
        judge = Judge(open_model(name), "cpu", "float32", "global")
        steps = descend(Case(judge, one, LAYOUT), 2)
        assert steps[0].route == "gradient"
        assert steps[0].score.total > next(f.score.total for f in steps if f.route == "zero")
        found.append(steps[0])
    np.testing.assert_allclose(*(f.coefficients for f in found), atol=1e-3)


def test_variants_of_colour_are_those_of_grey(
    colour: str, model: str, piece: Piece, fields: np.ndarray
) -> None:
    torch.set_num_threads(1)
    launch, changes = Launch("cpu", "float32", 1), bank_changes(fields, 0.7)
    grey, rgb = (Segmenter(open_model(name), launch) for name in (model, colour))
    for one, other in zip(
        grey.variants(piece.pixels, changes), rgb.variants(in_colour(piece).pixels, changes),
        strict=True,
    ):  # fmt: skip
        np.testing.assert_array_equal(one.points, other.points)
        np.testing.assert_allclose(one.rays, other.rays, atol=0.01)


@pytest.mark.timeout(300)
def test_a_run_flags_colour_as_it_flags_grey(
    tmp_path: Path, nuclei: np.ndarray, run_recipe: Runner, colour: str, model: str
) -> None:
    found = []
    pixels = nuclei[:256, :256]
    for name, image, channels in (
        (model, save_image(tmp_path / "grey.zarr", pixels), "[0]"),
        (colour, save_image(tmp_path / "rgb.zarr", np.stack([pixels] * 3), "cyx"), "[0,1,2]"),
    ):
        bank = make_bank(tmp_path / f"{image.stem}.safetensors", open_model(name).sha256, COUNT)
        out = tmp_path / f"{image.stem}.ome.zarr"
        assert run_recipe(
            image, out, f"segment.model={name}", "segment.precision=float32",
            f"input.channels={channels}", f"flags.bank={bank}",
        ).complete  # fmt: skip
        rows = pq.read_table(out / "tables/nuclei.parquet").sort_by("id").to_pydict()
        found.append([rows[column] for column in ("key", "votes", "suspect")])
    assert found[0] == found[1]
    assert any(found[0][1])
    with pytest.raises(ModelError, match="3 input channels, as it was trained"):
        run_recipe(
            tmp_path / "grey.zarr", tmp_path / "no.ome.zarr", f"segment.model={colour}",
            f"flags.bank={tmp_path / 'rgb.safetensors'}",
        )  # fmt: skip


def test_grey_images_are_refused_where_colour_is_asked(tmp_path: Path, colour: str) -> None:
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
        imsave(tmp_path / name / "a.png", np.eye(256, dtype=np.uint8), check_contrast=False)
    options = DefenseOptions(
        colour, tmp_path / "images", tmp_path / "labels", tmp_path / "b.safetensors"
    )
    with pytest.raises(InputError, match=r"expected 3 channel\(s\), as model colour, found 1"):
        read_pieces(options, open_model(colour))
