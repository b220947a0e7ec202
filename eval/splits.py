"""Several splits of a data set as one."""

from collections.abc import Sequence
from pathlib import Path

from eval.coco import Coco, CocoImage
from proposals.errors import InputError


def read_coco(
    root: str | Path, split: str, annotations: str | None = None, images: str | None = None
) -> "Coco | CocoSplits":
    """Reads a split of COCO, or several.

    Args:
        root: the folder of COCO.
        split: the name of the split, or several names joined by "+": ``train2017+val2017``.
        annotations: see :class:`eval.coco.Coco`; of a single split only.
        images: see :class:`eval.coco.Coco`; of a single split only.

    Raises:
        InputError: see :class:`eval.coco.Coco` and :class:`CocoSplits`.
    """
    several = "+" in split and annotations is None and images is None and not Path(root, split).exists()
    return CocoSplits(root, split.split("+")) if several else Coco(root, split, annotations, images)


class CocoSplits:
    """The photos of several splits of COCO, one split after another.

    Args:
        root: the folder of COCO.
        splits: the names of the splits, for example ``["train2017", "val2017"]``.

    Attributes:
        root: the folder of COCO.
        split: the names of the splits, joined by "+".
        folder: the folder of COCO.
        ids: the names of all photos.
        names: the names of all categories, in alphabetical order.

    Raises:
        InputError: a split cannot be read, two splits have the same photo, or no split is given.
    """

    def __init__(self, root: str | Path, splits: Sequence[str]):
        if isinstance(splits, str) or not splits:
            raise InputError(f"splits={splits} must be a list of names, such as [train2017, val2017]")
        self.root = self.folder = Path(root)
        self.split = "+".join(splits)
        self._of: dict[str, Coco] = {}
        for reader in [Coco(root, split) for split in splits]:
            if both := self._of.keys() & set(reader.ids):
                raise InputError(f"photo {min(both)} is in two of the splits {self.split}: name each split once")
            self._of |= dict.fromkeys(reader.ids, reader)
        self.ids = list(self._of)
        self.names = sorted({name for reader in self._of.values() for name in reader.names})

    def __len__(self) -> int:
        return len(self.ids)

    def read(self, name: str) -> CocoImage:
        """The photo of a name and its objects.

        Args:
            name: one of ``ids``.

        Raises:
            InputError: see :meth:`eval.coco.Coco.read`.
        """
        return self._of[name].read(name)
