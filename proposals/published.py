"""Published proposals: MCG's segments and EdgeBoxes' boxes as their authors' programs wrote them, a .mat file a photo.

What is read may have been made by anybody. Nothing is unpacked on the disk, no pickle is read, and every length, type
and count is checked before anything of that size is made, so that a bad file costs one line and not the process.
"""

import tarfile
from abc import ABC, abstractmethod
from pathlib import Path

import numpy as np

from proposals.boxes import Boxes
from proposals.errors import InputError
from proposals.matfile import NUMERIC, MatFile, line_of
from proposals.proposals import Proposals, check_image
from proposals.segments import LONGEST, Segments

LARGEST = 64 * 2**20  # bytes of a file, and of a variable once unpacked, besides eight for each pixel of the photo
MOST_SCORE = 1e100  # far from where sums overflow
SIDE = 300  # the shorter side of the grid for boxes, as ``SegmentProposer`` has it
SLACK = 1.0  # pixels that a box may stick out: counting from 0 or 1, and an inclusive or exclusive end
AGREE = "give the proposals of this very photo"
COMPRESSED = {b"\x1f\x8b": "gunzip", b"BZh": "bunzip2", b"\xfd7z": "unxz"}


class Archive:
    """Files NAME.mat in a folder, or in an uncompressed tar file under any folder of it.

    What there is is listed once, when this is made; it may then be read by any thread or process.

    Args:
        root: the folder or the tar file.

    Raises:
        InputError: there is no such folder or tar file, it holds no .mat file, or the tar file is compressed, damaged,
            has a name twice, or has a .mat that is no regular file.
    """

    def __init__(self, root: str | Path):
        self.root = Path(root)
        try:
            self._places = self._list_folder() if self.root.is_dir() else self._list_tar()
        except OSError as error:
            raise InputError(f"{root} cannot be read: {error.strerror or error}") from error
        if not self._places:
            raise InputError(f"{root} holds no .mat file; name the folder or the tar file that does")

    def read(self, name: str | None, limit: int) -> tuple[str, bytes]:
        """Where the file of a photo is, in words, and its bytes.

        Raises:
            InputError: the photo has no name, nothing is kept under it, the file has more than ``limit`` bytes, or it
                cannot be read.
        """
        if name is None:
            raise InputError("published proposals are found by the photo's name; give the photo as a path, or its name")
        if name not in self._places:
            raise InputError(f"{self.root} holds no {name}.mat; name the folder or tar file of this photo's data set")
        path, offset, size, where = self._places[name]
        try:
            size = path.stat().st_size if size is None else size
            if size > limit:
                raise InputError(f"{where} has {size} bytes, too many for one photo's proposals ({limit}); drop masks")
            with path.open("rb") as file:
                file.seek(offset)
                raw = file.read(size)
        except OSError as error:
            raise InputError(f"{where} cannot be read: {error.strerror or error}") from error
        if len(raw) != size:
            raise InputError(f"{where} is cut off after {len(raw)} of {size} bytes; fetch it again")
        return where, raw

    def _list_folder(self) -> dict[str, tuple[Path, int, int | None, str]]:
        return {path.stem: (path, 0, None, str(path)) for path in self.root.glob("*.mat") if path.is_file()}

    def _list_tar(self) -> dict[str, tuple[Path, int, int | None, str]]:
        if not self.root.is_file():
            raise InputError(f"{self.root}: there is no such folder or tar file")
        with self.root.open("rb") as file:
            magic = file.read(3)
        for start, tool in COMPRESSED.items():
            if magic.startswith(start):
                raise InputError(f"{self.root} is compressed, so that no name can be looked up; {tool} it first")
        places: dict[str, tuple[Path, int, int | None, str]] = {}
        for member in self._members():
            name, where = Path(member.name).stem, f"{self.root}:{member.name}"
            if name in places:
                raise InputError(f"{where}: there is another {name}.mat in this tar file; keep one")
            places[name] = (self.root, member.offset_data, member.size, where)
        return places

    def _members(self) -> list[tarfile.TarInfo]:
        """The .mat files of the tar file."""
        try:
            with tarfile.open(self.root, "r:") as tar:
                members = [member for member in tar if member.name.endswith(".mat") and not member.isdir()]
                tar.fileobj.seek(tar.offset)
                # tarfile takes a damaged entry for the end
                ended = not tar.fileobj.read(tarfile.BLOCKSIZE).strip(b"\0")
        except (tarfile.TarError, ValueError, EOFError, OverflowError, RecursionError, MemoryError) as error:
            raise InputError(f"{self.root} is no tar file, or is damaged ({line_of(error)}); fetch it again") from error
        total = self.root.stat().st_size
        if not ended or any(member.offset_data + member.size > total for member in members):
            raise InputError(f"{self.root} is damaged or cut off; fetch it again")
        for member in members:
            if not member.isreg() or member.issparse():
                raise InputError(f"{self.root}:{member.name} is no regular file; make the tar file of plain files")
        return members


