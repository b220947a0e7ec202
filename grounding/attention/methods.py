"""The attention methods by name: which rules take the signal down, and how it becomes a map at the target.

In the equations, s_t(p) is the score of tag t at position p of the classifier, W_t are its weights, x are the values of
the target layer, c are its channels, and g is the signal that arrives there (see ``rules.py``).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor, where

from grounding.attention.descent import TopDownPass
from grounding.attention.gradients import Deconvolution, Gradient, GuidedBackprop
from grounding.attention.relevance import LRPAlphaBeta, LRPEpsilon
from grounding.attention.rules import ExcitationBackprop, RuleSet, UnnormalisedAverages, UnnormalisedExcitation
from proposals.errors import InputError

IMAGE = "image"
AVERAGED = "averaged"
PART = 0.65  # share of the dual's mass in "c-mwp-partial"; chosen on Flickr30k Entities val, see results/


@dataclass(frozen=True)
class Method:
    """A way to turn a tag into a map.

    Attributes:
        rules: what happens to a signal at each layer.
        maps: (a pass, signals ``(W, T)``, tags in use ``(T,)``) to the maps ``(N, W, h, w)``, one for each target.
        equation: what it computes.
        source: where the equation is from.
        target: the layer at which the maps are read by default. None: the layer that the paper uses for the
            architecture. ``IMAGE``: the input. ``AVERAGED``: the layer whose average the classifier reads, which is
            part of CAM's definition.
        focus: the method whose map chooses the point of a phrase in a vote, is shown, and helps to rank the boxes;
            None: the method itself.
        partner: another method that helps to rank the boxes in a vote; None for none. ``Settings.partner`` replaces it.
        part: of a contrastive method, the share of the dual's map that is subtracted before the truncation.
        lanes: the number of signals that a word takes in a pass.
        coarse: whether a grounder reads the maps of this method, and of others beside it, at the coarse target of its
            tagger (``TagClassifier.coarse_target``).
        blurred: whether the paper blurs the maps (``grounding.maps.blur``). ``Scene.attend`` does not blur.
    """

    rules: type[RuleSet]
    maps: Callable[[TopDownPass, Tensor, Tensor], list[Tensor]]
    equation: str
    source: str
    target: str | None = None
    blurred: bool = False
    focus: str | None = None
    partner: str | None = None
    part: float | None = None
    lanes: int = 1
    coarse: bool = False

    def of_both(self, both: Sequence[Tensor]) -> list[Tensor]:
        """The maps of a contrastive method from what :func:`unit_and_dual` returns; a map is linear in its signal."""
        halves = [maps.chunk(2, 2) for maps in both]
        return [(unit - (self.part or 0) * dual).clamp(min=0).squeeze(2) for unit, dual in halves]


def mwp(top_down: TopDownPass, signals: Tensor, used: Tensor) -> list[Tensor]:
    """Marginal winning probability: >= 0, each map sums to the sum of its signal."""
    return top_down.mass(top_down.enter(signals, used))


def contrast(top_down: TopDownPass, signals: Tensor, used: Tensor, share: float = 1.0) -> list[Tensor]:
    """The unit's map minus a share of its dual's, in one pass and before the truncation. Sums to 1 - share."""
    unit, dual = top_down.enter(signals, used), top_down.enter(signals, used, dual=True)
    return top_down.mass(top_down.subtract(unit, dual, share))


def unit_and_dual(top_down: TopDownPass, signals: Tensor, used: Tensor) -> list[Tensor]:
    """The unit's map and its dual's, each by itself: ``(N, W, 2, h, w)``. They give every contrast of the two."""
    maps = top_down.mass(top_down.enter(signals, used, both=True))
    return [m.unflatten(1, (2, -1)).transpose(1, 2) for m in maps]


def contrastive(top_down: TopDownPass, signals: Tensor, used: Tensor) -> list[Tensor]:
    """c-MWP: the contrast, truncated at 0 at the target."""
    return [m.clamp(min=0) for m in contrast(top_down, signals, used)]


def partly_contrastive(top_down: TopDownPass, signals: Tensor, used: Tensor) -> list[Tensor]:
    """The contrast with a share of the dual, truncated at 0. It reduces the mass that both have, but keeps a part."""
    return [m.clamp(min=0) for m in contrast(top_down, signals, used, PART)]


def unnormalised_contrast(top_down: TopDownPass, signals: Tensor, used: Tensor) -> list[Tensor]:
    """c-MWP for rules that do not keep the scale of the signal: each map is divided by its sum."""
    return [_normalised(m) for m in contrastive(top_down, signals, used)]


def contrast_afterwards(top_down: TopDownPass, signals: Tensor, used: Tensor) -> list[Tensor]:
    """The unit's map minus its dual's, each L1-normalised first, truncated at 0."""
    return _subtract(*(top_down.mass(top_down.enter(signals, used, dual)) for dual in (False, True)))


def magnitude(top_down: TopDownPass, signals: Tensor, used: Tensor) -> list[Tensor]:
    """The maximum over c of abs(g)."""
    return top_down.magnitude(top_down.enter(signals, used))


def contrast_of_magnitudes(top_down: TopDownPass, signals: Tensor, used: Tensor) -> list[Tensor]:
    """The unit's magnitude minus its dual's, each L1-normalised first, truncated at 0."""
    return _subtract(*(top_down.magnitude(top_down.enter(signals, used, dual)) for dual in (False, True)))


def class_activation(top_down: TopDownPass, signals: Tensor, used: Tensor) -> list[Tensor]:
    """CAM: the sum over c of W_t,c x_c; signed."""
    return top_down.weigh(signals, used)


def contrastive_class_activation(top_down: TopDownPass, signals: Tensor, used: Tensor) -> list[Tensor]:
    """CAM minus the dual's CAM, truncated at 0. The dual's map is the negated map, so this is twice the map."""
    return [2 * m.clamp(min=0) for m in class_activation(top_down, signals, used)]


def _subtract(unit: Sequence[Tensor], dual: Sequence[Tensor]) -> list[Tensor]:
    return [(_normalised(u) - _normalised(d)).clamp(min=0) for u, d in zip(unit, dual, strict=True)]


def _normalised(maps: Tensor) -> Tensor:
    total = maps.abs().sum((2, 3), keepdim=True)
    return maps / where(total > 0, total, 1)


ZHANG, ZHANG_2 = "Zhang et al. 2016, Eq. 1, 2 and Sec. 3.3", "Zhang et al. 2016, Table 2"

METHODS: dict[str, Method] = {
    "mwp": Method(ExcitationBackprop, mwp, "p_x = x . W+^T (p_a / z), z = W+ x; sum over c of p_x", ZHANG),
    "c-mwp": Method(
        ExcitationBackprop, contrastive, "max(MWP(t) - MWP(dual of t), 0), the dual's weights -W_t", ZHANG, part=1.0
    ),
    "c-mwp-partial": Method(
        ExcitationBackprop,
        partly_contrastive,
        f"max(MWP(t) - {PART} MWP(dual of t), 0)",
        "ours",
        focus="c-mwp",
        partner="cam",
        part=PART,
        coarse=True,
    ),
    "c-mwp-postnorm": Method(
        UnnormalisedExcitation,
        contrast_afterwards,
        "Z = 1 in Eq. 2; both maps L1-normalised, then max(t - dual, 0)",
        ZHANG_2,
    ),
    "c-mwp-nonorm": Method(
        UnnormalisedExcitation,
        unnormalised_contrast,
        "Z = 1 in Eq. 2: p_x = x . W+^T p_a, of t and -dual together",
        ZHANG_2,
    ),
    "c-mwp-nonorm-pools": Method(
        UnnormalisedAverages,
        unnormalised_contrast,
        "as c-mwp-nonorm, and average pools lose their Z, too: p_x = x / n . p_y",
        "another reading of Table 2",
    ),
    "grad": Method(Gradient, magnitude, "max over c of |d s_t / d x_c|", "Simonyan et al. 2014", IMAGE, True),
    "deconv": Method(
        GuidedBackprop,
        magnitude,
        "Grad whose ReLUs pass max(g, 0) where a > 0",
        "Springenberg et al. 2015",
        IMAGE,
        True,
    ),
    "deconv-plain": Method(
        Deconvolution, magnitude, "Grad whose ReLUs pass max(g, 0)", "Zeiler and Fergus 2014", IMAGE, True
    ),
    "c-deconv": Method(
        GuidedBackprop,
        contrast_of_magnitudes,
        "deconv of t and of its dual, L1-normalised, subtracted",
        ZHANG_2,
        IMAGE,
        True,
    ),
    "lrp": Method(
        LRPEpsilon, mwp, "R_x = x . W^T (R / (v + eps sign v)), v = W x + b", "Bach et al. 2015, Eq. 58", IMAGE, True
    ),
    "lrp-alpha-beta": Method(
        LRPAlphaBeta,
        mwp,
        "R_x = 2 (xw)+ / sum (xw)+ . R - (xw)- / sum (xw)- . R",
        "Bach et al. 2015, Eq. 60",
        IMAGE,
        True,
    ),
    "cam": Method(Gradient, class_activation, "sum over c of W_t,c x_c", "Zhou et al. 2016, Eq. 2", AVERAGED),
    "c-cam": Method(Gradient, contrastive_class_activation, "CAM(t) - CAM(dual of t)", ZHANG_2, AVERAGED),
}


# the pass that serves a contrastive method together with its focus; its maps are no method's
BOTH = Method(ExcitationBackprop, unit_and_dual, "MWP(t) and MWP(dual of t)", ZHANG, lanes=2)


def method_of(name: str) -> Method:
    """The method with this name.

    Raises:
        InputError: no method has this name.
    """
    if name not in METHODS:
        raise InputError(f"there is no attention method {name!r}; choose one of {', '.join(METHODS)}")
    return METHODS[name]
