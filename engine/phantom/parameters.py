"""Parameters of a phantom scene: ranges that the scene and its mitochondria draw from."""

from __future__ import annotations

from dataclasses import dataclass

from engine.errors import RecipeError

#: Raised whenever the same parameters and seed give other pixels than before.
VERSION = 1


@dataclass(frozen=True, slots=True)
class Span:
    """Closed range of a parameter, drawn from uniformly.

    Parameters
    ----------
    low, high : float
        Bounds, ``0 <= low <= high``.

    Raises
    ------
    RecipeError
        If the bounds are negative or the wrong way round.

    Examples
    --------
    >>> Span(1, 2).high
    2
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        if not 0 <= self.low <= self.high:
            raise RecipeError(
                where="range of a phantom's parameter",
                expected="0 <= low <= high",
                found=f"{self.low} to {self.high}",
                remedy="Give the lower bound first.",
            )


@dataclass(frozen=True, slots=True)
class ShapeParameters:
    """Number, size and shape of the mitochondria; lengths in pixels.

    Parameters
    ----------
    count : Span
        Mitochondria asked for in 512 x 512 pixels; fewer where no more find room.
    kinds : tuple of 4 float
        Relative frequency of ovals, rods, branched ones and closed rings.
    length : Span
        Of the centre line of rods and branched ones.
    half_width : Span
        Of the inner region of rods, branched ones and rings.
    oval_half_width : Span
        Of the inner region of ovals.
    branches, ring_branches : tuple of float
        Relative frequency of 1, 2, 3, ... branches of a branched one, and of 0, 1, 2, ... of a
        ring.
    bend : Span
        Turn of a centre line from end to end, radians.
    roughness : Span
        Standard deviation of the contour.
    intermembrane : Span
        Thickness of the intermembrane space, above 1.5.
    """

    count: Span
    kinds: tuple[float, float, float, float]
    length: Span
    half_width: Span
    oval_half_width: Span
    branches: tuple[float, ...]
    ring_branches: tuple[float, ...]
    bend: Span
    roughness: Span
    intermembrane: Span

    def __post_init__(self) -> None:
        # Thinner, and a pixel of the inner region could touch the background.
        if self.intermembrane.low <= 1.5:
            raise RecipeError(
                where="shape.intermembrane",
                expected="more than 1.5 pixels, so that the space is closed",
                found=str(self.intermembrane.low),
                remedy="Raise its lower bound.",
            )


@dataclass(frozen=True, slots=True)
class CristaeParameters:
    """Density and form of the cristae; lengths in pixels.

    Parameters
    ----------
    junctions : Span
        Share of the inner membrane that opens into cristae, aimed at in each mitochondrion.
    width : Span
        Thickness of a crista behind its junction.
    neck : Span
        Width of the junction as a share of that thickness, in (0, 1].
    reach : Span
        Length of a crista as a share of the chord through the inner region.
    lengthwise : Span
        Share of cristae that turn to run along the inner membrane.
    tilt : Span
        Largest angle to the normal of the membrane, radians.
    gap : Span
        Matrix left between cristae at the least.
    """

    junctions: Span
    width: Span
    neck: Span
    reach: Span
    lengthwise: Span
    tilt: Span
    gap: Span


@dataclass(frozen=True, slots=True)
class ImageParameters:
    """Quality of the image; one draw a scene, brightness as a share of the full scale.

    Parameters
    ----------
    cytoplasm, matrix, lumen, membrane : Span
        Brightness of cytoplasm, matrix, intermembrane space and cristae, and what a membrane adds.
    texture : Span
        Standard deviation of the granular cytoplasm as a share of its brightness.
    clutter : Span
        Vesicles and tubules of the cytoplasm in 512 x 512 pixels.
    blur : Span
        Standard deviation of the point spread function, pixels.
    photons : Span
        Photons of a pixel at full scale: fewer is noisier.
    read_noise : Span
        Standard deviation of the camera, photons.
    unevenness : Span
        Exposure varies by this factor, plus and minus.
    spots : Span
        Low-SNR spots in 512 x 512 pixels.
    spot_radius : Span
        Half-axes of a spot, pixels.
    spot_loss : Span
        Share of the stain that is lost at the centre of a spot.
    """

    cytoplasm: Span
    matrix: Span
    lumen: Span
    membrane: Span
    texture: Span
    clutter: Span
    blur: Span
    photons: Span
    read_noise: Span
    unevenness: Span
    spots: Span
    spot_radius: Span
    spot_loss: Span


@dataclass(frozen=True, slots=True)
class SceneParameters:
    """All ranges that a scene is drawn from, and its size.

    Parameters
    ----------
    name : str
        What a folder of scenes calls them.
    shape : ShapeParameters
        Of the mitochondria.
    cristae : CristaeParameters
        Inside them.
    image : ImageParameters
        Of what is seen of them.
    size : int
        Side of the scene in pixels, at least 192.

    Raises
    ------
    RecipeError
        If the scene is too small to hold a mitochondrion.
    """

    name: str
    shape: ShapeParameters
    cristae: CristaeParameters
    image: ImageParameters
    size: int = 512

    def __post_init__(self) -> None:
        if self.size < 192:
            raise RecipeError(
                where="size of a phantom scene",
                expected="at least 192 pixels, so that any mitochondrion fits",
                found=str(self.size),
                remedy="Make scenes of 512 pixels and cut them.",
            )


#: What models are trained and validated on.
SEEN = SceneParameters(
    name="seen",
    shape=ShapeParameters(
        count=Span(18, 26),
        kinds=(0.08, 0.08, 0.57, 0.27),
        length=Span(85, 135),
        half_width=Span(6.5, 9.5),
        oval_half_width=Span(12, 18),
        branches=(0.05, 0.20, 0.40, 0.35),
        ring_branches=(0.0, 0.25, 0.4, 0.35),
        bend=Span(0.0, 1.6),
        roughness=Span(0.8, 1.8),
        intermembrane=Span(3.0, 4.0),
    ),
    cristae=CristaeParameters(
        junctions=Span(0.07, 0.15),
        width=Span(3.0, 4.4),
        neck=Span(0.6, 0.9),
        reach=Span(0.6, 0.95),
        lengthwise=Span(0.2, 0.6),
        tilt=Span(0.3, 0.6),
        gap=Span(2.0, 3.5),
    ),
    image=ImageParameters(
        cytoplasm=Span(0.22, 0.30),
        matrix=Span(0.32, 0.42),
        lumen=Span(0.40, 0.50),
        membrane=Span(0.30, 0.42),
        texture=Span(0.20, 0.30),
        clutter=Span(20, 40),
        blur=Span(0.7, 1.1),
        photons=Span(60, 140),
        read_noise=Span(0.8, 1.6),
        unevenness=Span(0.1, 0.3),
        spots=Span(8, 14),
        spot_radius=Span(12, 24),
        spot_loss=Span(0.7, 0.95),
    ),
)

#: What models are scored on: stronger bends, thicker and mostly lengthwise cristae, a thicker
#: intermembrane space, less contrast and light, more blur, unevenness and spots.
UNSEEN = SceneParameters(
    name="unseen",
    shape=ShapeParameters(
        count=Span(14, 20),
        kinds=(0.07, 0.07, 0.61, 0.25),
        length=Span(100, 150),
        half_width=Span(7.0, 9.0),
        oval_half_width=Span(13, 19),
        branches=(0.0, 0.25, 0.4, 0.35),
        ring_branches=(0.0, 0.25, 0.40, 0.35),
        bend=Span(1.6, 2.4),
        roughness=Span(1.6, 2.2),
        intermembrane=Span(3.8, 4.6),
    ),
    cristae=CristaeParameters(
        junctions=Span(0.06, 0.13),
        width=Span(4.0, 5.0),
        neck=Span(0.55, 0.8),
        reach=Span(0.6, 0.95),
        lengthwise=Span(0.6, 0.9),
        tilt=Span(0.6, 0.9),
        gap=Span(2.5, 4.0),
    ),
    image=ImageParameters(
        cytoplasm=Span(0.24, 0.32),
        matrix=Span(0.36, 0.44),
        lumen=Span(0.44, 0.54),
        membrane=Span(0.28, 0.36),
        texture=Span(0.24, 0.34),
        clutter=Span(40, 60),
        blur=Span(1.1, 1.3),
        photons=Span(50, 80),
        read_noise=Span(1.2, 2.0),
        unevenness=Span(0.3, 0.45),
        spots=Span(12, 16),
        spot_radius=Span(14, 26),
        spot_loss=Span(0.85, 1.0),
    ),
)
