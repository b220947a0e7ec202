"""Photos with annotated objects, whichever data set they come from."""

import numpy as np

from eval.coco import Coco, CocoImage
from eval.splits import CocoSplits
from eval.voc import Ilsvrc, Voc, VocImage
from grounding.images import read_image
from proposals.errors import InputError

AnnotatedPhoto = VocImage | CocoImage
AnnotatedPhotos = Voc | Ilsvrc | Coco | CocoSplits


def check_annotated(photos: AnnotatedPhotos | None) -> AnnotatedPhotos:
    """Checks that a data set has annotated objects.

    Args:
        photos: the photos; None for a data set without annotated objects.

    Returns:
        The photos.

    Raises:
        InputError: ``photos`` is None.
    """
    if photos is None:
        raise InputError("this data set has no annotated objects: set data=voc2012, data=coco2017 or data=imagenet")
    return photos


def check_masks(photo: AnnotatedPhoto) -> None:
    """Checks that a photo of COCO has the mask of each object.

    Args:
        photo: the photo and its annotation.

    Raises:
        InputError: an object has no mask, or a malformed one.
    """
    if isinstance(photo, CocoImage):
        for thing in photo.objects:
            thing.check_mask()


def read_annotated(photo: AnnotatedPhoto) -> np.ndarray:
    """Reads a photo and checks that its size is the annotated one.

    Args:
        photo: the photo and its annotation.

    Returns:
        ``(H, W, 3)`` uint8, RGB.

    Raises:
        InputError: the photo cannot be read, or its size differs from the annotation's.
    """
    pixels = read_image(photo.path, max_aspect=None)
    if pixels.shape[:2] != photo.size:
        sizes = [f"{width}x{height}" for height, width in (pixels.shape[:2], photo.size)]
        raise InputError(f"{photo.path} is {sizes[0]}, but its annotation says {sizes[1]}: use the original photo")
    return pixels
