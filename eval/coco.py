"""Reads COCO (Lin et al., 2014): photos, and the boxes and masks of their objects."""

import json
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from eval.annotations import check_box, check_size, clip_box
from eval.box_formats import BoxFormat
from eval.coco_masks import check_outline, draw_mask
from eval.cures import layout_cure
from proposals.errors import InputError

ROBOFLOW = "_annotations.coco.json"  # Roboflow writes it beside the photos
PARTS = ("images", "categories", "annotations")


@dataclass(frozen=True, eq=False)
class CocoObject:
    """An annotated object.

    Attributes:
        category: the name of its class.
        crowd: whether it is a group of objects that are not annotated one by one.
        box: ``(4,)`` float64, half-open xyxy in pixels, inside the photo.
        outline: its mask as annotated: polygons [[x1, y1, ...], ...], or run lengths, in COCO's format; anything else
            if it has no mask, or a malformed one.
        size: (height, width) of the photo.
        where: file and annotation, for error messages.
    """

    category: str
    crowd: bool
    box: np.ndarray
    outline: Any
    size: tuple[int, int]
    where: str = "an annotation"

    def check_mask(self) -> None:
        """Checks that the object has a mask.

        Raises:
            InputError: it has none, or a malformed one.
        """
        check_outline(self.outline, self.size, self.where)

    def mask(self) -> np.ndarray:
        """The object's pixels, drawn with COCO's own program.

        Returns:
            ``(H, W)`` bool.

        Raises:
            InputError: the object has no mask, or a malformed one, or pycocotools is not installed.
        """
        return draw_mask(self.outline, self.size, self.where)


