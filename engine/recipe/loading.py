"""Reading of recipe documents: YAML and ``key=value`` settings in, validated `Settings` out.

Every unknown key, wrong type and impossible size is refused with the place it stands at.
"""

from __future__ import annotations

import difflib
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import yaml
from pydantic import BaseModel, TypeAdapter, ValidationError

from engine.errors import RecipeError
from engine.recipe.models import (
    IdentityRecipe,
    Resources,
    SemanticRecipe,
    Settings,
    StarDistRecipe,
    Storage,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from importlib.resources.abc import Traversable

    from pydantic_core import ErrorDetails

_SECTIONS = {"storage", "resources"}

#: What a recipe of each method may hold.
_METHODS = {"identity": IdentityRecipe, "semantic": SemanticRecipe, "stardist": StarDistRecipe}

#: Rules that pydantic words for programmers, by its type of error.
_RULES = {
    "greater_than_equal": "at least {ge}",
    "greater_than": "more than {gt}",
    "less_than_equal": "at most {le}",
    "less_than": "less than {lt}",
    "string_pattern_mismatch": "letters, digits, _ and -, the first a letter or digit",
    "bool_type": "true or false",
    "int_type": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "string_type": "a text",
    "model_type": "a section of settings",
    "tuple_type": "a list such as [0]",
    "too_short": "at least one entry",
    "missing": "a value, for which there is no default",
}
_SETTINGS: TypeAdapter[Settings] = TypeAdapter(Settings)


def bundled_recipes() -> tuple[str, ...]:
    """Names of the recipes that come with the package."""
    return tuple(sorted(p.name[:-5] for p in _bundled().iterdir() if p.name.endswith(".yaml")))


def recipe_text(name_or_path: str) -> str:
    """YAML text of a bundled recipe or of a recipe file.

    Raises
    ------
    RecipeError
        If there is no such recipe, or the file cannot be read.
    """
    if name_or_path in bundled_recipes():
        return (_bundled() / f"{name_or_path}.yaml").read_text()
    path = Path(name_or_path)
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as err:
        found = (
            f"neither ({err.strerror})" if isinstance(err, OSError) else "a file that is no text"
        )
        raise RecipeError(
            where=f"recipe '{name_or_path}'",
            expected=f"one of the recipes {', '.join(bundled_recipes())}, or a readable YAML file",
            found=found,
            remedy=_nearest(name_or_path, bundled_recipes()) or "See `tilewright recipes`.",
        ) from err


def load_settings(name_or_path: str, overrides: Sequence[str] = ()) -> Settings:
    """Parse a recipe and the ``key=value`` settings that change it.

    Parameters
    ----------
    name_or_path : str
        Name of a bundled recipe, or path of a YAML file.
    overrides : sequence of str
        Settings such as ``"tiling.overlap=96"`` or ``"storage.shard=4096"``; values are YAML.

    Returns
    -------
    Settings
        Frozen and validated.

    Raises
    ------
    RecipeError
        If anything is unknown, of the wrong type or impossible.

    Examples
    --------
    >>> load_settings("nuclei", ["tiling.overlap=96"]).recipe.tiling.overlap
    96
    """
    where = f"recipe '{name_or_path}'"
    try:
        document = _parse(recipe_text(name_or_path))
    except (yaml.YAMLError, ValueError) as err:
        raise RecipeError(
            where=where,
            expected="a YAML document",
            found=" ".join(str(err).split()),
            remedy="Correct the file; `tilewright recipes nuclei` prints one that is right.",
        ) from err
    if not isinstance(document, dict):
        raise RecipeError(
            where=where,
            expected="a mapping of settings",
            found=_shown(document),
            remedy="See `tilewright recipes nuclei` for one that is right.",
        )
    for override in overrides:
        _override(document, override)
    return parse_settings(document, where)


def parse_settings(document: Mapping[str, Any], where: str) -> Settings:
    """Validate a recipe document that was already read.

    Raises
    ------
    RecipeError
        If anything is unknown, of the wrong type or impossible.
    """
    parts = {
        "recipe": {k: v for k, v in document.items() if k not in _SECTIONS},
        **{k: document[k] for k in _SECTIONS if k in document},
    }
    try:
        return _SETTINGS.validate_python(parts)
    except ValidationError as err:
        raise _refusal(err.errors()[0], where) from err


def _bundled() -> Traversable:
    """Folder of the recipes that come with the package."""
    return resources.files("engine.recipe") / "bundled"


def _override(document: dict[str, Any], override: str) -> None:
    """Put one ``key=value`` into the document."""
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise RecipeError(
            where=f"--set {override}",
            expected="key=value, such as tiling.overlap=96",
            found=f"'{override}'",
            remedy="Name the setting and its value.",
        )
    at = document
    *path, last = key.strip().split(".")
    for name in path:
        inner = at.setdefault(name, {})
        if not isinstance(inner, dict):
            raise RecipeError(
                where=f"--set {override}",
                expected=f"'{name}' to be a section",
                found=f"the value {_shown(inner)}",
                remedy="See `tilewright recipes nuclei` for the settings.",
            )
        at = inner
    try:
        at[last] = _parse(text)
    except (yaml.YAMLError, ValueError) as err:
        raise RecipeError(
            where=f"--set {override}",
            expected="a YAML value",
            found=f"'{text}' ({' '.join(str(err).split())})",
            remedy="Put quotes around the value.",
        ) from err


def _refusal(error: ErrorDetails, where: str) -> RecipeError:
    """Say what pydantic found in our words, with the nearest known key."""
    path = _path(error["loc"])
    place = ".".join(path) or "the document"
    if error["type"] == "extra_forbidden":
        method = str(error["loc"][1]) if error["loc"][0] == "recipe" else ""
        known, others = _known_keys(path[:-1], method), _known_keys(path[:-1])
        near = "" if path[-1] in others else _nearest(path[-1], known)
        return RecipeError(
            where=f"{where}, {place}",
            expected=f"a known setting of the method {method}" if method else "a known setting",
            found=f"'{path[-1]}'" + (", which another method has" if path[-1] in others else ""),
            remedy=near or f"Known here: {', '.join(known)}.",
        )
    if error["type"] in ("union_tag_invalid", "union_tag_not_found"):
        return RecipeError(
            where=f"{where}, method",
            expected="identity, semantic or stardist",
            found=_shown(error["input"].get("method")),
            remedy="Set method.",
        )
    message = error["msg"].removeprefix("Value error, ").replace("Input should be ", "")
    rule, _, values = message.partition(", got ")
    return RecipeError(
        where=f"{where}, {place}",
        expected=_RULES.get(error["type"], rule).format(**error.get("ctx", {})),
        found=values or _shown(error["input"]),
        remedy="Correct it; `tilewright recipes nuclei` prints a recipe that is right.",
    )


def _path(loc: Sequence[str | int]) -> list[str]:
    """Place in the document, without the parts that only pydantic knows: group, tag, union."""
    path = list(loc[2:] if loc[0] == "recipe" else loc)
    if len(path) > 1 and isinstance(path[-2], int):
        path.pop()
    return [str(part) for part in path]


def _parse(text: str) -> Any:  # noqa: ANN401 - whatever the YAML holds
    """Value of a YAML text in which no key stands twice.

    Raises
    ------
    yaml.YAMLError, ValueError
        If it is no YAML, or a key stands twice: all but the last would be ignored.
    """
    loader = yaml.SafeLoader(text)
    try:
        root = loader.get_single_node()
        _refuse_repeated(root)
        return None if root is None else loader.construct_document(root)
    finally:
        loader.dispose()


def _refuse_repeated(node: yaml.Node | None) -> None:
    """Raise if a mapping in a YAML document has a key twice."""
    if isinstance(node, yaml.MappingNode):
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for key, inner in node.value:
            if names.count(key.value) > 1:
                msg = f"the key '{key.value}' twice"
                raise yaml.constructor.ConstructorError(None, None, msg, key.start_mark)
            _refuse_repeated(inner)
    elif isinstance(node, yaml.SequenceNode):
        for inner in node.value:
            _refuse_repeated(inner)


def _shown(value: object) -> str:
    """Show a value as it stands in YAML, cut to a readable length."""
    if isinstance(value, dict):
        return "a section"
    text = yaml.safe_dump(value, default_flow_style=True, width=1000).removesuffix("...\n").strip()
    return text if len(text) <= 80 else text[:77] + "..."


def _known_keys(path: Sequence[str], method: str = "") -> list[str]:
    """Keys that may stand in a section, of a method or of all."""
    whole = not path
    models: list[Any] = [m for name, m in _METHODS.items() if method in ("", name)]
    if path and path[0] in _SECTIONS:
        models = [{"storage": Storage, "resources": Resources}[path[0]]]
        path = path[1:]
    for name in path:
        found = [m.model_fields[name].annotation for m in models if name in m.model_fields]
        # A section that may be absent is a union with None.
        kinds = [kind for one in found for kind in (get_args(one) or (one,))]
        models = [k for k in kinds if isinstance(k, type) and issubclass(k, BaseModel)]
    keys = {key for model in models for key in model.model_fields}
    return sorted(keys | (_SECTIONS if whole else set()))


def _nearest(word: str, known: Sequence[str]) -> str:
    """Say which known word is nearest, or nothing."""
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"Did you mean '{near[0]}'?" if near else ""
