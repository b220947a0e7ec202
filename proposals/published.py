"""Published proposals: segments of MCG and boxes of EdgeBoxes, one .mat file per photo, as their programs write them.

The files may come from untrusted sources. Nothing is unpacked to disk, no pickle is read, and every length, type and
count is checked before memory of that size is allocated. A bad file raises an ``InputError`` that names it.
"""

import tarfile
from abc import ABC, abstractmethod
from pathlib import Path

import numpy as np

from proposals.boxes import Boxes
from proposals.errors import InputError
from proposals.matfile import AS_WRITTEN, NUMERIC, MatFile, one_line
from proposals.proposals import Proposals, check_image
from proposals.segments import MAX_ASPECT, Segments

# Maximum bytes of a file and of an unpacked variable, to which 8 bytes per pixel of the photo are added.
MAX_BYTES = 64 * 2**20
MAX_SCORE = 1e100  # sums of scores up to this cannot overflow
SIDE = 300  # cells of the shorter side of the working grid of boxes, the default of ``SegmentProposer``
# Pixels by which a box may leave the photo: programs count from 0 or from 1, and include or exclude the last pixel.
TOLERANCE = 1.0
SAME_PHOTO = "use the proposals of this photo"  # the end of error messages
DECOMPRESSORS = {b"\x1f\x8b": "gunzip", b"BZh": "bunzip2", b"\xfd7z": "unxz"}  # by the first bytes of a file


class Archive:
    """Files NAME.mat in a folder, or in any folder of an uncompressed tar file.

    The constructor lists the files once. Afterwards any thread or process may read them.

    Args:
        root: the folder or the tar file.

    Raises:
        InputError: If there is no such folder or tar file, if it contains no .mat file, or if the tar file is
            compressed or damaged, contains a name twice, or contains a .mat that is not a regular file.
    """

    def __init__(self, root: str | Path):
        self.root = Path(root)
        try:
            self._places = self._list_folder() if self.root.is_dir() else self._list_tar()
        except OSError as error:
            raise InputError(f"{root} cannot be read: {error.strerror or error}") from error
        if not self._places:
            raise InputError(f"{root} contains no .mat file; give the folder or tar file of the proposals")

    def read(self, name: str | None, limit: int) -> tuple[str, bytes]:
        """Reads the file of one photo.

        Args:
            name: name of the photo, without a suffix.
            limit: maximum bytes of the file.

        Returns:
            The file's path for error messages (``TAR:MEMBER`` in a tar file), and its content.

        Raises:
            InputError: If the name is missing, if there is no file of this name, or if the file is longer than
                ``limit`` or cannot be read.
        """
        if name is None:
            raise InputError("published proposals are looked up by the photo's name; pass the photo's path or its name")
        if name not in self._places:
            raise InputError(f"{self.root} has no {name}.mat; give the folder or tar file of this photo's data set")
        path, offset, size, where = self._places[name]
        try:
            size = path.stat().st_size if size is None else size
            if size > limit:
                raise InputError(
                    f"{where} has {size} bytes, more than one photo's proposals need ({limit}); leave out masks"
                )
            with path.open("rb") as file:
                file.seek(offset)
                raw = file.read(size)
        except OSError as error:
            raise InputError(f"{where} cannot be read: {error.strerror or error}") from error
        if len(raw) != size:
            raise InputError(f"{where} is truncated after {len(raw)} of {size} bytes; download it again")
        return where, raw

    def _list_folder(self) -> dict[str, tuple[Path, int, int | None, str]]:
        return {path.stem: (path, 0, None, str(path)) for path in self.root.glob("*.mat") if path.is_file()}

    def _list_tar(self) -> dict[str, tuple[Path, int, int | None, str]]:
        if not self.root.is_file():
            raise InputError(f"{self.root} does not exist; give a folder or an uncompressed tar file of .mat files")
        with self.root.open("rb") as file:
            magic = file.read(3)
        for start, tool in DECOMPRESSORS.items():
            if magic.startswith(start):
                raise InputError(f"{self.root} is compressed; unpack it with {tool}")
        places: dict[str, tuple[Path, int, int | None, str]] = {}
        for member in self._members():
            name, where = Path(member.name).stem, f"{self.root}:{member.name}"
            if name in places:
                raise InputError(f"{where}: the tar file contains another {name}.mat; remove one of them")
            places[name] = (self.root, member.offset_data, member.size, where)
        return places

    def _members(self) -> list[tarfile.TarInfo]:
        """The entries of the .mat files in the tar file, checked."""
        try:
            with tarfile.open(self.root, "r:") as tar:
                members = [member for member in tar if member.name.endswith(".mat") and not member.isdir()]
                tar.fileobj.seek(tar.offset)
                # tarfile stops at a damaged entry as if it were the end of the file
                ended = not tar.fileobj.read(tarfile.BLOCKSIZE).strip(b"\0")
        except (tarfile.TarError, ValueError, EOFError, OverflowError, RecursionError, MemoryError) as error:
            raise InputError(
                f"{self.root} is damaged or not a tar file ({one_line(error)}); download it again"
            ) from error
        total = self.root.stat().st_size
        if not ended or any(member.offset_data + member.size > total for member in members):
            raise InputError(f"{self.root} is damaged or truncated; download it again")
        for member in members:
            if not member.isreg() or member.issparse():
                raise InputError(f"{self.root}:{member.name} is not a regular file; create the tar file without links")
        return members


