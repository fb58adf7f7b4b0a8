"""Phantom: images of mitochondria drawn from rules, whose truth is known.

The truth obeys by construction what the networks have to learn: the inner membrane is connected,
the intermembrane space is closed around it, and each crista opens at it. The ranges `SEEN` (to
train on) and `UNSEEN` (to score on) were set, before any model was trained, so that the truth has
the means of the control group of Sauer et al., table 2, measured per mitochondrion by
`engine.evaluation.plausibility` (which says what they are taken of):

=========================  =======  ====================  ======================
mean per mitochondrion     control  seen, 622 of 40       unseen, 620 of 46
                                    scenes (seed 0)       scenes (seed 0)
=========================  =======  ====================  ======================
skeleton end points        3.55     3.49                  3.52
skeleton cycles            0.26     0.25                  0.26
boundary to area           12.14 %  12.03 %               11.76 %
cristae boundary ratio     10.09 %  10.01 %               10.07 %
background ratio           0 %      0 %                   0 %
=========================  =======  ====================  ======================

To match its end points and cycles, most phantom mitochondria branch and a quarter are rings: more
than most cells have. A change of the ranges or of what is drawn raises `VERSION`, and everything
that was trained or scored on scenes has to be made anew.
"""

from engine.phantom.folder import write_scenes
from engine.phantom.parameters import (
    SEEN,
    UNSEEN,
    VERSION,
    CristaeParameters,
    ImageParameters,
    SceneParameters,
    ShapeParameters,
    Span,
)
from engine.phantom.scene import CLASSES, Scene, Truth, make_scene, make_truth

__all__ = [
    "CLASSES",
    "SEEN",
    "UNSEEN",
    "VERSION",
    "CristaeParameters",
    "ImageParameters",
    "Scene",
    "SceneParameters",
    "ShapeParameters",
    "Span",
    "Truth",
    "make_scene",
    "make_truth",
    "write_scenes",
]
