"""Leases: files by which processes share work in a folder, without talking to each other.

The holder of a lease renews it while it works. A lease that is not renewed expires, so a process that dies, or a
machine that is cut off, delays its own shard only. The lease of a name is the file ``NAME.N`` with the largest N. To
take over an expired lease, a process creates ``NAME.N+1``, which only one process can. A holder that was stopped for a
while sees the new file, and gives up.
"""

import os
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from proposals.errors import InputError

SHORTEST = 1.0  # seconds
RENEWALS = 5  # of a lease, before it expires


class LostLeaseError(Exception):
    """Another process has taken over the lease, because it was not renewed in time."""


class Lease:
    """The right to work on one name, until :meth:`release`.

    Args:
        path: the file of the lease, which exists.
        number: how often the lease of this name was taken over.
        token: the content of the file; no other lease has it.
        seconds: the time after which the lease expires if it is not renewed.

    Attributes:
        path: the file of the lease.
        number: how often the lease of this name was taken over.
    """

    def __init__(self, path: Path, number: int, token: str, seconds: float) -> None:
        self.path, self.number, self._token = path, number, token
        self._ended = threading.Event()
        threading.Thread(target=self._renew, args=(seconds / RENEWALS,), daemon=True).start()

    def check(self) -> None:
        """Checks that no other process has taken over the lease.

        Raises:
            LostLeaseError: one has.
        """
        name = self.path.name.rpartition(".")[0]
        if not self._is_own() or self.path.with_name(f"{name}.{self.number + 1}").exists():
            raise LostLeaseError(name)

    def release(self) -> None:
        """Ends the lease, so that others need not wait until it expires."""
        self._ended.set()
        if self._is_own():
            self.path.unlink(missing_ok=True)

    def _is_own(self) -> bool:
        try:
            return self.path.read_text() == self._token
        except OSError:
            return False

    def _renew(self, interval: float) -> None:
        while not self._ended.wait(interval):
            with suppress(OSError):  # a file system that is away for a moment; the lease may expire
                os.utime(self.path)


class LeaseFolder:
    """The leases in a folder that all processes see.

    Args:
        folder: the folder; it is created.
        seconds: the time after which a lease expires that is not renewed. It must be longer than the file system takes
            to show a change to other machines.

    Raises:
        InputError: the time is too short, or the folder cannot be written.
    """

    def __init__(self, folder: str | Path, seconds: float) -> None:
        if not seconds >= SHORTEST:
            raise InputError(f"lease={seconds} must be {SHORTEST:g} or more: it is a time in seconds")
        self.folder, self.seconds = Path(folder), seconds
        self._seen: dict[str, tuple[float, float]] = {}  # by lease: its time, and when this process first saw that time
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{self.folder} cannot be written: {error.strerror or error}") from error

    def names(self) -> set[str]:
        """The names that have a lease, which may be expired."""
        return {name for name, _ in self._listed()}

    def claim(self, name: str) -> Lease | None:
        """Takes the lease of a name if it is free or expired.

        Args:
            name: the name.

        Returns:
            The lease; None if another process holds it.

        Raises:
            InputError: the folder cannot be written.
        """
        number = self._last(name)
        if number is not None and not self._expired(self.folder / f"{name}.{number}"):
            return None
        following = 0 if number is None else number + 1
        path = self.folder / f"{name}.{following}"
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        except FileExistsError:
            return None  # another process was faster
        except OSError as error:
            raise InputError(f"{path} cannot be written: {error.strerror or error}") from error
        with os.fdopen(descriptor, "w") as file:
            file.write(token := f"{_holder()}{uuid4()}\n")
        for earlier in range(following):
            (self.folder / f"{name}.{earlier}").unlink(missing_ok=True)
        return Lease(path, following, token, self.seconds)

    def _last(self, name: str) -> int | None:
        """The largest number of a lease of this name."""
        return max((number for own, number in self._listed() if own == name), default=None)

    def _listed(self) -> list[tuple[str, int]]:
        """The name and the number of each lease."""
        with os.scandir(self.folder) as entries:
            parts = [entry.name.rpartition(".") for entry in entries]
        return [(name, int(number)) for name, _, number in parts if number.isdecimal()]

    def _expired(self, path: Path) -> bool:
        try:
            holder, renewed = path.read_text(), path.stat().st_mtime
        except OSError:  # released in this moment
            return True
        age = self._now() - renewed
        if age < 0:  # the clock was set back
            age = self._seconds_unchanged(path.name, renewed)
        return age > self.seconds or _is_dead(holder)

    def _seconds_unchanged(self, name: str, renewed: float) -> float:
        """For how long this process has seen a lease with the same time, by a clock that is never set back."""
        now = time.monotonic()
        before, since = self._seen.get(name, (renewed, now))
        self._seen[name] = (renewed, since if before == renewed else now)
        return now - self._seen[name][1]

    def _now(self) -> float:
        """The time on the clock that dates the leases: that of the file system, which may be on another machine."""
        probe = self.folder / f".clock-{socket.gethostname()}-{os.getpid()}"
        try:
            probe.touch()
            return probe.stat().st_mtime
        except OSError:
            return time.time()
        finally:
            probe.unlink(missing_ok=True)


def _processes() -> str:
    """Names the machine, since its start, and the processes that this process can see; "" if that is unknown."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _started(process: int) -> str:
    """When a process was started; "" if it does not exist or this is unknown."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def _holder() -> str:
    return f"{_processes()}\n{os.getpid()}\n{_started(os.getpid())}\n{socket.gethostname()}\n"


def _is_dead(holder: str) -> bool:
    """Whether the holder is certainly dead: a process of this machine that does not run any more."""
    lines = holder.split("\n")
    if len(lines) < 4 or not lines[0] or lines[0] != _processes() or not lines[1].isdecimal():
        return False
    return _started(int(lines[1])) != lines[2]
