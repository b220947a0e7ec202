"""Fetches tar shards from HTTP, object storage and commands into a folder of bounded size.

A fetch that fails is repeated: after a lost connection, an answer that is too short, a server's error or a silence.
HTTP continues where it was cut off, if the server can. So a shard is read only when all its bytes are here.
"""

import hashlib
import http.client
import logging
import os
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import gettempdir
from typing import Any, BinaryIO
from uuid import uuid4

from grounding.runtime.version import VERSION
from proposals.errors import InputError

log = logging.getLogger(__name__)

PIPE = "pipe:"
WEB = ("http://", "https://")
MISSING = "photos in tar files need an extra: .venv/bin/pip install -e '.[shards]'"
BLOCK = 1 << 20  # bytes that are read at a time
LONGEST_PAUSE = 60.0  # seconds between two attempts
FINAL = {400, 401, 403, 404, 405, 410, 414, 451}  # HTTP's answers that another attempt does not change


def is_remote(address: str) -> bool:
    """Whether an address is a URL or a command, not a path."""
    return address.startswith(PIPE) or "://" in address


@dataclass(frozen=True)
class FetchOptions:
    """How remote shards are fetched.

    Attributes:
        cache: the folder for fetched shards, on this machine; None for a folder of the system for temporary files.
        gigabytes: the largest size of this folder; the shards that were used last are kept.
        attempts: how often a fetch is tried.
        pause: seconds before the second attempt; doubled before each further one.
        timeout: seconds of silence after which an attempt has failed.
    """

    cache: str | None = None
    gigabytes: float = 20
    attempts: int = 5
    pause: float = 1
    timeout: float = 60

    def __post_init__(self) -> None:
        if self.attempts < 1 or self.gigabytes < 0 or self.pause < 0 or not self.timeout > 0:
            raise InputError(
                f"attempts={self.attempts} must be 1 or more, timeout={self.timeout} above 0, "
                f"gigabytes={self.gigabytes} and pause={self.pause} 0 or more"
            )