class PublishedProposals(ABC):
    """Proposals that another program computed, one file NAME.mat per photo.

    Args:
        root: a folder or an uncompressed tar file that contains NAME.mat, where NAME is the photo's name.
        count: maximum number of proposals per image. Those with the highest scores are kept; equal scores keep the
            order of the file.

    Raises:
        InputError: If the count is below 1, or the folder or tar file cannot be used (see ``Archive``).
    """

    def __init__(self, root: str | Path, count: int = 500):
        if count < 1:
            raise InputError(f"count={count} must be 1 or more")
        self.root, self.count, self.archive = str(root), count, Archive(root)

    def __call__(self, image: np.ndarray, name: str | None = None) -> Proposals:
        """Reads the proposals of one image.

        Args:
            image: ``(H, W, 3)`` uint8 RGB.
            name: file name of the image without its suffix.

        Raises:
            InputError: If the image has another shape or type or no name, if there is no file of its name, or if that
                file is damaged, contains something else, or belongs to another image.
        """
        check_image(image)
        limit = MAX_BYTES + 8 * image.shape[0] * image.shape[1]
        where, raw = self.archive.read(name, limit)
        return self._proposals(MatFile(raw, where, limit), image.shape[:2])

    @abstractmethod
    def _proposals(self, file: MatFile, size: tuple[int, int]) -> Proposals:
        """The proposals in a file, for a photo of this (height, width)."""

    def _best(self, scores: np.ndarray, usable: np.ndarray) -> np.ndarray:
        """Indices of the proposals to keep, best first, from scores ``(N,)`` and a mask of valid proposals ``(N,)``."""
        order = np.argsort(-scores, kind="stable")
        return order[usable[order]][: self.count]


class McgProposals(PublishedProposals):
    """Segments of MCG, from files with the variables ``superpixels``, ``labels`` and ``scores``.

    Region i is the union of the superpixels listed in ``labels{i}``; superpixels that are listed twice count once, and
    empty regions are dropped. The variable ``bboxes`` is not read, because its rows do not belong to the regions; boxes
    are computed from the regions. The working grid is the superpixel map, which must have the photo's size.

    Args:
        root: a folder or an uncompressed tar file that contains NAME.mat, where NAME is the photo's name.
        count: maximum number of proposals per image, see ``PublishedProposals``.

    Raises:
        InputError: If the count is below 1, or the folder or tar file cannot be used (see ``Archive``).
    """

    def _proposals(self, file: MatFile, size: tuple[int, int]) -> Segments:
        superpixels = file.matrix("superpixels")
        if superpixels.shape != size:
            raise InputError(
                f"{file.where} has superpixels of shape {superpixels.shape}, the photo has {size}; {SAME_PHOTO}"
            )
        ids, labels = np.unique(_as_integers(file.where, "superpixels", superpixels), return_inverse=True)
        cells, scores = file.cells("labels"), _scores(file.where, file.matrix("scores"))
        if len(scores) != len(cells):
            raise InputError(f"{file.where} has {len(cells)} labels but {len(scores)} scores; {AS_WRITTEN}")
        order = self._best(scores, np.array([cell.size > 0 for cell in cells], bool))
        if not len(order):
            raise InputError(f"{file.where} contains no region; compute it again, or leave this photo out")
        regions = [_indices(file.where, cells[i], ids) for i in order]
        offsets = np.cumsum([0, *map(len, regions)])
        return Segments(labels.reshape(size), np.concatenate(regions), offsets, _non_negative(scores[order]), size)


