"""The results of one shard: a file that grows by one line for each photo, and the files that are made of it at the end.

If a process is killed, the next one continues after the last complete line.
"""

import json
import os
from collections.abc import Callable, Iterator
from glob import escape
from io import BufferedRandom
from pathlib import Path
from socket import gethostname
from typing import Any, NamedTuple

from grounding.runtime.artefacts import write_json, write_once
from grounding.runtime.ledger import Ledger, Skipped
from proposals.errors import InputError

Record = dict[str, Any]
Writer = Callable[[Path, Iterator[Record]], None]


class PhotoResult(NamedTuple):
    """What a step made of one photo.

    Attributes:
        record: what is kept, values that ``json`` can encode; None if the photo is skipped.
        skipped: why it is skipped; None if it is kept.
        maps: the bytes of a file with its maps, if they are wanted.
    """

    record: Record | None = None
    skipped: Skipped | None = None
    maps: bytes | None = None


class ShardPart:
    """The results of a shard so far.

    Args:
        folder: the output folder.
        name: the name of the shard.
        identity: what the results depend on; parts with another identity are not continued.

    Attributes:
        done: how many photos have a result.
    """

    def __init__(self, folder: Path, name: str, identity: str) -> None:
        self.folder, self.name, self._identity = folder, name, identity
        self.done = 0
        self.maps = folder / f".maps-{name}"
        self._path = folder / f".{name}.{gethostname()}.{os.getpid()}.rows"
        earlier = max(self._earlier(), key=lambda path: sum(1 for _ in self._lines(path)), default=None)
        copied = self._path.with_suffix(".new")
        with copied.open("wb") as file:
            file.write(json.dumps(identity).encode() + b"\n")
            for line in self._lines(earlier) if earlier else ():
                file.write(line)
                self.done += 1
        copied.replace(self._path)
        self._file: BufferedRandom = self._path.open("r+b")
        self._file.seek(0, os.SEEK_END)

    def add(self, result: PhotoResult) -> None:
        """Adds the result of the next photo; it is in the file when this returns."""
        if result.maps is not None:
            self.maps.mkdir(exist_ok=True)
            target = self.maps / f"{self.done:09d}"
            target.with_suffix(".new").write_bytes(result.maps)
            target.with_suffix(".new").replace(target)
        self._file.write(json.dumps([result.record, result.skipped]).encode() + b"\n")
        self._file.flush()
        self.done += 1

    def records(self) -> Iterator[tuple[int, Record]]:
        """The number of each photo that is kept, and its record."""
        for number, line in enumerate(self._lines(self._path)):
            record, _ = json.loads(line)
            if record is not None:
                yield number, record

    def ledger(self, what: str) -> Ledger:
        """Counts the photos, and lists those that were skipped."""
        ledger = Ledger(what)
        for line in self._lines(self._path):
            record, skipped = json.loads(line)
            ledger.came_in(skipped[0] if record is None else record.get("image", ""))
            if record is None:
                ledger.skip(*skipped)
            else:
                ledger.keep()
        return ledger

    def close(self) -> None:
        """Closes the file, so that another process can continue it."""
        self._file.close()

    def remove(self) -> None:
        """Removes this part and those of earlier processes, also of one that was killed while it began its part."""
        self.close()
        begun = self.folder.glob(f".{escape(self.name)}.{escape(gethostname())}.*.new")
        for path in [*self._earlier(), self._path, *begun]:
            path.unlink(missing_ok=True)
        if self.maps.is_dir():
            for path in self.maps.iterdir():
                path.unlink(missing_ok=True)
            self.maps.rmdir()

    def _earlier(self) -> list[Path]:
        names = [entry.name for entry in os.scandir(self.folder) if entry.name.startswith(f".{self.name}.")]
        # another shard's name may begin with this name and a dot: only host and process may follow
        own = [name for name in names if name.endswith(".rows") and self._identity_of(self.folder / name)]
        return [self.folder / name for name in own]

    def _identity_of(self, path: Path) -> bool:
        """Whether a part belongs to this shard and these settings."""
        try:
            with path.open("rb") as file:
                return bool(json.loads(file.readline()) == self._identity)
        except (OSError, ValueError, RecursionError):
            return False

    def _lines(self, path: Path) -> Iterator[bytes]:
        """The complete lines of results in a part."""
        with path.open("rb") as file:
            file.readline()
            for line in file:
                if not line.endswith(b"\n") or not _is_result(line):
                    return
                yield line


