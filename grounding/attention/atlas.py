"""Atlas: the maps of all tags of one image, as linear combinations of a basis.

Where the classifier has one position (224 x 224 pixels), a map is linear in the signal at its C inputs (pool5: 1024
channels). The map of each input by itself is a basis map, which takes one top-down signal. The map of any tag is then a
product of C coefficients with the basis: B = (C, h * w), maps = coefficients (T, C) . B.

    atlas = scene.atlas()
    atlas.maps([3, 17])                  # (2, h, w)
    for tags, maps in atlas: ...         # all of them, a block at a time
    atlas.words((40, 30, 120, 180))      # the tags whose mass is most concentrated in a box

The alternative is to go up, with one forward-mode derivative for each of the h * w positions of the target. At pool2,
this takes 784 passes, against at most 1024. But derivatives of different positions cannot be batched in the sparse
form, and an input with activation 0 needs no basis map (a photo has about 800 inputs > 0). So signals go down here too.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from grounding.attention.descent import Passes, TopDownPass
from grounding.attention.engine.dense import ratio
from grounding.attention.forward import ForwardPass
from proposals.errors import InputError

CONTRASTS = {"mwp": False, "c-mwp": True}
BLOCK = 1024  # tags whose maps are computed at once
AT_ONCE = 32  # basis maps in one pass; the memory of a pass grows with it, and each thread runs a pass


class Atlas:
    """The maps of all tags of one image.

    Args:
        forward: one image, by the rules of Excitation Backprop.
        method: "mwp" or "c-mwp".
        size: (height, width) of the image, in the pixels in which boxes are given.
        passes: runs the top-down passes.

    Attributes:
        basis: ``(C', h, w)``, the map of each of the C' active inputs of the classifier.
        scores: ``(tags,)``, the classifier's score of each tag.

    Raises:
        InputError: another method, or an image with more than one position.
    """

    def __init__(self, forward: ForwardPass, method: str, size: tuple[int, int], passes: Passes):
        if method not in CONTRASTS:
            raise InputError(f"an atlas can show {' or '.join(CONTRASTS)}, not {method!r}, whose maps are not linear")
        if forward.images > 1 or forward.scores[0, 0].numel() > 1:
            raise InputError("an atlas needs one image with one position of the classifier: give it 224 x 224 pixels")
        self._contrastive, self._size, self.scores = CONTRASTS[method], size, forward.scores.flatten()
        features, weight = forward.features.activation.flatten(), forward.net.weight
        active = features.nonzero()[:, 0]
        self._features, self._weight = features[active], weight[:, active]
        self.basis = torch.cat(passes(_input_maps, [(forward, part) for part in active[:, None].split(AT_ONCE)]))

    def __len__(self) -> int:
        return len(self._weight)

    def __iter__(self) -> Iterator[tuple[range, Tensor]]:
        """All maps, a block of tags at a time: their indices, and ``(T, h, w)``."""
        for start in range(0, len(self), BLOCK):
            tags = range(start, min(start + BLOCK, len(self)))
            yield tags, self.maps(tags)

    @torch.no_grad()
    def maps(self, tags: Sequence[int]) -> Tensor:
        """The maps of some tags, as ``Scene.attend`` gives them.

        Args:
            tags: T indices.

        Returns:
            ``(T, h, w)``.

        Raises:
            InputError: a tag that the classifier does not have.
        """
        ids = torch.as_tensor(list(tags), dtype=torch.long)
        if not len(ids) or ids.min() < 0 or ids.max() >= len(self):
            raise InputError(f"an atlas has the tags 0 to {len(self) - 1}")
        products = self._coefficients(self._weight[ids]) @ self.basis.flatten(1)
        maps: Tensor = products.unflatten(1, self.basis.shape[1:])
        return maps.clamp(min=0) if self._contrastive else maps

    def _coefficients(self, weight: Tensor) -> Tensor:
        """Each tag's g at the classifier's inputs, W+ / (W+ . x), minus its dual's for c-MWP."""
        own = self._shares(weight.clamp(min=0))
        return own - self._shares((-weight).clamp(min=0)) if self._contrastive else own

    def _shares(self, weight: Tensor) -> Tensor:
        return ratio(weight, (weight @ self._features)[:, None])

    def concentration(self, box: Sequence[float]) -> Tensor:
        """The share of each tag's mass that lies in a box.

        Args:
            box: (x1, y1, x2, y2), half-open, in pixels of the image.

        Returns:
            ``(tags,)`` in 0..1, 0 for a tag without mass.

        Raises:
            InputError: a box that is empty or outside of the image.
        """
        check_box(box, self._size)
        return torch.cat([concentration(maps, box, self._size) for _, maps in self])

    def words(self, box: Sequence[float], count: int = 10, likely: float = 0.25) -> list[tuple[int, float]]:
        """The tags whose mass is most concentrated in a box.

        A tag that the image does not show has a map, too. Therefore the concentration is multiplied by a power of the
        tag's probability.

        Args:
            box: as in :meth:`concentration`.
            count: how many tags.
            likely: the exponent of the probability; 0 ignores it.

        Returns:
            (tag, concentration in 0..1), best first.
        """
        concentration = self.concentration(box)
        order = (concentration * self.scores.sigmoid() ** likely).argsort(descending=True, stable=True)[:count]
        return [(int(tag), float(concentration[tag])) for tag in order]


def concentration(maps: Tensor, box: Sequence[float], size: Sequence[int]) -> Tensor:
    """The share of each map's mass that lies in a box.

    Args:
        maps: ``(T, h, w)``, of one image.
        box: (x1, y1, x2, y2), half-open, in pixels of the image.
        size: (height, width) of the image in pixels.

    Returns:
        ``(T,)`` in 0..1, 0 for a map without mass. A cell that the box cuts counts in part.
    """
    sides = []
    for low, high, length, cells in zip(box[:2], box[2:], size[::-1], maps.shape[:0:-1], strict=True):
        edges = torch.arange(cells + 1).to(maps) * length / cells
        sides.append((edges[1:].clamp(max=high) - edges[:-1].clamp(min=low)).clamp(min=0) * cells / length)
    covered = (sides[1][:, None] * sides[0]).flatten()
    return ratio(maps.flatten(1) @ covered, maps.sum((1, 2)))


def check_box(box: Sequence[float], size: Sequence[int]) -> None:
    """Checks a box.

    Args:
        box: (x1, y1, x2, y2), half-open, in pixels of the image.
        size: (height, width) of the image in pixels.

    Raises:
        InputError: the box is not four numbers, is empty or reaches beyond the image.
    """
    try:
        numbers = [float(side) for side in box if not isinstance(side, str)]
    except (TypeError, ValueError):
        numbers = []
    if len(numbers) != 4 or len(box) != 4:
        given = tuple(box) if isinstance(box, Sequence) and not isinstance(box, str) else repr(box)
        raise InputError(f"the box {given} must be four numbers: x1, y1, x2, y2")
    if not all(0 <= low < high <= length for low, high, length in zip(box[:2], box[2:], size[::-1], strict=True)):
        raise InputError(f"the box {tuple(box)} is empty or leaves the image of {tuple(size[::-1])} pixels")


def most_fitting(shares: Tensor, probabilities: Tensor, count: int) -> list[int]:
    """The tags that name best what is in a box, by probability times the share of the map in the box.

    Args:
        shares: ``(T,)``, of each map's mass, the share that lies in the box.
        probabilities: ``(T,)``, how probable it is that the image shows each tag.
        count: how many tags.

    Returns:
        At most ``count`` indices in 0..T-1, best first; none without mass in the box.

    Raises:
        InputError: ``count`` is not a whole number, 1 or more.
    """
    if type(count) is not int or count < 1:
        raise InputError(f"count={count!r} must be a whole number, 1 or more")
    fit = shares.double().cpu() * probabilities
    order: list[int] = fit.argsort(descending=True, stable=True)[:count].tolist()
    return [place for place in order if fit[place] > 0]


def _input_maps(top_down: TopDownPass, channels: Tensor) -> Tensor:
    """The maps of some inputs of the classifier, ``(channels, 1)``, each by itself: ``(channels, h, w)``."""
    features = top_down.forward.features.activation
    signals = features.new_zeros(len(channels), *features.shape[1:])
    signals.view(len(channels), -1)[torch.arange(len(channels), device=channels.device), channels[:, 0]] = 1
    return top_down.mass(top_down.begin(signals))[0][0]
