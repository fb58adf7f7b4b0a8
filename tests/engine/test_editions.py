"""Which run is meant where one stands: continued, refused with what changed, or made beside."""

from dataclasses import replace
from typing import Any

import pytest
from journeys import save_image
from stardist import data

from engine.errors import OutputError, RecipeError
from engine.planning import Job, Wish, make_plan
from engine.planning.editions import Choice, choose, downstream, with_editions
from engine.planning.identity import pass_digests
from engine.recipe import digest, load_settings


@pytest.fixture(scope="module")
def job_and_parts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Job, dict[str, str]]:
    folder = tmp_path_factory.mktemp("editions")
    image = save_image(folder / "image.zarr", data.test_image_nuclei_2d())
    settings = load_settings("nuclei", ["storage.chunk=128", "storage.shard=256"])
    plan = make_plan(str(image), folder / "out.ome.zarr", settings)
    return plan.job, plan.parts


def document(job: Job, parts: dict[str, str], **other: Any) -> dict[str, Any]:
    editions = other.pop(
        "editions",
        dict.fromkeys(("probability", "nuclei", "probability/pyramid", "nuclei/pyramid"), 1),
    )
    return {
        "digest": digest(parts),
        "parts": parts,
        "editions": editions,
        "digests": pass_digests(job, parts, editions),
        "publishing": False,
        "wish": "",
        **other,
    }


def changed(job: Job, parts: dict[str, str], **other: str) -> tuple[Job, dict[str, str]]:
    new = {**parts, **{name.replace("__", "."): value for name, value in other.items()}}
    return replace(job, digest=digest(new)), new


def test_the_same_settings_continue(job_and_parts: tuple[Job, dict[str, str]]) -> None:
    job, parts = job_and_parts
    choice = choose(job, parts, document(job, parts), None, Wish())
    assert choice.started
    assert not choice.beside


def test_a_change_is_named_with_what_it_reaches(
    job_and_parts: tuple[Job, dict[str, str]],
) -> None:
    job, parts = job_and_parts
    standing = document(job, parts)
    other, new = changed(job, parts, instances__name='"cells"')
    with pytest.raises(OutputError) as caught:
        choose(other, new, standing, None, Wish())
    assert 'instances.name: "nuclei" -> "cells"' in str(caught.value)
    assert "reaches labels, pyramid-nuclei-1" in str(caught.value)
    assert "regions" not in str(caught.value).split("reaches")[1].split(".")[0]


@pytest.mark.parametrize(
    ("setting", "first"),
    [("normalise__low", "statistics"), ("tiling__overlap", "regions"), ("area", "labels")],
)
def test_only_what_a_change_reaches_is_made_anew(
    job_and_parts: tuple[Job, dict[str, str]], setting: str, first: str
) -> None:
    job, parts = job_and_parts
    other, new = changed(job, parts, **{setting: "7"})
    choice = choose(other, new, document(job, parts), None, Wish(recompute="changed"))
    assert choice.beside
    assert not choice.started
    anew = {name for name, number in choice.editions.items() if number == 2}
    assert anew == downstream(other, {first})


def test_a_stage_that_does_not_cover_the_change_is_refused(
    job_and_parts: tuple[Job, dict[str, str]],
) -> None:
    job, parts = job_and_parts
    other, new = changed(job, parts, tiling__overlap="96")
    with pytest.raises(OutputError, match=r"tiling\.overlap"):
        choose(other, new, document(job, parts), None, Wish(recompute="labels"))


def test_a_restart_uses_numbers_that_were_never_used(
    job_and_parts: tuple[Job, dict[str, str]],
) -> None:
    job, parts = job_and_parts
    standing = document(job, parts)
    coming = document(job, parts, editions={**standing["editions"], "nuclei": 5}, wish="labels")
    choice = choose(job, parts, standing, coming, Wish(restart=True))
    assert set(choice.editions.values()) == {6}
    assert Choice(choice.editions, beside=True, started=False) == choice


def test_a_half_made_restart_is_continued_by_its_command_and_by_a_plain_one(
    job_and_parts: tuple[Job, dict[str, str]],
) -> None:
    job, parts = job_and_parts
    standing = document(job, parts)
    coming = document(job, parts, editions=dict.fromkeys(standing["editions"], 2), wish="restart")
    for wish in (Wish(), Wish(restart=True)):
        choice = choose(job, parts, standing, coming, wish)
        assert (choice.beside, choice.started) == (True, True)
        assert set(choice.editions.values()) == {2}


def test_while_a_finished_run_is_put_in_place_no_other_goes_on(
    job_and_parts: tuple[Job, dict[str, str]],
) -> None:
    job, parts = job_and_parts
    other, new = changed(job, parts, tiling__overlap="96")
    coming = document(other, new, publishing=True, wish="restart")
    with pytest.raises(OutputError, match="put in place"):
        choose(job, parts, document(job, parts), coming, Wish())


def test_editions_have_places_of_their_own(job_and_parts: tuple[Job, dict[str, str]]) -> None:
    layer = job_and_parts[0].layer("probability")
    moved = with_editions(layer, {"probability": 1, "probability/pyramid": 3})
    assert [level.path for level in moved.levels] == ["0", "e3/1", "e3/2"]
    again = with_editions(moved, {"probability": 4, "probability/pyramid": 4})
    assert [level.path for level in again.levels] == ["e4/0", "e4/1", "e4/2"]


@pytest.mark.parametrize(
    "bad", [{"recompute": "network"}, {"restart": True, "recompute": "labels"}]
)
def test_wishes_that_contradict_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match="recompute"):
        Wish(**bad)