def _is_result(line: bytes) -> bool:
    try:
        record, skipped = json.loads(line)
    except (ValueError, TypeError, RecursionError):
        return False
    return bool((record is None) != (skipped is None))


def claim_folder(folder: str | Path, kind: str, identity: Record) -> Record:
    """Makes a folder that of results with one identity, unless it is that of another one.

    Of several processes that begin at the same time, the first one decides.

    Args:
        folder: the folder.
        kind: what the results are. The identity is written to ``KIND.settings.json``.
        identity: what the results depend on: values that ``json`` can encode.

    Returns:
        The identity as ``json`` makes it: lists for tuples.

    Raises:
        InputError: the folder has results that were made with something else, or cannot be written.
    """
    path, own = Path(folder, f"{kind}.settings.json"), json.loads(json.dumps(identity))
    if not path.exists():
        write_once(path, own)
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read ({error}): choose another folder with name=") from error
    if found != own:
        other = [key for key in own if not isinstance(found, dict) or found.get(key) != own[key]]
        raise InputError(
            f"{folder} has {kind} with other settings ({', '.join(other)}): choose another folder with name=, or "
            "remove it"
        )
    return dict(own)


class OutputFolder:
    """The folder of a step's results: a file for each shard, and what they were made with.

    Args:
        folder: the folder.
        kind: what the results are, such as ``groundings``: the first part of the names of their files.
        suffix: the suffix of their files.
        identity: what the results depend on. It is written to ``KIND.settings.json``.

    Raises:
        InputError: the folder has results that were made with something else, or cannot be written.
    """

    def __init__(self, folder: str | Path, kind: str, suffix: str, identity: Record) -> None:
        self.folder, self.kind, self.suffix = Path(folder), kind, suffix
        self.identity = claim_folder(folder, kind, identity)

    def path(self, name: str) -> Path:
        """The file of a shard's results."""
        return self.folder / f"{self.kind}-{name}{self.suffix}"

    def done(self, name: str) -> bool:
        """Whether a shard's results are complete."""
        return self.path(name).exists()

    def part(self, name: str, address: str) -> ShardPart:
        """The results of a shard so far."""
        return ShardPart(self.folder, name, json.dumps([self.identity, address], sort_keys=True))

    def finish(self, part: ShardPart, write: Writer) -> None:
        """Writes the files of a shard whose photos all have a result, the results last.

        Args:
            part: the results.
            write: writes a file of results, atomically.
        """
        for path in (self.ledger_path(part.name), self.path(part.name), self.folder / f"maps-{part.name}.tar"):
            for left in self.folder.glob(f".{escape(path.name)}.*.part"):  # the rest of a run that was killed
                left.unlink(missing_ok=True)
        write_json(self.ledger_path(part.name), part.ledger("photos").to_json())
        write(self.path(part.name), (record for _, record in part.records()))
        part.remove()

    def ledger_path(self, name: str) -> Path:
        """The file with the counts of a shard and the list of what was skipped."""
        return self.folder / f"ledger-{name}.json"

    def ledger(self, names: list[str], cure: str) -> Ledger:
        """Adds up the counts of shards.

        Args:
            names: the shards that are done.
            cure: see :class:`grounding.runtime.ledger.Ledger`.

        Raises:
            InputError: a file of counts is damaged.
        """
        total = Ledger("photos", cure=cure)
        for name in names:
            path = self.ledger_path(name)
            try:
                total.add_json(json.loads(path.read_bytes()))
            except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
                raise InputError(
                    f"{path} cannot be read ({error}): remove {self.path(name)} and start again"
                ) from error
        return total
