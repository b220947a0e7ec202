"""Decodes photos in a process of its own.

Libraries that decode JPEG, PNG and WebP are written in C, and photos come from strangers. A photo that makes them
crash, run for ever or take all memory ends this process, not the server. The process is kept for the next photo.
"""

import json
import os
import resource
import struct
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from grounding.page.limits import Limits
from grounding.page.uploads import decode
from proposals.errors import InputError

LENGTH, REPLY = struct.Struct("<Q"), struct.Struct("<BII")  # of a photo's bytes; whether refused, height, width
ROOT = Path(__file__).parents[2]
PROGRAM = "from grounding.page.decoder import main; main()"
UNREADABLE = "the photo cannot be decoded: save it again as JPEG or PNG"


class PhotoDecoder:
    """Decodes photos in another process, one after another. Threads may share it.

    Args:
        limits: see :func:`grounding.page.uploads.decode`; besides, ``decode_seconds`` and ``decode_bytes`` are used.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits, self._lock = limits, threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def __del__(self) -> None:
        self.close()

    def decode(self, data: bytes) -> NDArray[np.uint8]:
        """Decodes a photo.

        Args:
            data: the bytes of a JPEG, PNG or WebP file.

        Returns:
            ``(H, W, 3)`` uint8 RGB.

        Raises:
            InputError: see :func:`grounding.page.uploads.decode`; or the photo takes too much time or memory, or makes
                the process crash.
        """
        with self._lock:
            process = self._started()
            late = threading.Event()
            timer = threading.Timer(self._limits.decode_seconds, _kill, [process, late])
            timer.start()
            try:
                return _exchange(process, data)
            except InputError:  # its whole reply was read
                raise
            except (OSError, EOFError) as error:
                self._stop()
                seconds = f"the photo takes more than {self._limits.decode_seconds:g} s to decode: send a smaller one"
                raise InputError(seconds if late.is_set() else UNREADABLE) from error
            except BaseException:  # such as MemoryError: the rest of the reply must not become that of the next photo
                self._stop()
                raise
            finally:
                timer.cancel()
                timer.join()
                if late.is_set():  # also if the reply came just before the end
                    self._stop()

    def close(self) -> None:
        """Ends the process."""
        with self._lock:
            self._stop()

    def _started(self) -> "subprocess.Popen[bytes]":
        if self._process and self._process.poll() is not None:
            self._stop()
        if not self._process:
            paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
            # one thread, because each thread of a numeric library reserves memory
            one = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)}
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", PROGRAM, json.dumps(asdict(self._limits))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=os.environ | one,
                start_new_session=True,  # Ctrl-C stops the server, which then ends this process
            )
        return self._process

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                with suppress(OSError):
                    pipe and pipe.close()


def _kill(process: "subprocess.Popen[bytes]", late: threading.Event) -> None:
    late.set()
    process.kill()


def _exchange(process: "subprocess.Popen[bytes]", data: bytes) -> NDArray[np.uint8]:
    assert process.stdin and process.stdout
    process.stdin.write(LENGTH.pack(len(data)))
    process.stdin.write(data)
    process.stdin.flush()
    refused, height, width = REPLY.unpack(_read(process.stdout, REPLY.size))
    if refused:
        raise InputError(_read(process.stdout, height).decode("utf-8"))
    # a bytearray, so that the array can be written to as any other
    return np.frombuffer(bytearray(_read(process.stdout, height * width * 3)), np.uint8).reshape(height, width, 3)


def _read(pipe: IO[bytes], count: int) -> bytes:
    data = pipe.read(count)
    if len(data) < count:
        raise EOFError
    return data


def main() -> None:
    """Decodes the photos that come from the standard input until it ends. Called in the process."""
    limits = Limits(**json.loads(sys.argv[1]))
    resource.setrlimit(resource.RLIMIT_AS, (int(limits.decode_bytes),) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not come between the replies
    while len(length := sys.stdin.buffer.read(LENGTH.size)) == LENGTH.size:
        data = sys.stdin.buffer.read(LENGTH.unpack(length)[0])
        try:
            pixels = decode(data, limits)
            reply = REPLY.pack(0, *pixels.shape[:2]), np.ascontiguousarray(pixels).tobytes()
        except InputError as error:
            message = str(error).encode("utf-8", "backslashreplace")
            reply = REPLY.pack(1, len(message), 0), message
        except MemoryError:
            message = f"the photo takes more than {limits.decode_bytes} bytes of memory: send a smaller one".encode()
            reply = REPLY.pack(1, len(message), 0), message
        output.writelines(reply)
        output.flush()
