"""Recipes: what is read, what is refused in which words, and what decides the digest."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from pydantic import BaseModel, ValidationError

from engine.errors import RecipeError
from engine.recipe import (
    IdentityRecipe,
    Resources,
    StarDistRecipe,
    Storage,
    bundled_recipes,
    digest,
    digest_parts,
    load_settings,
    parse_settings,
    recipe_text,
)

# Another valid value for every field of a recipe; a new field without one fails the test below.
OTHER: dict[str, Any] = {
    "input.level": 1,
    "input.channels": [1],
    "input.nonfinite": "zero",
    "normalise.over": "plane",
    "normalise.low": 2.0,
    "normalise.high": 99.0,
    "normalise.cell": 512,
    "normalise.contrast_floor": 0.2,
    "tiling.tile": 256,
    "tiling.overlap": 96,
    "tiling.margin": 16,
    "tiling.blend": "crop",
    "segment.model": "another",
    "segment.precision": "float32",
    "segment.prob_threshold": 0.4,
    "segment.nms_threshold": 0.4,
    "instances.name": "cells",
    "instances.halo": 96,
    "instances.halo_rays": 2.0,
    "flags.bank": "another",
    "flags.strength": 0.9,
    "flags.tau": 11.0,
    "flags.merge": 1.1,
    "flags.min_votes": 0.77,
    "flags.min_votes_missing": 0.5,
    "flags.defenses": 7,
    "flags.fn_max_covered": 0.3,
    "flags.stop": "never",
    "flags.risk": 0.1,
    "classes.ensemble": "another",
    "classes.entropy": "soft",
    "classes.keep": ["object"],
    "classes.repair.model": "another",
    "classes.repair.threshold": 0.3,
    "classes.repair.prior_weight": 0.7,
    "classes.objects.name": "others",
    "classes.objects.classes": ["object"],
    "classes.objects.connectivity": 4,
    "classes.objects.min_area": 9,
}

#: Recipes, and settings on top, that have the sections that may be absent.
BASE: dict[str, tuple[str, list[str]]] = {
    "flags": ("nuclei-flags", []),
    "classes": ("nuclei-refined", ["classes.objects={name: objects}"]),
}


def leaves(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Dotted names of all settings of a model."""
    for name, field in model.model_fields.items():
        # A section may be absent: `FlagSettings | None`.
        kinds = [field.annotation, *get_args(field.annotation)]
        sections = [k for k in kinds if isinstance(k, type) and issubclass(k, BaseModel)]
        if sections:
            yield from leaves(sections[0], f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def digest_of(*overrides: str) -> str:
    return digest(digest_parts(load_settings("nuclei", overrides).recipe, {}))


def refusal(*overrides: str) -> str:
    with pytest.raises(RecipeError) as refused:
        load_settings("nuclei", overrides)
    return str(refused.value)


@pytest.mark.parametrize(
    ("recipe", "setting", "said"),
    [
        ("nuclei-refined", "classes.precision=float32", "'precision', which another method has"),
        ("nuclei-refined", "classes.precision=float32", "Known here: ensemble, entropy, keep"),
        ("mitochondria", "flags.tau=3", "of the method semantic, found 'flags', which another"),
        ("mitochondria", "classes.ensembl=x", "found 'ensembl'. Did you mean 'ensemble'?"),
    ],
)
def test_a_setting_of_another_method_is_told_as_such(recipe: str, setting: str, said: str) -> None:
    with pytest.raises(RecipeError) as refused:
        load_settings(recipe, [setting])
    assert said in str(refused.value)


def test_every_field_has_another_value_to_try() -> None:
    assert set(OTHER) | {"method"} == set(leaves(StarDistRecipe))


@pytest.mark.parametrize("name", sorted(OTHER))
def test_every_field_of_a_recipe_decides_the_digest(name: str) -> None:
    recipe, more = BASE.get(name.split(".")[0], ("nuclei", []))
    changed = load_settings(recipe, [*more, f"{name}={json.dumps(OTHER[name])}"]).recipe
    before = digest_parts(load_settings(recipe, more).recipe, {})
    after = digest_parts(changed, {})
    assert {k for k in before | after if before.get(k) != after.get(k)} == {name}
    assert digest(before) != digest(after)


def test_the_digest_does_not_depend_on_order_or_spelling() -> None:
    plain = digest_parts(load_settings("nuclei").recipe, {"a": "1", "b": "2"})
    assert digest(plain) == digest(dict(reversed(plain.items())))
    assert digest_of() == digest_of("tiling.tile=512", "normalise.low=1", "input.channels=[0]")
    assert digest_of("segment.prob_threshold=null") == digest_of()


def test_the_method_and_facts_beside_the_recipe_decide_the_digest() -> None:
    recipe = load_settings("nuclei").recipe
    assert digest(digest_parts(recipe, {})) != digest(digest_parts(recipe, {"weights": "ab"}))
    assert digest(digest_parts(recipe, {})) != digest(
        digest_parts(load_settings("identity").recipe, {})
    )
    with pytest.raises(ValueError, match=r"segment\.model"):
        digest_parts(recipe, {"segment.model": "ab"})


def test_resources_and_storage_are_no_part_of_a_recipe() -> None:
    names = {name.split(".")[0] for name in leaves(StarDistRecipe)}
    assert not names & {"resources", "storage"}
    for name in leaves(Resources):
        assert name not in digest_parts(load_settings("nuclei").recipe, {})
    assert (
        digest_of("resources.workers=7", "resources.launch=3", "storage.chunk=256") == digest_of()
    )


@pytest.mark.parametrize("name", bundled_recipes())
def test_bundled_recipes_load_and_begin_with_what_they_are_for(name: str) -> None:
    assert load_settings(name).recipe.method == yaml.safe_load(recipe_text(name))["method"]
    assert recipe_text(name).startswith("# ")


def test_a_recipe_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("method: stardist\ntiling: {overlap: 96}\nresources:\n  workers: 3\n")
    settings = load_settings(str(path), ["tiling.margin=8"])
    assert isinstance(settings.recipe, StarDistRecipe)
    assert (settings.recipe.tiling.overlap, settings.recipe.tiling.margin) == (96, 8)
    assert settings.resources.workers == 3
    assert settings.storage == Storage()


def test_settings_are_frozen() -> None:
    settings = load_settings("nuclei")
    with pytest.raises(ValidationError, match="frozen"):
        settings.recipe.method = "identity"  # type: ignore[misc, assignment]


@pytest.mark.parametrize(
    ("override", "messages"),
    [
        ("tiling.overlp=3", ["tiling.overlp", "'overlp'", "Did you mean 'overlap'?"]),
        ("tilin.overlap=3", ["tilin", "Did you mean 'tiling'?"]),
        ("resources.workrs=2", ["resources.workrs", "Did you mean 'workers'?"]),
        ("storage.int=2", ["storage.int", "Known here: chunk, shard, with_image."]),
        ("quux=3", ["quux", "Known here: classes, flags, input, instances, method"]),
        ("recipe=3", ["recipe: expected a known setting"]),
        ("stardist=3", ["stardist: expected a known setting"]),
        ("a..b=3", ["a: expected a known setting"]),
        ("1=2", ["1: expected a known setting"]),
    ],
)
def test_unknown_keys_are_refused_with_the_nearest_known_one(
    override: str, messages: list[str]
) -> None:
    message = refusal(override)
    assert all(part in message for part in messages), message


@pytest.mark.parametrize(
    ("override", "place", "expected", "found"),
    [
        ("tiling=null", "tiling", "a section of settings", "null"),
        ("tiling=5", "tiling", "a section of settings", "5"),
        ("storage=[]", "storage", "a section of settings", "[]"),
        ("tiling.tile=null", "tiling.tile", "a whole number", "null"),
        ("tiling.tile=abc", "tiling.tile", "a whole number", "abc"),
        ("tiling.tile=true", "tiling.tile", "a whole number", "true"),
        ("tiling.tile=256.5", "tiling.tile", "a whole number", "256.5"),
        ("tiling.tile='256'", "tiling.tile", "a whole number", "'256'"),
        ("tiling.tile={a: 1}", "tiling.tile", "a whole number", "a section"),
        ("tiling.blend=max", "tiling.blend", "'average' or 'crop'", "max"),
        ("normalise.low=x", "normalise.low", "number", "x"),
        ("normalise.low=.nan", "normalise.low", "a finite number", ".nan"),
        ("resources.memory_gib=.inf", "resources.memory_gib", "a finite number", ".inf"),
        ("segment.model=null", "segment.model", "a text", "null"),
        ("instances.name=3", "instances.name", "a text", "3"),
        ("instances.name=a/b", "instances.name", "letters, digits, _ and -", "a/b"),
        ("input.channels=0", "input.channels", "a list such as [0]", "0"),
        ("input.channels=null", "input.channels", "a list such as [0]", "null"),
        ("input.channels=[]", "input.channels", "at least one entry", "[]"),
        ("input.channels=[true]", "input.channels.0", "a whole number", "true"),
        ("storage.with_image=1", "storage.with_image", "true or false", "1"),
    ],
)
def test_wrong_types_are_refused_in_the_words_of_the_document(
    override: str, place: str, expected: str, found: str
) -> None:
    message = refusal(override)
    assert message.startswith(f"recipe 'nuclei', {place}: "), message
    assert expected in message
    assert f"found {found}. " in message


@pytest.mark.parametrize(
    ("override", "rule"),
    [
        ("tiling.tile=8", "at least 16"),
        ("tiling.overlap=-1", "at least 0"),
        ("normalise.low=100", "less than 100"),
        ("normalise.high=0", "more than 0"),
        ("normalise.cell=9000", "at most 4096"),
        ("segment.prob_threshold=1", "less than 1"),
        ("resources.workers=0", "at least 1"),
        ("resources.threads=99", "at most 16"),
        ("storage.chunk=31", "at least 32"),
        ("storage.chunk=9999", "at most 8192"),
        ("instances.halo=3", "at least 16"),
        ("normalise.low=99.9", "low must be < high"),
        ("storage.shard=1000", "shard must be a multiple of chunk"),
        ("instances.name=probability", "no other array or table of OUT"),
        ("instances.name=image", "no other array or table of OUT"),
    ],
)
def test_impossible_values_are_refused_with_their_rule(override: str, rule: str) -> None:
    assert rule in refusal(override)


@pytest.mark.parametrize("override", ["tiling.tile", "=5", "", "tiling.tile=[", "a=2020-13-45"])
def test_what_is_no_setting_is_refused(override: str) -> None:
    assert refusal(override).startswith(f"--set {override}: ")


def test_a_value_is_no_section() -> None:
    assert "expected 'tile' to be a section, found the value 512" in refusal("tiling.tile.x=3")


@pytest.mark.parametrize("value", ["stardst", "null", "[1]"])
def test_unknown_methods_are_refused(value: str) -> None:
    assert f"expected identity, semantic or stardist, found {value}" in refusal(f"method={value}")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"tiling: [", "a YAML document"),
        (b"method: stardist\ntiling:\n\toverlap: 3", "a YAML document"),
        (b"", "found null"),
        (b"- a\n- b\n", "a mapping of settings"),
        (b"just text", "found just text"),
        (b"tiling: {}\n", "identity, semantic or stardist, found null"),
        (b"method: stardist\nwhen: 2020-13-45\n", "a YAML document"),
        (b"method: stardist\nmethod: identity\n", "the key 'method' twice"),
        (b"method: stardist\ntiling:\n  tile: 256\n  tile: 512\n", "the key 'tile' twice"),
        (b"!!python/object/apply:os.system ['true']", "a YAML document"),
        (b"\xff\xfe\x00", "a file that is no text"),
        (b"method: identity\ntiling: {tile: 256}\n", "tiling: expected a known setting"),
    ],
)
def test_what_is_no_recipe_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_bytes(content)
    with pytest.raises(RecipeError) as refused:
        load_settings(str(path))
    assert message in str(refused.value)
    assert str(path) in str(refused.value)


def test_a_recipe_that_is_not_there_names_those_that_are(tmp_path: Path) -> None:
    for place in ("nuclej", str(tmp_path)):
        with pytest.raises(RecipeError, match="identity, mitochondria, nuclei") as refused:
            load_settings(place)
        assert ("Did you mean 'nuclei'?" in str(refused.value)) == (place == "nuclej")


def test_the_document_that_is_parsed_is_not_changed() -> None:
    document = {"method": "identity", "storage": {"chunk": 64, "shard": 64}}
    settings = parse_settings(document, "here")
    assert settings.recipe == IdentityRecipe(method="identity")
    assert document == {"method": "identity", "storage": {"chunk": 64, "shard": 64}}