class PublishedProposals(ABC):
    """Proposals that a program of others wrote, NAME.mat for each photo.

    Args:
        root: a folder of NAME.mat, or an uncompressed tar file with such under any folder; NAME is the photo's.
        count: the most proposals of an image, those of the highest scores; of equal scores the file's order is kept.

    Raises:
        InputError: a count below 1, or see ``Archive``.
    """

    def __init__(self, root: str | Path, count: int = 500):
        if count < 1:
            raise InputError(f"count={count} must be 1 or more")
        self.root, self.count, self.archive = str(root), count, Archive(root)

    def __call__(self, image: np.ndarray, name: str | None = None) -> Proposals:
        """The proposals kept under an image's name.

        Args:
            image: (H, W, 3) uint8 RGB; name: its file's without the suffix.

        Raises:
            InputError: the image has another shape or type or no name; nothing is kept under it; or its file, which the
                message names, is damaged, holds something else, or does not fit the photo.
        """
        check_image(image)
        limit = LARGEST + 8 * image.shape[0] * image.shape[1]
        where, raw = self.archive.read(name, limit)
        return self._proposals(MatFile(raw, where, limit), image.shape[:2])

    @abstractmethod
    def _proposals(self, file: MatFile, size: tuple[int, int]) -> Proposals:
        """What a file says of a photo of this (height, width)."""

    def _best(self, scores: np.ndarray, usable: np.ndarray) -> np.ndarray:
        """Which proposals are kept, best first, given their scores (N,) and which of them can be used, (N,) bool."""
        order = np.argsort(-scores, kind="stable")
        return order[usable[order]][: self.count]


class McgProposals(PublishedProposals):
    """Segments that MCG wrote: ``superpixels``, ``labels`` and ``scores``.

    Region i is the superpixels that ``labels{i}`` names; naming one twice says no more than naming it once, and a
    region of none is dropped. ``bboxes``, which has rows of its own, is not read: boxes come from the regions. The
    working grid is the superpixel map, which must have the photo's size.
    """

    def _proposals(self, file: MatFile, size: tuple[int, int]) -> Segments:
        superpixels = file.matrix("superpixels")
        if superpixels.shape != size:
            raise InputError(
                f"{file.where} has superpixels of shape {superpixels.shape}, the photo has {size}; {AGREE}"
            )
        ids, labels = np.unique(_whole(file.where, "superpixels", superpixels), return_inverse=True)
        cells, scores = file.cells("labels"), _scores(file.where, file.matrix("scores"))
        if len(scores) != len(cells):
            raise InputError(f"{file.where} has {len(cells)} labels but {len(scores)} scores; {AGREE}")
        order = self._best(scores, np.array([cell.size > 0 for cell in cells], bool))
        if not len(order):
            raise InputError(f"{file.where} holds no region; propose again, or leave this photo out")
        regions = [_indices(file.where, cells[i], ids) for i in order]
        offsets = np.cumsum([0, *map(len, regions)])
        return Segments(labels.reshape(size), np.concatenate(regions), offsets, _beliefs(scores[order]), size)


