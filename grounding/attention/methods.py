"""The attention methods by name: which signal goes down by which table, and what is read from the map that arrives.

Symbols: s_t(p) the score of tag t at position p of the classifier, W_t its weights, x the target layer's values, g the
signal that arrives there (``grounding.attention.rules``), c its channels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from grounding.attention.rules import (
    AlphaBetaRelevance,
    Deconvolution,
    Excitation,
    Gradient,
    GuidedDeconvolution,
    Relevance,
    Table,
    Unnormalised,
)
from grounding.attention.signals import each, merge

if TYPE_CHECKING:
    from grounding.attention.topdown import Walk

IMAGE = "image"
PART = 0.65  # of the dual's mass in "c-mwp-partial"; chosen on Flickr30k Entities val, see results/
AVERAGED = "averaged"


@dataclass(frozen=True)
class Method:
    """A way to turn a tag into a map.

    Attributes:
        table: what happens at each layer.
        maps: (walk, signals (W, T), tags in use (T,)) -> the maps (N, W, h, w), one for each target.
        equation, source: what it computes, and where that stands.
        target: where its maps are read by default: None, the architecture's layer (the paper's); ``IMAGE``; or
            ``AVERAGED``, the layer whose average the classifier reads (nothing else, for it is CAM's definition).
        blurred: whether the paper blurs its maps (``grounding.maps.blur``); ``Scene.attend`` does not.
    """

    table: Table
    maps: Callable[["Walk", Tensor, Tensor], list[Tensor]]
    equation: str
    source: str
    target: str | None = None
    blurred: bool = False


def mwp(walk: "Walk", signals: Tensor, used: Tensor) -> list[Tensor]:
    """Marginal winning probability: histograms over positions, each with its signal's sum."""
    return walk.mass(walk.enter(signals, used))


def contrast(walk: "Walk", signals: Tensor, used: Tensor) -> list[Tensor]:
    """The units' maps minus their duals', in one pass, before the truncation: sums 0."""
    unit, dual = walk.enter(signals, used), walk.enter(signals, used, dual=True)
    return walk.mass(merge(unit, each(torch.neg, dual)))


def contrastive(walk: "Walk", signals: Tensor, used: Tensor) -> list[Tensor]:
    """The same, truncated at 0 at the very end and nowhere before."""
    return [m.clamp(min=0) for m in contrast(walk, signals, used)]


def partly_contrastive(walk: "Walk", signals: Tensor, used: Tensor) -> list[Tensor]:
    """Like ``contrastive``, with a share of the dual's mass: what both would win is dampened, not gone."""
    unit, dual = walk.enter(signals, used), walk.enter(signals, used, dual=True)
    return [m.clamp(min=0) for m in walk.mass(merge(unit, each(lambda signal: -PART * signal, dual)))]


def unnormalised_contrast(walk: "Walk", signals: Tensor, used: Tensor) -> list[Tensor]:
    """A contrast whose scale means nothing: what the truncation leaves of it sums to 1."""
    return [_normalised(m) for m in contrastive(walk, signals, used)]


def contrast_afterwards(walk: "Walk", signals: Tensor, used: Tensor) -> list[Tensor]:
    """The units' maps of mass minus their duals', both L1-normalised first, truncated at 0."""
    return _subtract(*(walk.mass(walk.enter(signals, used, dual)) for dual in (False, True)))


def magnitude(walk: "Walk", signals: Tensor, used: Tensor) -> list[Tensor]:
    """max over c of |g|."""
    return walk.magnitude(walk.enter(signals, used))


def contrast_of_magnitudes(walk: "Walk", signals: Tensor, used: Tensor) -> list[Tensor]:
    """The units' maps of magnitude minus their duals', both L1-normalised first, truncated at 0."""
    return _subtract(*(walk.magnitude(walk.enter(signals, used, dual)) for dual in (False, True)))


def class_activation(walk: "Walk", signals: Tensor, used: Tensor) -> list[Tensor]:
    """sum over c of W_t,c x_c; signed."""
    return walk.weighted_by(signals, used)


def contrastive_class_activation(walk: "Walk", signals: Tensor, used: Tensor) -> list[Tensor]:
    """The unit's map minus its dual's, which is its negation, so twice the map, truncated at 0."""
    return [2 * m.clamp(min=0) for m in class_activation(walk, signals, used)]


def _subtract(unit: Sequence[Tensor], dual: Sequence[Tensor]) -> list[Tensor]:
    return [(_normalised(u) - _normalised(d)).clamp(min=0) for u, d in zip(unit, dual, strict=True)]


def _normalised(maps: Tensor) -> Tensor:
    total = maps.abs().sum((2, 3), keepdim=True)
    return maps / torch.where(total > 0, total, 1)


ZHANG, ZHANG_2 = "Zhang et al. 2016, Eq. 1, 2 and Sec. 3.3", "Zhang et al. 2016, Table 2"
# the tables have no state: one of each serves every walk
EXCITATION, UNNORMALISED, GRADIENT, GUIDED = Excitation(), Unnormalised(), Gradient(), GuidedDeconvolution()

METHODS: dict[str, Method] = {
    "mwp": Method(EXCITATION, mwp, "p_x = x . W+^T (p_a / z), z = W+ x; sum over c of p_x", ZHANG),
    "c-mwp": Method(EXCITATION, contrastive, "max(MWP(t) - MWP(dual of t), 0), the dual's weights -W_t", ZHANG),
    "c-mwp-partial": Method(EXCITATION, partly_contrastive, f"max(MWP(t) - {PART} MWP(dual of t), 0)", "ours"),
    "c-mwp-postnorm": Method(
        UNNORMALISED, contrast_afterwards, "Z = 1 in Eq. 2; both maps L1-normalised, then max(t - dual, 0)", ZHANG_2
    ),
    "c-mwp-nonorm": Method(
        UNNORMALISED, unnormalised_contrast, "Z = 1 in Eq. 2: p_x = x . W+^T p_a, of t and -dual together", ZHANG_2
    ),
    "grad": Method(GRADIENT, magnitude, "max over c of |d s_t / d x_c|", "Simonyan et al. 2014", IMAGE, True),
    "deconv": Method(
        GUIDED, magnitude, "Grad whose ReLUs pass max(g, 0) where a > 0", "Springenberg et al. 2015", IMAGE, True
    ),
    "deconv-plain": Method(
        Deconvolution(), magnitude, "Grad whose ReLUs pass max(g, 0)", "Zeiler and Fergus 2014", IMAGE, True
    ),
    "c-deconv": Method(
        GUIDED, contrast_of_magnitudes, "deconv of t and of its dual, L1-normalised, subtracted", ZHANG_2, IMAGE, True
    ),
    "lrp": Method(
        Relevance(), mwp, "R_x = x . W^T (R / (v + eps sign v)), v = W x + b", "Bach et al. 2015, Eq. 58", IMAGE, True
    ),
    "lrp-alpha-beta": Method(
        AlphaBetaRelevance(),
        mwp,
        "R_x = 2 (xw)+ / sum (xw)+ . R - (xw)- / sum (xw)- . R",
        "Bach et al. 2015, Eq. 60",
        IMAGE,
        True,
    ),
    "cam": Method(GRADIENT, class_activation, "sum over c of W_t,c x_c", "Zhou et al. 2016, Eq. 2", AVERAGED),
    "c-cam": Method(GRADIENT, contrastive_class_activation, "CAM(t) - CAM(dual of t)", ZHANG_2, AVERAGED),
}
