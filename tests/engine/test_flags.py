"""Flags are those of the image, whatever the cut; at strength 0 nothing is flagged."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from journeys import Runner, make_bank, read, save_image

from engine.errors import RefusedError
from engine.methods.defenses import FIELD
from engine.networks.model_folder import open_model
from engine.recipe import FlagSettings, Storage
from engine.stages.base import Frame, Pipeline
from engine.stages.flags import FIELD_SIDE, Flags
from tiling import Box

COUNT = 6


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory, model: str) -> Path:
    place = tmp_path_factory.mktemp("bank") / "bank.safetensors"
    return make_bank(place, open_model(model).sha256, COUNT)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory, nuclei: np.ndarray) -> Path:
    pixels = nuclei[:, :400]
    return save_image(tmp_path_factory.mktemp("image") / "image.zarr", pixels)


@pytest.fixture(scope="module")
def settings(bank: Path) -> tuple[str, ...]:
    return ("segment.precision=float32", f"flags.bank={bank}", "flags.min_votes=0.25")


def tables(out: Path) -> tuple[pa.Table, pa.Table]:
    """Objects by id, suspects by kind and key."""
    objects = pq.read_table(out / "tables/nuclei.parquet").sort_by("id")
    suspects = pq.read_table(out / "tables/suspects.parquet")
    return objects, suspects.sort_by([("kind", "ascending"), ("key", "ascending")])


@pytest.fixture(scope="module")
def whole(
    tmp_path_factory: pytest.TempPathFactory,
    image: Path,
    run_recipe: Runner,
    settings: tuple[str, ...],
) -> Path:
    """The image flagged in one piece, by all defenses."""
    out = tmp_path_factory.mktemp("whole") / "whole.ome.zarr"
    assert run_recipe(image, out, *settings, "resources.region=512").complete
    return out


@pytest.mark.timeout(600)
@pytest.mark.parametrize("stop", ["never", "early"])
def test_flags_do_not_depend_on_the_cut(
    image: Path, tmp_path: Path, run_recipe: Runner, settings: tuple[str, ...], whole: Path,
    stop: str, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("engine.stages.flags.FIELD_SIDE", 128)
    monkeypatch.setattr("engine.stages.flags.LEAST_LOOKED", 3)
    more, cut = (f"flags.stop={stop}", "flags.risk=0.2"), tmp_path / "cut.ome.zarr"
    if stop == "early":
        whole = tmp_path / "whole.ome.zarr"
        assert run_recipe(image, whole, *settings, *more, "resources.region=512").complete
    assert run_recipe(image, cut, *settings, *more, "resources.region=256").complete
    objects, suspects = tables(whole)
    again, others = tables(cut)
    assert objects.equals(again)
    assert suspects.equals(others)
    votes = read(whole, "maps/flag_votes/0")
    np.testing.assert_array_equal(votes, read(cut, "maps/flag_votes/0"))
    # It found something to compare, and not everything.
    flagged = objects["suspect"].to_numpy(zero_copy_only=False)
    assert 0 < flagged.sum() < 0.5 * len(flagged)
    seen = objects["variants_seen"].to_numpy()
    assert (seen == COUNT).all() if stop == "never" else 3 <= seen.min() < COUNT
    assert "false negative" in suspects["kind"].to_pylist()
    assert votes.max() == max(objects["votes"].to_numpy().max(), suspects["votes"].to_numpy().max())
    labels = read(whole, "labels/nuclei/0")
    rows = objects.to_pandas().set_index("id")
    for label in rows.index[rows.votes > 0][:5]:
        assert (votes[labels == label] == rows.votes[label]).all()


def test_fields_lie_on_the_plane_whatever_is_wanted() -> None:
    """Whole periods of the defenses, from the plane's first pixel; cut at the image's edge."""
    frame = Frame((), (5000, 9000), 1, "uint8")

    def fields(stop: str, wanted: Box) -> list[Box]:
        settings = FlagSettings(stop=stop)
        return Flags(frame, Pipeline(()), None, settings, 20.0).fields(wanted)

    wanted = Box((2500, 3000), (4500, 9000))
    assert fields("never", wanted) == [wanted]
    found = fields("early", wanted)
    assert FIELD_SIDE % FIELD == 0
    assert [b.start for b in found] == [
        (y, x) for y in (2048, 4096) for x in (2048, 4096, 6144, 8192)
    ]
    assert {b.stop for b in found} == {
        (y, x) for y in (4096, 5000) for x in (4096, 6144, 8192, 9000)
    }
    assert set(found) <= set(fields("early", frame.bounds))
    # A region of whole shards computes the fields of no other one.
    shard = Storage().shard
    assert fields("early", Box((shard, shard), (2 * shard, 2 * shard))) == [
        Box((shard, shard), (2 * shard, 2 * shard))
    ]


def test_at_strength_0_nothing_is_flagged(
    image: Path, tmp_path: Path, run_recipe: Runner, settings: tuple[str, ...]
) -> None:
    out = tmp_path / "out.ome.zarr"
    run_recipe(image, out, *settings, "flags.strength=0", "flags.min_votes=0")
    objects, suspects = tables(out)
    assert len(objects) > 50
    assert set(objects["votes"].to_pylist()) == {0}
    assert set(objects["smallest_distance"].to_pylist()) == {0.0}
    assert len(suspects) == 0
    assert not read(out, "maps/flag_votes/0").any()


def test_suspects_have_an_outline_and_a_place(whole: Path) -> None:
    objects, suspects = tables(whole)
    for row in suspects.to_pylist():
        outline = np.array(row["outline"]).reshape(-1, 2)
        assert outline[:, 0].min() >= row["y0"] - 1
        assert outline[:, 1].max() <= row["x1"] + 1
        assert row["y0"] <= row["y"] < row["y1"]
        assert row["y_um"] == pytest.approx(row["y"] / 2)
        assert row["vote_fraction"] == pytest.approx(row["votes"] / row["variants_seen"])
        assert (row["id"] is None) == (row["kind"] == "false negative")
    flagged = {row["id"] for row in objects.to_pylist() if row["suspect"]}
    assert flagged == {row["id"] for row in suspects.to_pylist()} - {None}


def test_fewer_defenses_and_other_votes_for_what_is_missing(
    image: Path, tmp_path: Path, run_recipe: Runner, settings: tuple[str, ...], whole: Path
) -> None:
    out = tmp_path / "out.ome.zarr"
    run_recipe(image, out, *settings, "flags.defenses=4", "flags.min_votes_missing=1")
    objects, suspects = tables(out)
    assert set(objects["variants_seen"].to_pylist()) == {4}
    missing = [r for r in suspects.to_pylist() if r["kind"] == "false negative"]
    assert {r["votes"] for r in missing} <= {4}
    assert len(missing) < tables(whole)[1]["kind"].to_pylist().count("false negative")
    with pytest.raises(RefusedError, match=rf"flags\.defenses.*at most {COUNT}"):
        run_recipe(image, tmp_path / "no.ome.zarr", *settings, "flags.defenses=7")


def test_an_image_without_objects_is_a_result(
    tmp_path: Path, run_recipe: Runner, settings: tuple[str, ...]
) -> None:
    dark = np.random.default_rng(0).integers(90, 110, (300, 300)).astype(np.uint16)
    out = tmp_path / "out.ome.zarr"
    outcome = run_recipe(
        save_image(tmp_path / "dark.zarr", dark), out, *settings, "segment.prob_threshold=0.999"
    )
    assert outcome.complete
    objects, suspects = tables(out)
    assert len(objects) == len(suspects) == 0
    assert "votes" in objects.column_names


def test_another_tau_keeps_the_regions(
    image: Path, tmp_path: Path, run_recipe: Runner, settings: tuple[str, ...], whole: Path
) -> None:
    out = tmp_path / "out.ome.zarr"
    before = run_recipe(image, out, *settings, "flags.tau=3")
    with pytest.raises(RefusedError, match=r"flags\.tau: 3\.0 -> 15\.0.*reaches flags, labels"):
        run_recipe(image, out, *settings)
    after = run_recipe(image, out, *settings, recompute="changed")
    assert "regions" not in after.report["seconds"]
    counts = [report["suspects"]["false_positives"] for report in (before.report, after.report)]
    assert counts[1] < counts[0]
    assert all(a.equals(b) for a, b in zip(tables(out), tables(whole), strict=True))
    shown = read(out, "maps/flag_votes/e2/0")
    np.testing.assert_array_equal(shown, read(whole, "maps/flag_votes/0"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("flags.strength=1.5",), "at most 1"),
        (("flags.tau=-1",), "at least 0"),
        (("flags.stop=early", "flags.min_votes=0"), "one vote suffices"),
        (("flags.bank=nowhere.safetensors",), "nowhere"),
    ],
)
def test_bad_settings_are_refused(
    image: Path, tmp_path: Path, run_recipe: Runner, settings: tuple[str, ...],
    change: tuple[str, ...], message: str,
) -> None:  # fmt: skip
    out = tmp_path / "out.ome.zarr"
    with pytest.raises(RefusedError, match=message):
        run_recipe(image, out, *settings, *change)
    assert not out.exists()


def test_a_bank_for_another_model_is_refused(
    image: Path, tmp_path: Path, run_recipe: Runner
) -> None:
    other = make_bank(tmp_path / "other.safetensors", "0" * 64, 2)
    with pytest.raises(RefusedError, match="for which it was made"):
        run_recipe(image, tmp_path / "out.ome.zarr", f"flags.bank={other}")
