"""Tells boxes that are not in the expected format: fractions of the photo, or width and height instead of a corner."""

import logging

import numpy as np

from proposals.errors import InputError

log = logging.getLogger(__name__)

MAX_REVERSED = 0.1  # share of the boxes
MAX_LEAVING = 0.25  # share of the boxes
MARGIN = 2  # pixels by which a box may leave its photo

LARGEST = 1e7  # pixels; products of larger coordinates lose their precision


class BoxFormat:
    """Collects what the boxes of a file have in common.

    Args:
        where: the file, for error messages.

    Attributes:
        boxes: the number of boxes.
        fractions: how many have no coordinate above 1.
        reversed: how many end before they begin.
        leaving: how many extend beyond their photo.
    """

    def __init__(self, where: object):
        self.where = where
        self.boxes = self.fractions = self.reversed = self.leaving = 0

    def add(self, written: np.ndarray, boxes: np.ndarray, size: tuple[int, int]) -> None:
        """Adds the boxes of a photo.

        Args:
            written: ``(N, 4)`` the numbers in the file.
            boxes: ``(N, 4)`` what they mean, as xyxy.
            size: (height, width) of the photo.
        """
        height, width = size
        self.boxes += len(boxes)
        self.fractions += int((np.abs(written) <= 1).all(1).sum())
        self.reversed += int((boxes[:, 2:] < boxes[:, :2]).any(1).sum())
        self.leaving += int((boxes[:, 2:] > np.array([width + MARGIN, height + MARGIN])).any(1).sum())

    def check_fractions(self, expected: str) -> None:
        """Checks that the coordinates are pixels.

        Args:
            expected: the names of a box's four numbers.

        Raises:
            InputError: all of them are from 0 to 1.
        """
        if self.boxes and self.fractions == self.boxes:
            raise InputError(
                f"{self.where}: all numbers of its {self.boxes:,} boxes are at most 1, like fractions of the photo: "
                f"write {expected} in pixels"
            )

    def warn_leaving(self) -> None:
        """Warns if many boxes extend beyond their photo, as those of a resized photo do."""
        if self.leaving > MAX_LEAVING * self.boxes:
            log.warning(
                "%s: %d of %d boxes extend beyond their photos: they must be in pixels of the original photos",
                self.where,
                self.leaving,
                self.boxes,
            )

    def check_corners(self) -> None:
        """Checks that the boxes have two corners.

        Raises:
            InputError: many end before they begin, as boxes with a width and a height do.
        """
        if self.reversed > MAX_REVERSED * self.boxes:
            raise InputError(
                f"{self.where}: {self.reversed:,} of {self.boxes:,} boxes end before they begin, as x, y, width, "
                "height would: write x1, y1, x2, y2"
            )

    def check_sizes(self) -> None:
        """Checks that the boxes have a width and a height.

        Raises:
            InputError: many extend beyond their photo, as boxes with two corners do.
        """
        if self.leaving > MAX_LEAVING * self.boxes:
            raise InputError(
                f"{self.where}: {self.leaving:,} of {self.boxes:,} boxes extend beyond their photos, as x1, y1, x2, y2 "
                "would: write x, y, width, height in pixels of the original photos"
            )
