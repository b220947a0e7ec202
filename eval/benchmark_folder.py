"""A folder of photos: by one process with several threads, by processes with one thread each, and in batches.

grounding step=benchmark benchmark=folder
grounding step=benchmark benchmark=batches device=cuda
"""

import multiprocessing
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image
from skimage import data

from eval.benchmark_phrases import PHRASES
from eval.benchmark_stages import SIZE
from eval.benchmark_table import Row
from eval.checks import check_counts
from grounding.grounder import Grounder
from grounding.runtime.timing import resident


def measure(workers: Sequence[int] = (0, 2), photos: int = 32) -> tuple[list[Row], dict]:
    """Grounds 5 phrases in photos of 640 x 480 pixels.

    Args:
        workers: the numbers of processes; 0 for this process with its threads.
        photos: how many; each differs from the others.

    Returns:
        A row for each number of processes: the seconds, including the start of the workers; the photos a second from
        the first answer to the last; the ratio of this rate to that of the first row; and the largest memory of a
        process in MB, measured after each answer. And the settings that all rows share.

    Raises:
        InputError: there are fewer than two photos, or a number of processes is below 0.
    """
    check_counts(2, photos=photos)
    grounder, rows = Grounder.load(), list[Row]()
    with TemporaryDirectory() as folder:
        paths = _write_photos(Path(folder), photos)
        grounder.ground(paths[0], PHRASES)  # compiles and loads what only the first photo needs
        for count in workers:
            rows.append({"workers": str(count)} | _run(grounder, paths, count))
            rows[-1]["rate / the first row's"] = _rate(rows[-1]) / _rate(rows[0])
    return rows, {"phrases": PHRASES, "photos": photos, "size": SIZE}


def measure_batches(batches: Sequence[int] = (1, 8), photos: int = 32, device: str = "cpu") -> tuple[list[Row], dict]:
    """Grounds 5 phrases in photos of 640 x 480 pixels, of which several go through the network together.

    Args:
        batches: the numbers of photos in a pass.
        photos: how many; each differs from the others, and all have one size.
        device: where the network runs.

    Returns:
        As :func:`measure`, with a row for each number of photos in a pass. The memory is the main one, not the GPU's.

    Raises:
        InputError: there are fewer than two photos, a batch is below 1, or there is no such device.
    """
    check_counts(2, photos=photos)
    grounder, rows = Grounder.load(device=device), list[Row]()
    with TemporaryDirectory() as folder:
        paths = _write_photos(Path(folder), photos)
        for size in batches:
            list(grounder.ground_batch(paths[:size], PHRASES, progress=False, batch=size))  # what only the first needs
            rows.append({"batch": str(size)} | _run(grounder, paths, batch=size))
            rows[-1]["rate / the first row's"] = _rate(rows[-1]) / _rate(rows[0])
    return rows, {"phrases": PHRASES, "photos": photos, "size": SIZE, "device": device}


def _write_photos(folder: Path, count: int) -> list[Path]:
    photo = np.asarray(Image.fromarray(data.astronaut()).resize(SIZE))
    paths = [folder / f"{number:05d}.jpg" for number in range(count)]
    for number, path in enumerate(paths):
        Image.fromarray(np.roll(photo, 13 * number, (0, 1))).save(path, quality=95)
    return paths


def _run(grounder: Grounder, paths: Sequence[Path], workers: int = 0, batch: int = 1) -> Row:
    begin = time.perf_counter()
    times, megabytes = [], 0.0
    for _ in grounder.ground_batch(paths, PHRASES, progress=False, workers=workers, batch=batch):
        times.append(time.perf_counter() - begin)
        running = [child.pid or "self" for child in multiprocessing.active_children()] if workers else ["self"]
        megabytes = max([megabytes, *map(resident, running)])
    return {
        "seconds": times[-1],
        "photos a second": (len(times) - 1) / (times[-1] - times[0]),
        "MB of a process": megabytes,
    }


def _rate(row: Row) -> float:
    return float(row["photos a second"] or 0)
