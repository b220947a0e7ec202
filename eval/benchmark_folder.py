"""A folder of photos, answered by one process with several threads and by processes with one thread each.

grounding step=benchmark benchmark=folder
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
            rows.append(_run(grounder, paths, count))
            rows[-1]["rate / the first row's"] = _rate(rows[-1]) / _rate(rows[0])
    return rows, {"phrases": PHRASES, "photos": photos, "size": SIZE}


def _write_photos(folder: Path, count: int) -> list[Path]:
    photo = np.asarray(Image.fromarray(data.astronaut()).resize(SIZE))
    paths = [folder / f"{number:05d}.jpg" for number in range(count)]
    for number, path in enumerate(paths):
        Image.fromarray(np.roll(photo, 13 * number, (0, 1))).save(path, quality=95)
    return paths


def _run(grounder: Grounder, paths: Sequence[Path], workers: int) -> Row:
    begin = time.perf_counter()
    times, megabytes = [], 0.0
    for _ in grounder.ground_batch(paths, PHRASES, progress=False, workers=workers):
        times.append(time.perf_counter() - begin)
        running = [child.pid or "self" for child in multiprocessing.active_children()] if workers else ["self"]
        megabytes = max([megabytes, *map(resident, running)])
    return {
        "workers": str(workers),
        "seconds": times[-1],
        "photos a second": (len(times) - 1) / (times[-1] - times[0]),
        "MB of a process": megabytes,
    }


def _rate(row: Row) -> float:
    return float(row["photos a second"] or 0)
