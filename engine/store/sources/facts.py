"""What a file says beside its pixels, gathered by one reader for each kind of description."""

from __future__ import annotations

from dataclasses import dataclass, field

RGB_NAMES = ("red", "green", "blue", "alpha")
RGB_COLORS = ("FF0000", "00FF00", "0000FF")


@dataclass(frozen=True)
class Facts:
    """Physical sizes, channels and properties; what a file does not say is absent.

    Parameters
    ----------
    sizes : dict of str to (float, str)
        Pixel size and unit (``"micrometer"`` or ``"second"``) of each axis that has one.
    names : tuple of str
        Name of each channel; empty where the file names none.
    colors : tuple of str
        ``RRGGBB`` of each channel; empty where any is unknown.
    properties : dict of str to str
        Everything else.
    """

    sizes: dict[str, tuple[float, str]] = field(default_factory=dict)
    names: tuple[str, ...] = ()
    colors: tuple[str, ...] = ()
    properties: dict[str, str] = field(default_factory=dict)

    def scale(self, axes: tuple[str, ...]) -> tuple[float, ...]:
        """Give the pixel size on each axis, 1.0 where unknown."""
        return tuple(self.sizes.get(a, (1.0, ""))[0] for a in axes)

    def units(self, axes: tuple[str, ...]) -> tuple[str | None, ...]:
        """Give the unit on each axis, None where unknown."""
        return tuple(self.sizes.get(a, (1.0, None))[1] for a in axes)


def channel_labels(
    facts: Facts, channels: int, *, rgb: bool, color: str | None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names and colours of all channels: what the file says, or what it is plain to say.

    Parameters
    ----------
    facts : Facts
        What the file says.
    channels : int
        Number of channels.
    rgb : bool
        The channels are red, green, blue and perhaps alpha.
    color : str or None
        Colour of a ramp that holds for a single channel.

    Returns
    -------
    names : tuple of str
        One for each channel: the file's, the colours' or ``channel 0``, ``channel 1`` …
    colors : tuple of str
        One for each channel, or empty.
    """
    plain_rgb = rgb and channels in {3, 4}
    names = facts.names
    if len(names) != channels:
        default = tuple(f"channel {i}" for i in range(channels))
        names = RGB_NAMES[:channels] if plain_rgb else default
    colors = facts.colors
    if len(colors) != channels:
        colors = (*RGB_COLORS, "FFFFFF")[:channels] if plain_rgb else ()
    if not colors and channels == 1 and color is not None:
        colors = (color,)
    return names, colors
