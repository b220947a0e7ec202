"""The answers about one image, which a notebook shows beside each other."""

from PIL import Image

from grounding.answers import Grounding
from proposals.errors import InputError


class Groundings(list[Grounding]):
    """The answers about one image, a list. ``print`` writes one line each, a notebook shows them beside each other."""

    def __str__(self) -> str:
        return "\n".join(map(str, self))

    def picture(self) -> Image.Image:
        """Draws the photo with the best box of each phrase, and beside it the heat map of each phrase.

        Returns:
            An RGB picture, see ``grounding.pictures.board``.

        Raises:
            InputError: there is no answer, or the answers do not contain their image.
        """
        # matplotlib takes a quarter of a second to import, and most answers are never shown
        from grounding.pictures.board import board

        if not self or self[0].image is None:
            raise InputError("the answers do not contain their image: call ground_batch with keep_images=True")
        return board(self[0].image, self)

    def _repr_html_(self) -> str | None:
        from grounding.pictures.board import as_html

        return as_html(self.picture()) if self and self[0].image is not None else None
