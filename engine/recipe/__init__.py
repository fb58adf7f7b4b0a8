"""Recipes: what decides pixels, how they are read, and their digest."""

from engine.recipe.digest import digest, digest_parts
from engine.recipe.loading import bundled_recipes, load_settings, parse_settings, recipe_text
from engine.recipe.models import (
    FlagSettings,
    IdentityRecipe,
    InputSettings,
    InstanceSettings,
    NormaliseSettings,
    Recipe,
    Resources,
    SegmentSettings,
    Settings,
    StarDistRecipe,
    Storage,
    TilingSettings,
)

__all__ = [
    "FlagSettings",
    "IdentityRecipe",
    "InputSettings",
    "InstanceSettings",
    "NormaliseSettings",
    "Recipe",
    "Resources",
    "SegmentSettings",
    "Settings",
    "StarDistRecipe",
    "Storage",
    "TilingSettings",
    "bundled_recipes",
    "digest",
    "digest_parts",
    "load_settings",
    "parse_settings",
    "recipe_text",
]