class EdgeBoxesProposals(PublishedProposals):
    """Boxes of EdgeBoxes, from files with the variable ``bbs``: rows [x y w h score], where x and y are 1-based.

    If there is no ``bbs``, the only N x 5 matrix of the file is read. Boxes may leave the photo by up to ``TOLERANCE``
    pixels and are clipped to it; boxes without an area are dropped. The working grid has the photo's shape with
    ``SIDE`` cells on the shorter side and at most ``MAX_ASPECT`` times as many on the longer side, so that the cost
    does not depend on the size of the photo. Boxes are rounded to the grid only for integrating maps.

    Args:
        root: a folder or an uncompressed tar file that contains NAME.mat, where NAME is the photo's name.
        count: maximum number of proposals per image, see ``PublishedProposals``.

    Raises:
        InputError: If the count is below 1, or the folder or tar file cannot be used (see ``Archive``).
    """

    def _proposals(self, file: MatFile, size: tuple[int, int]) -> Boxes:
        rows = file.matrix(_boxes_variable(file))
        if rows.ndim != 2 or rows.shape[1] != 5:
            raise InputError(
                f"{file.where}: bbs has the shape {rows.shape}; save one file per photo with rows [x y w h score]"
            )
        scores = _scores(file.where, rows[:, 4])
        boxes = _fit(file.where, rows[:, :4].astype(np.float64), *size)
        order = self._best(scores, np.all(boxes[:, :2] < boxes[:, 2:], axis=1))
        if not len(order):
            raise InputError(f"{file.where} contains no box; compute it again, or leave this photo out")
        scale = SIDE / min(size)
        h, w = (min(round(length * scale), MAX_ASPECT * SIDE) for length in size)
        return Boxes(boxes[order], _non_negative(scores[order]), size, (h, w))


def _scores(where: str, scores: np.ndarray) -> np.ndarray:
    """Converts a row or column of scores, or an empty matrix, to ``(N,)`` float64."""
    scores = scores.astype(np.float64)
    if scores.size != max(scores.shape, default=0) and scores.size:
        raise InputError(f"{where} has scores of shape {scores.shape}; save one score per region")
    if not (np.abs(scores) < MAX_SCORE).all():
        raise InputError(f"{where} has a score that is not finite or too large; compute the proposals again")
    return scores.ravel()


def _non_negative(scores: np.ndarray) -> np.ndarray:
    """Shifts non-increasing scores so that none is negative and the best is positive.

    Rescoring divides the scores by the best one. MCG's scores are marginal relevances, which may be negative; they are
    then raised by a constant, so that the last one is 0.
    """
    raised = scores - min(scores[-1], 0)
    return raised if raised[0] > 0 else np.ones_like(raised)


def _as_integers(where: str, variable: str, values: np.ndarray) -> np.ndarray:
    """Converts integers that are stored in any numeric type to int64."""
    if not ((values == np.floor(values)) & (np.abs(values.astype(np.float64)) < 2**53)).all():
        raise InputError(f"{where}: {variable} has values that are not integers; {AS_WRITTEN}")
    return values.astype(np.int64)


def _indices(where: str, region: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Converts a region's list of superpixel ids to distinct indices into ``ids``, which is sorted."""
    region = np.unique(_as_integers(where, "labels", region))
    indices = np.minimum(np.searchsorted(ids, region), len(ids) - 1)
    if (ids[indices] != region).any():
        missing = region[ids[indices] != region][0]
        raise InputError(f"{where}: a region contains superpixel {missing}, which is not in the map; {AS_WRITTEN}")
    return indices


def _boxes_variable(file: MatFile) -> str:
    """The name of the variable with the boxes: ``bbs``, or else the only N x 5 matrix."""
    candidates = [
        name
        for name, header in file.variables.items()
        if header.kind in NUMERIC and len(header.shape) == 2 and header.shape[1] == 5
    ]
    if "bbs" in file.variables or len(candidates) != 1:
        return "bbs"
    return candidates[0]


def _fit(where: str, rows: np.ndarray, height: int, width: int) -> np.ndarray:
    """Converts 1-based rows [x y w h] to boxes [x1 y1 x2 y2], 0-based and half-open, clipped to the photo."""
    with np.errstate(over="ignore", invalid="ignore"):  # overflows and NaNs fail the comparison below
        low = rows[:, :2] - 1
        boxes, far = np.concatenate([low, low + rows[:, 2:]], 1), np.array([width, height, width, height])
    wrong = ~((boxes >= -TOLERANCE) & (boxes <= far + TOLERANCE)).all(1)
    if wrong.any():
        row = int(wrong.argmax())
        raise InputError(
            f"{where}: row {row + 1}, {rows[row].tolist()}, leaves the photo {width}x{height}; {SAME_PHOTO}"
        )
    return np.clip(boxes, 0, far)