class EdgeBoxesProposals(PublishedProposals):
    """Boxes that EdgeBoxes wrote: ``bbs``, rows [x y w h score] that count pixels from 1.

    Where there is no ``bbs``, the only N x 5 matrix of the file is taken. Boxes are clipped to the photo, out of which
    they may stick by a pixel; those of no area are dropped. The working grid has the photo's shape at ``SIDE`` pixels
    on the shorter side, at most ``LONGEST`` times as many on the other, as ``SegmentProposer`` has it, so that its
    costs do not grow with the photo; edges are rounded to it only where mass is integrated.
    """

    def _proposals(self, file: MatFile, size: tuple[int, int]) -> Boxes:
        rows = file.matrix(_boxes_variable(file))
        if rows.ndim != 2 or rows.shape[1] != 5:
            raise InputError(f"{file.where}: bbs has the shape {rows.shape}; save rows [x y w h score], a file a photo")
        scores = _scores(file.where, rows[:, 4])
        boxes = _fit(file.where, rows[:, :4].astype(np.float64), *size)
        order = self._best(scores, (boxes[:, :2] < boxes[:, 2:]).all(1))
        if not len(order):
            raise InputError(f"{file.where} holds no box; propose again, or leave this photo out")
        scale = SIDE / min(size)
        shape = tuple(min(round(length * scale), LONGEST * SIDE) for length in size)
        return Boxes(boxes[order], _beliefs(scores[order]), size, shape)


def _scores(where: str, scores: np.ndarray) -> np.ndarray:
    """Scores (N,) float64 of a row, a column, or nothing."""
    scores = scores.astype(np.float64)
    if scores.size != max(scores.shape, default=0) and scores.size:
        raise InputError(f"{where} has scores of shape {scores.shape}; give one for each region")
    if not (np.abs(scores) < MOST_SCORE).all():
        raise InputError(f"{where} has a score that is no finite number; propose again")
    return scores.ravel()


def _beliefs(scores: np.ndarray) -> np.ndarray:
    """Scores, non-increasing, as beliefs >= 0 with the best above 0: rescoring takes them as shares of the best.

    MCG's are its marginal relevance, which may be negative; then all are raised until the last is 0.
    """
    raised = scores - min(scores[-1], 0)
    return raised if raised[0] > 0 else np.ones_like(raised)


def _whole(where: str, what: str, values: np.ndarray) -> np.ndarray:
    """Whole numbers of any type as int64."""
    if not ((values == np.floor(values)) & (np.abs(values.astype(np.float64)) < 2**53)).all():
        raise InputError(f"{where}: {what} are no whole numbers; save the proposals as their program gave them")
    return values.astype(np.int64)


def _indices(where: str, named: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Where in ``ids``, sorted, the superpixels are that a region names, each once."""
    named = np.unique(_whole(where, "labels", named))
    found = np.minimum(np.searchsorted(ids, named), len(ids) - 1)
    if (ids[found] != named).any():
        missing = named[ids[found] != named][0]
        raise InputError(f"{where}: a region names superpixel {missing}, which is not in the map; {AGREE}")
    return found


def _boxes_variable(file: MatFile) -> str:
    """``bbs``, or the only N x 5 matrix."""
    fit = [
        name
        for name, found in file.variables.items()
        if found.kind in NUMERIC and len(found.shape) == 2 and found.shape[1] == 5
    ]
    if "bbs" in file.variables or len(fit) != 1:
        return "bbs"
    return fit[0]


def _fit(where: str, rows: np.ndarray, height: int, width: int) -> np.ndarray:
    """Rows [x y w h] from 1 as boxes [x1 y1 x2 y2] from 0, half-open, inside the photo."""
    with np.errstate(over="ignore", invalid="ignore"):  # a row that overflows is outside, as is one that is no number
        low = rows[:, :2] - 1
        boxes, far = np.concatenate([low, low + rows[:, 2:]], 1), np.array([width, height, width, height])
    wrong = ~((boxes >= -SLACK) & (boxes <= far + SLACK)).all(1)
    if wrong.any():
        row = int(wrong.argmax())
        raise InputError(f"{where}: row {row + 1}, {rows[row].tolist()}, leaves the photo {width}x{height}; {AGREE}")
    return np.clip(boxes, 0, far)
