"""Reads COCO (Lin et al., 2014): photos, and the boxes and masks of their objects."""

import json
import warnings
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from proposals.errors import InputError


@dataclass(frozen=True, eq=False)
class CocoObject:
    """An annotated object.

    Attributes:
        category: the name of its class.
        crowd: whether it is a group of objects that are not annotated one by one.
        box: ``(4,)`` float64, half-open xyxy in pixels.
        outline: polygons [[x1, y1, ...], ...], or the run lengths of a mask, in COCO's format.
        size: (height, width) of the photo.
    """

    category: str
    crowd: bool
    box: np.ndarray
    outline: list | dict
    size: tuple[int, int]

    def mask(self) -> np.ndarray:
        """The object's pixels, drawn with COCO's own program.

        Returns:
            ``(H, W)`` bool.

        Raises:
            InputError: pycocotools is not installed.
        """
        try:
            from pycocotools import mask as rle
        except ImportError as error:
            raise InputError("COCO's masks need pycocotools: .venv/bin/pip install -e '.[eval]'") from error
        runs = self.outline if isinstance(self.outline, list) else [self.outline]
        with warnings.catch_warnings():
            # pycocotools 2.0.11 with NumPy 2 warns that "__array__ must implement 'dtype' and 'copy'"
            warnings.simplefilter("ignore", DeprecationWarning)
            return rle.decode(rle.merge(rle.frPyObjects(runs, *self.size))).astype(bool)


@dataclass(frozen=True, eq=False)
class CocoImage:
    """A photo and its objects.

    Attributes:
        id: the name of the file without its suffix.
        path: the path of the file.
        size: (height, width), from the annotation.
        objects: the annotated objects.
    """

    id: str
    path: Path
    size: tuple[int, int]
    objects: tuple[CocoObject, ...]

    @property
    def classes(self) -> list[str]:
        """The classes of its objects, in alphabetical order."""
        return sorted({thing.category for thing in self.objects})


class Coco:
    """The annotated photos of a split whose files exist, in the order of their ids.

    Iterating yields a :class:`CocoImage` for each photo.

    Args:
        root: the folder with ``SPLIT/`` (the photos) and ``annotations/instances_SPLIT.json``.
        split: the name of the split, for example ``val2017``.

    Raises:
        InputError: a part of the folder is missing, or the annotations are malformed.
    """

    def __init__(self, root: str | Path, split: str):
        self.root, self.split = Path(root), split
        self.path = self.root / "annotations" / f"instances_{split}.json"
        for path in (self.root / split, self.path):
            if not path.exists():
                raise InputError(f"{path} does not exist: set data.root (or benchmark.root) to the folder of COCO")
        try:
            self._images = self._read(json.loads(self.path.read_bytes()))
        except InputError:
            raise
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise InputError(
                f"{self.path} cannot be read as COCO instances ({type(error).__name__}: {error})"
            ) from error

    def __len__(self) -> int:
        return len(self._images)

    def __iter__(self) -> Iterator[CocoImage]:
        return iter(self._images)

    def _read(self, annotations: dict) -> list[CocoImage]:
        names = {category["id"]: str(category["name"]) for category in annotations["categories"]}
        sizes = {image["id"]: (int(image["height"]), int(image["width"])) for image in annotations["images"]}
        objects = defaultdict(list)
        for thing in annotations["annotations"]:
            name = names[thing["category_id"]]
            objects[thing["image_id"]].append(self._object(thing, name, sizes[thing["image_id"]]))
        files = {
            image["id"]: self.root / self.split / Path(str(image["file_name"])).name for image in annotations["images"]
        }
        known = sorted((i, path) for i, path in files.items() if path.is_file())
        return [CocoImage(path.stem, path, sizes[i], tuple(objects[i])) for i, path in known]

    def _object(self, thing: dict, category: str, size: tuple[int, int]) -> CocoObject:
        x, y, width, height = map(float, thing["bbox"])
        outline, where = thing["segmentation"], f"{self.path}, annotation {thing['id']}"
        polygons = isinstance(outline, list)
        # pycocotools is written in C and does not check its input
        if polygons and not outline:
            raise InputError(f"{where}: the list of polygons is empty")
        if polygons and not all(
            len(p) >= 6 and len(p) % 2 == 0 and np.isfinite(np.array(p, float)).all() for p in outline
        ):
            raise InputError(f"{where}: a polygon needs three or more points: x1, y1, x2, y2, ...")
        if not polygons and (list(outline["size"]) != list(size) or not _fits(outline["counts"], size)):
            raise InputError(f"{where}: the run lengths must be a list of numbers that add up to {size[0]} x {size[1]}")
        return CocoObject(category, bool(thing["iscrowd"]), np.array([x, y, x + width, y + height]), outline, size)


def _fits(counts: object, size: tuple[int, int]) -> bool:
    return isinstance(counts, list) and min(counts, default=-1) >= 0 and sum(counts) == size[0] * size[1]