@dataclass(frozen=True, eq=False)
class CocoImage:
    """A photo and its objects.

    Attributes:
        id: the path of the file without its suffix, relative to the folder of the photos.
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
    """The annotated photos of a split, in the order of their numbers in the file.

    Masks are read only where they are needed. Iterating yields a :class:`CocoImage` for each photo whose file exists.

    Args:
        root: the folder with ``SPLIT/`` (the photos) and ``annotations/instances_SPLIT.json``, or with
            ``SPLIT/_annotations.coco.json``.
        split: the name of the split, for example ``val2017``.
        annotations: the file of the annotations, if it is elsewhere; ``grounding format=coco`` writes such a file.
        images: the folder of the photos, if it is elsewhere.

    Attributes:
        ids: the names of all photos, see ``CocoImage.id``. Two photos whose names differ in their suffixes only keep
            them. A photo that has annotations, but is not listed, has the name ``image_id N``.

    Raises:
        InputError: a part of the folder is missing, or the file is not COCO's.
    """

    def __init__(
        self, root: str | Path, split: str, annotations: str | Path | None = None, images: str | Path | None = None
    ):
        self.root, self.split = Path(root), split
        self.folder = self.root / split if images is None else Path(images)
        self.path = self._default_annotations() if annotations is None else Path(annotations)
        for path, setting in ((self.folder, "data.images"), (self.path, "data.annotations")):
            if not path.exists():
                cure = f"set data.root (or benchmark.root) to the folder of COCO, or {setting}"
                raise InputError(f"{path} does not exist: {layout_cure(self.root, split) or cure}")
        try:
            self._read(json.loads(self.path.read_bytes()))
        except InputError:
            raise
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise InputError(
                f"{self.path} cannot be read as COCO instances ({type(error).__name__}: {error})"
            ) from error

    @property
    def names(self) -> list[str]:
        """The names of all categories, in alphabetical order."""
        return sorted(set(self._names.values()))

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[CocoImage]:
        return (photo for photo in map(self.read, self.ids) if photo.path.is_file())

    def read(self, name: str) -> CocoImage:
        """The photo of a name and its objects.

        Args:
            name: one of ``ids``.

        Raises:
            InputError: the photo has no size or no safe path, or a box is malformed, inverted or outside the photo.
        """
        number = self._numbers[name]
        if number not in self._images:
            raise InputError(f'{self.path}: {name} has annotations, but is not listed under "images": list it')
        image = self._images[number]
        where = f"{self.path}, image {number}"
        size = check_size(image.get("height"), image.get("width"), where)
        path = self._photo(image.get("file_name"), where)
        return CocoImage(name, path, size, tuple(self._object(thing, size) for thing in self._things[number]))

    def _default_annotations(self) -> Path:
        beside = self.folder / ROBOFLOW
        return beside if beside.is_file() else self.root / "annotations" / f"instances_{self.split}.json"

    def _read(self, content: Any) -> None:
        _check_parts(content, self.path)
        self._names = {category["id"]: str(category["name"]) for category in content["categories"]}
        self._images = {image["id"]: image for image in content["images"]}
        for part, known in (("categories", self._names), ("images", self._images)):
            if len(known) < len(content[part]):
                repeated = Counter(thing["id"] for thing in content[part]).most_common(1)[0][0]
                raise InputError(f'{self.path}: the id {repeated} is twice under "{part}": give each its own id')
        self._things: dict[Any, list[dict]] = defaultdict(list)
        for thing in content["annotations"]:
            self._things[thing["image_id"]].append(thing)
        self._numbers = self._name_photos()
        self.ids = list(self._numbers)
        self._check_boxes()

    def _name_photos(self) -> dict[str, Any]:
        """The id of each photo by its name."""
        files = {number: str(image.get("file_name")) for number, image in self._images.items()}
        stems = Counter(_stem(file) for file in files.values())
        numbers: dict[str, Any] = {}
        for number in sorted(files, key=_order):
            name = _stem(files[number]) if stems[_stem(files[number])] == 1 else files[number]
            if name in numbers:
                raise InputError(f'{self.path}: the file_name {name} is twice under "images": list it once')
            numbers[name] = number
        unlisted = sorted(self._things.keys() - self._images.keys(), key=_order)
        return numbers | {f"image_id {number}": number for number in unlisted}

    def _check_boxes(self) -> None:
        """Refuses a file whose boxes are not x, y, width, height in pixels."""
        known = BoxFormat(self.path)
        for number, image in self._images.items():
            boxes = [thing["bbox"] for thing in self._things.get(number, []) if _is_box(thing.get("bbox"))]
            size = (image.get("height"), image.get("width"))
            if boxes and all(type(side) is int for side in size):
                xywh = np.array(boxes, float)
                known.add(xywh, np.hstack([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]]), size)
        known.check_fractions("x, y, width, height")
        known.check_sizes()

    def _photo(self, file: Any, where: str) -> Path:
        """The path of a photo. Its name may have folders; it may not leave the folder of the photos."""
        path = PurePosixPath(_slashes(file)) if isinstance(file, str) else PurePosixPath()
        if not path.name or path.is_absolute() or ".." in path.parts or file[1:2] == ":" or "\0" in file:
            raise InputError(f"{where}: the file_name {file!r} must be a path below {self.folder}, without ..")
        beside = self.folder.parent / path  # the name may begin with the name of the folder
        return beside if path.parts[0] == self.folder.name and beside.is_file() else self.folder / path

    def _object(self, thing: dict, size: tuple[int, int]) -> CocoObject:
        where = f"{self.path}, annotation {thing.get('id')}"
        number, crowd, box = thing.get("category_id"), thing.get("iscrowd"), thing.get("bbox")
        if not isinstance(number, Hashable) or number not in self._names:
            raise InputError(f'{where}: category_id {number} is not listed under "categories"')
        if crowd not in (None, 0, 1):
            raise InputError(f"{where}: iscrowd must be 0 or 1, but is {crowd!r}")
        if not _is_box(box):
            raise InputError(f"{where}: bbox must be four numbers (x, y, width, height), but is {str(box)[:60]}")
        x, y, width, height = box
        outside = x >= size[1] or y >= size[0] or x + width <= 0 or y + height <= 0
        check_box(box, min(width, height) < 0, outside, size, where)
        corners = clip_box(np.array([x, y, x + width, y + height], float), size)
        return CocoObject(self._names[number], bool(crowd), corners, thing.get("segmentation"), size, where)


def _check_parts(content: Any, path: Path) -> None:
    """Refuses JSON that has not the three lists of COCO's instances."""
    if isinstance(content, list):
        raise InputError(f"{path} is a list, such as COCO's results: give a data set with {', '.join(PARTS)}")
    if missing := [part for part in PARTS if not isinstance(content.get(part), list)]:
        found = ", ".join(map(str, list(content)[:6]))
        raise InputError(
            f"{path} cannot be read as COCO instances: it has no list of {' and of '.join(missing)}, but {found}; "
            "export the data as COCO"
        )


def _is_box(box: Any) -> bool:
    if not isinstance(box, list) or len(box) != 4 or not all(type(number) in (int, float) for number in box):
        return False
    return all(abs(number) < 1e9 for number in box)  # not for NaN


def _slashes(file: str) -> str:
    return file.replace("\\", "/")


def _stem(file: str) -> str:
    return str(PurePosixPath(_slashes(file)).with_suffix("")) if PurePosixPath(_slashes(file)).name else file


def _order(number: Any) -> tuple[bool, Any]:
    """Sorts numbers before texts."""
    return isinstance(number, str), number
