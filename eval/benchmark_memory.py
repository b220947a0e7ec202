"""The resident memory of a process that grounds many photos, one after another.

grounding step=benchmark benchmark=memory
"""

from collections.abc import Sequence
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from skimage import data

from eval.benchmark_phrases import PHRASES
from eval.benchmark_stages import SIZE
from eval.benchmark_table import Row
from eval.checks import check_counts
from grounding.grounder import Grounder
from grounding.runtime.timing import resident

MB = 2**20


def measure(photos: int = 50, shown: Sequence[int] = (1, 10, 50)) -> tuple[list[Row], dict]:
    """Grounds 5 phrases in photos of 640 x 480 pixels, in a new process.

    Args:
        photos: how many; each differs from the others.
        shown: after which photos the memory is measured.

    Returns:
        For each of these photos, and before the first one, the resident MB of the process, the most that it had until
        then, its growth since the 10th photo as a share, and the MB that a kept scene takes (the photo and its maps).

    Raises:
        InputError: ``photos`` is below 1.
    """
    check_counts(1, photos=photos)
    with get_context("spawn").Pool(1) as fresh:
        memory, kept = fresh.apply(grow, (photos,))
    rows: list[Row] = [
        {
            "photo": str(number),
            "MB": memory[number].resident,
            "MB at most": memory[number].most,
            "growth since the 10th": memory[number].resident / memory[10].resident - 1 if number >= 10 else None,
            "MB of a scene": kept if number else None,
        }
        for number in (0, *(n for n in shown if n <= photos))
    ]
    return rows, {"phrases": PHRASES, "photos": photos}


class ProcessMemory(NamedTuple):
    """The memory of a process in MB.

    Attributes:
        resident: its resident memory.
        most: the most that it had so far.
    """

    resident: float
    most: float

    @classmethod
    def now(cls) -> "ProcessMemory":
        """That of this process."""
        status = Path("/proc/self/status").read_text("ascii")
        peak = status.partition("VmHWM:")[2].split()[0]  # ru_maxrss would be the parent's, if that is larger
        return cls(resident(), int(peak) / 1024)


def grow(photos: int) -> tuple[list[ProcessMemory], float]:
    """Grounds photos in this process.

    Args:
        photos: how many.

    Returns:
        The memory before the first photo and after each one, and the MB that a kept scene takes.
    """
    grounder = Grounder.load()
    photo = np.asarray(Image.fromarray(data.astronaut()).resize(SIZE))
    memory = [ProcessMemory.now()]
    for number in range(photos):
        grounder.ground(np.roll(photo, 13 * number, (0, 1)), PHRASES)
        memory.append(ProcessMemory.now())
    scene = grounder.look(photo)
    scene.ground(PHRASES)
    return memory, scene.nbytes / MB
