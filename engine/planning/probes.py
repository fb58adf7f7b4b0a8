"""Whether the image is still the one that a run was started with: a quick look at a few objects.

Reading the tags of all objects of an image of 10^6 takes minutes. A few, spread over the image,
show that it was replaced; that single objects were mended is found by ``--check listing``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.errors import OutputError
from engine.store import ImageReader

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engine.store import ImageInfo


def probe_image(info: ImageInfo, level: int) -> tuple[tuple[str, str], ...]:
    """Names and tags of a few objects of a level."""
    return ImageReader(info.path, level).probe()


def check_probe(
    image: str, known: Sequence[Sequence[str]], found: Sequence[tuple[str, str]]
) -> None:
    """Refuse an image that was changed since the run was started.

    Raises
    ------
    OutputError
        Names the first object that is another.
    """
    before = {str(name): str(tag) for name, tag in known}
    now = dict(found)
    names = sorted(n for n in before.keys() | now.keys() if before.get(n) != now.get(n))
    if names:
        name = names[0]
        raise OutputError(
            where=f"'{image}', {name}",
            expected=f"what it was when the run was started, {before.get(name, 'absent')}",
            found=f"{now.get(name, 'absent')} ({len(names)} of {len(before)} objects looked at "
            "have changed)",
            remedy="Give the command with --check listing to compute again what changed, with "
            "--check bytes to compare pixels (of a copy), or with --restart.",
        )