class ShardCache:
    """A folder of fetched shards, which several processes of a machine may share.

    Args:
        options: see :class:`FetchOptions`.
    """

    def __init__(self, options: FetchOptions | None = None) -> None:
        self.options = options or FetchOptions()
        self.folder = Path(self.options.cache or Path(gettempdir(), f"grounding-shards-{os.getuid()}"))

    @contextmanager
    def local(self, address: str) -> Iterator[Path]:
        """Gives the path of a shard on this machine; a remote one is fetched first.

        Args:
            address: a path, a URL, or ``pipe:`` and a command.

        Yields:
            The path. It stays valid until the end of the block.

        Raises:
            InputError: the shard cannot be fetched, or the folder cannot be written.
        """
        if not is_remote(address):
            yield Path(address)
            return
        digest = hashlib.sha256(address.encode("utf-8", "surrogateescape")).hexdigest()[:32]
        # a name of its own for each use, because threads of a process may need the same shard at the same time
        kept, own = self.folder / f"{digest}.tar", self.folder / f".{digest}.{uuid4().hex}.{os.getpid()}.use"
        try:
            self._keep(address, kept, own)
            yield own
        finally:
            with suppress(OSError):  # a folder that cannot be written
                own.unlink(missing_ok=True)

    def _keep(self, address: str, kept: Path, own: Path) -> None:
        try:
            self._take(address, kept, own)
            self._shrink()
        except OSError as error:
            raise InputError(f"{self.folder} cannot be written: {error.strerror or error}") from error

    def _take(self, address: str, kept: Path, own: Path) -> None:
        """Fetches a shard, or uses the one that is kept. ``own`` is a second name of its file, so nobody removes it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            os.utime(kept)
            own.hardlink_to(kept)
        except FileNotFoundError:
            fetch(address, own, self.options)
            if not address.startswith(PIPE):  # a command may give something else the next time
                with suppress(FileExistsError):  # another process has fetched it, too
                    kept.hardlink_to(own)

    def _shrink(self) -> None:
        """Removes the shards that were not used for the longest time, until the rest is small enough."""
        kept = []
        for path in self.folder.glob("[!.]*.tar"):
            with suppress(FileNotFoundError):  # another process has just removed it
                kept.append((path.stat(), path))
        for path in self.folder.glob(".*.use"):  # of processes that were killed
            if not _runs(path.name.split(".")[-2]):
                path.unlink(missing_ok=True)
        total, limit = sum(stat.st_size for stat, _ in kept), self.options.gigabytes * 1e9
        for stat, path in sorted(kept, key=lambda pair: pair[0].st_mtime):
            if total <= limit:
                return
            path.unlink(missing_ok=True)
            total -= stat.st_size


def _runs(process: str) -> bool:
    """Whether a process of this machine runs."""
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    except (OSError, ValueError, OverflowError):
        return True
    return True


def fetch(address: str, path: Path, options: FetchOptions) -> None:
    """Writes the bytes of a remote shard to a file, and tries again if that fails.

    Args:
        address: a URL, or ``pipe:`` and a command.
        path: the file.
        options: see :class:`FetchOptions`.

    Raises:
        InputError: all attempts failed; the message has the last reason.
    """
    path.write_bytes(b"")
    for attempt in range(1, options.attempts + 1):
        try:
            with path.open("r+b") as file:
                _attempt(address, file, options)
        except _FinalError as error:
            raise InputError(f"{address} cannot be fetched: {error}") from error
        except _FailedError as error:
            if attempt == options.attempts:
                tried = f"tried {attempt} times" if attempt > 1 else "tried once"
                raise InputError(f"{address} cannot be fetched ({tried}): {error}") from error
            pause = min(options.pause * 2 ** (attempt - 1), LONGEST_PAUSE)
            log.warning("%s: %s; trying again in %g s", address, error, pause)
            time.sleep(pause)
        else:
            return


class _FailedError(Exception):
    """An attempt failed; another may succeed."""


class _FinalError(Exception):
    """No attempt will succeed."""


def _attempt(address: str, file: BinaryIO, options: FetchOptions) -> None:
    if address.startswith(PIPE):
        _run(address.removeprefix(PIPE), file)
    elif address.startswith(WEB):
        _download(address, file, options.timeout)
    else:
        _copy(address, file)


def _download(url: str, file: BinaryIO, timeout: float) -> None:
    """Downloads what the file does not have yet."""
    have = file.seek(0, os.SEEK_END)
    request = urllib.request.Request(url, headers={"User-Agent": f"grounding/{VERSION}"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        with urllib.request.urlopen(request, timeout=timeout) as response:
            total = _begin(response, file, have)
            while block := response.read(BLOCK):
                file.write(block)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416:  # the file is shorter than what is here
            file.truncate(0)
        raise (_FinalError if error.code in FINAL else _FailedError)(f"HTTP {error.code} {error.reason}") from error
    except urllib.error.URLError as error:
        raise _FailedError(str(error.reason)) from error
    except (OSError, http.client.HTTPException) as error:
        raise _FailedError(str(error) or type(error).__name__) from error
    if total is not None and file.tell() != total:
        found = file.tell()
        if found > total:
            file.truncate(0)
        raise _FailedError(f"{found} bytes came instead of {total}")


def _begin(response: Any, file: BinaryIO, have: int) -> int | None:
    """Goes to the place in the file where a response begins; returns the length of the whole, if it is known."""
    partial = response.status == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {have}-")
    if have and not partial:  # the server sends the whole again
        file.seek(0)
        file.truncate(0)
        have = 0
    length = response.headers.get("Content-Length", "")
    return have + int(length) if length.isdecimal() else None


def _run(command: str, file: BinaryIO) -> None:
    """Runs a command, as webdataset does, and keeps what it writes."""
    file.truncate(0)
    result = subprocess.run(command, shell=True, stdout=file, stderr=subprocess.PIPE, check=False)
    if result.returncode:
        said = result.stderr.decode("utf-8", "replace").strip().splitlines()
        raise _FailedError(f"the command ended with {result.returncode}{': ' + said[-1] if said else ''}")


def _copy(address: str, file: BinaryIO) -> None:
    """Copies an object of a storage that fsspec knows."""
    file.truncate(0)
    try:
        system = file_system(address)
        size = system.info(address).get("size")
        with system.open(address, "rb") as source:
            while block := source.read(BLOCK):
                file.write(block)
    except InputError as error:
        raise _FinalError(str(error)) from error
    except FileNotFoundError as error:
        raise _FinalError("there is no such object") from error
    except PermissionError as error:
        raise _FinalError(f"access is denied ({error})") from error
    except Exception as error:  # each storage raises exceptions of its own
        raise _FailedError(str(error) or type(error).__name__) from error
    if size is not None and file.tell() != size:
        raise _FailedError(f"{file.tell()} bytes came instead of {size}")


def file_system(address: str) -> Any:
    """The ``fsspec`` file system of an address.

    Args:
        address: a URL such as ``s3://bucket/00000.tar``. Keys and the address of another server come from the
            environment variables and files of the storage and of fsspec (``FSSPEC_S3_ENDPOINT_URL``).

    Returns:
        The file system.

    Raises:
        InputError: fsspec or the package of the storage is not installed, or the scheme is unknown.
    """
    scheme = address.partition("://")[0]
    try:
        import fsspec

        return fsspec.filesystem(scheme)
    except ImportError as error:
        package = {"s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs"}.get(scheme, "fsspec")
        raise InputError(f"{scheme}:// needs another package: .venv/bin/pip install {package}") from error
    except ValueError as error:
        raise InputError(str(error)) from error
