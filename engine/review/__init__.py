"""Review: labels drawn over the image, so that a person can judge them at a glance."""

from engine.review.overlay import draw_overlay
from engine.review.preview import write_preview
from engine.review.scalebar import add_scale_bar
from engine.review.suspects import read_suspects

__all__ = [
    "add_scale_bar",
    "draw_overlay",
    "read_suspects",
    "write_preview",
]
