"""Grounds many small photos by one process, and by four of which one is killed and one is stopped for a while.

    PYTHONPATH=. python tests/many_photos.py TARS 2000 WORK    # TARS: a folder of WebDataset tars of photos

The photos are made of those in the tars, each used several times, with another crop. The tagger is one convolution, so
that the time of the sharing is seen, not that of a network. It compares the two outputs byte for byte, and writes
``WORK/memory.csv``, the resident memory of each process over time, and ``WORK/figures.json``.
"""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from io import BytesIO
from itertools import cycle, islice
from pathlib import Path

from made_shards import tiny_tagger
from made_tars import write_tar
from PIL import Image
from webdataset import WebDataset

from grounding import Grounder
from grounding.shards.addresses import find_shards
from grounding.steps.ground_shards import ShardOptions, ground_shards
from proposals import BoxProposer

EACH = 100  # photos in a shard
LEASE = 5.0  # seconds
RANKS = 4


def photos(tars: Path, count: int) -> Iterator[dict[str, object]]:
    """Thumbnails of 96 pixels; the crop of a photo depends on how often it was used."""
    source = cycle(
        [sample["jpg"] for tar in sorted(tars.glob("*.tar")) for sample in WebDataset(str(tar), shardshuffle=False)]
    )
    for number, data in enumerate(islice(source, count)):
        image = Image.open(BytesIO(data)).convert("RGB")
        image = image.crop((number % 17, number % 13, image.width, image.height))
        image.thumbnail((96, 96))
        image.save(buffer := BytesIO(), "JPEG")
        yield {"__key__": f"{number:09d}", "jpg": buffer.getvalue()}


def ground(source: str, output: str) -> None:
    """What each process does."""
    tagger = tiny_tagger(Path(output).with_name(f"tiny-{os.getpid()}.safetensors"), ("cup", "dog", "man"))
    grounder = Grounder.load(tagger, proposer=BoxProposer(50, 32), method="mwp", side=224)
    options = ShardOptions(workers=0, lease=LEASE)
    ground_shards(grounder, find_shards(source), ["a dog", "a man"], output, options=options)


def start(source: Path, output: Path, rank: int, ranks: int) -> subprocess.Popen[bytes]:
    """Starts a process that grounds."""
    environment = os.environ | {"RANK": str(rank), "WORLD_SIZE": str(ranks), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, __file__, "rank", str(source), str(output)], env=environment)


def answered(output: Path) -> int:
    """The number of photos that have an answer."""
    files = [*output.glob("groundings-*.jsonl"), *output.glob(".*.rows")]
    return sum(path.read_bytes().count(b"\n") - (path.suffix == ".rows") for path in files if path.exists())


def resident(process: int) -> float:
    """Resident memory of a process, in MB; 0 if it has ended."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1000 for line in status.splitlines() if line.startswith("VmRSS:")), 0.0)


def run(name: str, source: Path, work: Path, ranks: int, rows: list[dict]) -> float:
    """Runs one or four processes to their end; returns the seconds. Of four, one is killed and one is stopped."""
    output, begin, photos_ = work / name, time.monotonic(), len(list(source.glob("*.tar"))) * EACH
    output.mkdir()
    processes = [start(source, output, rank, ranks) for rank in range(ranks)]
    killed = stopped = 0.0
    while any(process.poll() is None for process in processes):
        time.sleep(2)
        now, done = time.monotonic() - begin, answered(output)
        rows += [
            {"run": name, "rank": rank, "seconds": round(now), "photos": done, "MB": round(resident(process.pid))}
            for rank, process in enumerate(processes)
        ]
        if ranks > 1 and not killed and done > 0.2 * photos_:
            processes[1].send_signal(signal.SIGKILL)
            processes[2].send_signal(signal.SIGSTOP)
            killed = stopped = now
            print(f"{done} photos: rank 1 is killed, rank 2 is stopped", flush=True)
        if stopped and now > stopped + 4 * LEASE:
            processes[2].send_signal(signal.SIGCONT)
            processes[1] = start(source, output, 1, ranks)
            stopped = 0.0
            print(f"{done} photos: rank 1 is started again, rank 2 continues", flush=True)
    assert [process.returncode for process in processes] == [0] * ranks
    return time.monotonic() - begin


def content(output: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(output.glob("*-*.json*"))}


def main(tars: str, count: str, folder: str) -> None:
    """Makes the photos, runs both, and compares them."""
    work, rows = Path(folder), list[dict]()
    made = photos(Path(tars), int(count))
    for number in range(int(count) // EACH):
        write_tar(work / "photos" / f"{number:05d}.tar", islice(made, EACH))
    names = {"one": 1, "four": RANKS}
    seconds = {name: run(name, work / "photos", work, ranks, rows) for name, ranks in names.items()}
    with (work / "memory.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
    figures = {"photos": int(count), "shards": int(count) // EACH, "seconds": seconds}
    figures |= {"identical": content(work / "one") == content(work / "four"), "files": len(content(work / "one"))}
    figures["left"] = [path.name for path in (work / "four" / "leases").iterdir()]
    (work / "figures.json").write_text(json.dumps(figures))
    print(json.dumps(figures))


if __name__ == "__main__":
    ground(*sys.argv[2:]) if sys.argv[1] == "rank" else main(*sys.argv[1:])
