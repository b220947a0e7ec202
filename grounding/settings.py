"""Settings: the attention method of a grounder, and how it ranks proposals."""

from dataclasses import dataclass, replace
from typing import Any

from grounding.attention.methods import AVERAGED, METHODS, method_of
from grounding.attention.topdown import TopDown
from grounding.rescoring import EXPONENTS, check_exponent, check_overlap
from grounding.runtime.value_types import check_fields
from grounding.tagger.tagger import TagClassifier
from proposals.errors import InputError

NO_PARTNER = "none"


@dataclass(frozen=True)
class Settings:
    """The attention method and how proposals are ranked.

    The defaults were chosen on Flickr30k Entities, COCO and VOC together: gamma, vote and presence with the tagger
    efficientnet, the others with googlenet.

    Attributes:
        method: a name in ``grounding.attention.methods.METHODS``.
        target: the layer at which maps are read. None: for c-mwp-partial the tagger's ``coarse_target``, for each other
            method its own, the paper's.
        partner: another method that ranks the boxes, too, in a vote. None: the method's own, which is "cam" for
            c-mwp-partial if the network's classifier reads an average; "none" for no other method.
        side: pixels of the shorter side of the image as the network receives it; 300 in the paper.
        gamma: exponent of the area in S_R / A_R^gamma, >= 0.
        prior: exponent of the proposer's own score, >= 0; 0 in the paper.
        vote: sharpness of the vote that ranks the boxes (see ``grounding.rescoring``); 0 uses non-maximum suppression,
            as in the paper.
        nms: IoU in 0..1; without a vote, a box that overlaps a better one by more is removed.
        rivalry: how strongly phrases that are asked together avoid each other's first box, >= 0 (see
            ``grounding.rescoring.contest``); 0 answers each phrase on its own, as in the paper. Only with a vote.
        presence: probability in 0..1; an answer whose presence is lower has ``present=False``. Its boxes are the same.
            0 counts every answer as present, as the paper does.
    """

    method: str = "c-mwp-partial"
    target: str | None = None
    partner: str | None = None
    side: int = 512
    gamma: float = 0.55
    prior: float = 0.1
    vote: float = 3.0
    nms: float = 0.7
    rivalry: float = 2.0
    presence: float = 0.04

    @classmethod
    def paper(cls) -> "Settings":
        """Returns the settings of the paper: c-MWP at 300 pixels, S_R / A_R^0.5, NMS at an IoU of 0.7."""
        return cls(method="c-mwp", side=300, gamma=0.5, prior=0, vote=0, rivalry=0, presence=0)

    def __post_init__(self) -> None:
        check_fields(self)
        method_of(self.method)
        if self.partner not in (None, NO_PARTNER, *METHODS):
            names = ", ".join(METHODS)
            raise InputError(
                f"partner={self.partner!r} must be a method ({names}), or {NO_PARTNER!r} for no other method"
            )
        if not 0 <= self.presence <= 1:
            raise InputError(f"presence={self.presence} must be in 0..1; 0 counts every answer as present")
        check_overlap(self.nms)
        for name in EXPONENTS:
            check_exponent(name, getattr(self, name))
        if self.side < 224:
            raise InputError(f"side={self.side} is too small: the networks need at least 224 pixels")

    def changed(self, **given: Any) -> "Settings":
        """Returns these settings with other values.

        Args:
            **given: the fields to change; None keeps a field.

        Raises:
            InputError: a value is out of range.
        """
        return replace(self, **{name: value for name, value in given.items() if value is not None})

    def top_down(self, tagger: TagClassifier) -> TopDown:
        """The top-down attention of a tagger, with maps at the target of these settings.

        It does not warn of lost mass if ``target`` is None, because the user did not choose the layer.

        Args:
            tagger: the network.

        Raises:
            InputError: the network has no such layer.
        """
        coarse = tagger.coarse_target if METHODS[self.method].coarse else None
        return TopDown(tagger, self.target, default_target=coarse, warn=self.target is not None)

    @property
    def focus(self) -> str | None:
        """The method of the point in a vote, and of the map that is shown (``Method.focus``); None without one."""
        return METHODS[self.method].focus if self.vote else None

    def methods(self, tagger: TagClassifier) -> tuple[str, ...]:
        """The methods whose maps rank the boxes: the method, and in a vote its focus and its partner.

        Args:
            tagger: the network; if its classifier does not read an average, CAM is left out, unless it was asked for.
        """
        own = METHODS[self.method].partner
        if own and METHODS[own].target == AVERAGED and not tagger.averages:
            own = None
        partner = self.partner or own
        if not self.vote or partner == NO_PARTNER:
            partner = None
        return tuple(dict.fromkeys(name for name in (self.method, self.focus, partner) if name))
