"""Keeps the photos of clients in memory for a while, each under a random token."""

import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from grounding.page.limits import Limits
from grounding.scene import GroundingScene

TOKEN_BYTES = 16


@dataclass
class StoredPhoto:
    """A photo of a client.

    Attributes:
        token: random text that identifies the photo. It is secret: whoever knows it can use the photo.
        name: file name that the client gave.
        scene: the photo, its proposals and its maps.
        data: the bytes of its file.
        last_used: time of the last request for it, in seconds of the store's clock.
    """

    token: str
    name: str
    scene: GroundingScene
    data: bytes
    last_used: float

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        height, width = self.scene.image.shape[:2]
        return width, height

    @property
    def nbytes(self) -> int:
        """Bytes of its file, its pixels and its maps so far."""
        return len(self.data) + self.scene.nbytes


class PhotoStore:
    """The photos in memory. If there are too many, the least recently used is removed. Threads may share the store.

    Args:
        limits: ``photos``, ``photos_bytes`` and ``photo_seconds`` are used.
        clock: returns the time in seconds; it never goes backwards.
    """

    def __init__(self, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits, self._clock = limits, clock
        self._photos: OrderedDict[str, StoredPhoto] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._photos)

    def add(self, name: str, scene: GroundingScene, data: bytes = b"") -> StoredPhoto:
        """Stores a photo under a new random token of 128 bits.

        Args:
            name: file name that the client gave.
            scene: the photo.
            data: the bytes of its file.

        Returns:
            The stored photo.
        """
        photo = StoredPhoto(secrets.token_urlsafe(TOKEN_BYTES), name, scene, data, self._clock())
        with self._lock:
            self._photos[photo.token] = photo
        self.evict()
        return photo

    def get(self, token: str) -> StoredPhoto:
        """The photo with a token.

        Args:
            token: the token of the photo.

        Returns:
            The photo.

        Raises:
            KeyError: there is no such photo, or it was removed.
        """
        self.evict()
        with self._lock:
            photo = self._photos[token]
            self._photos.move_to_end(token)
            photo.last_used = self._clock()
            return photo

    def remove(self, token: str) -> None:
        """Removes a photo, if it is there.

        Args:
            token: the token of the photo.
        """
        with self._lock:
            self._photos.pop(token, None)

    def evict(self) -> None:
        """Removes the least recently used photos until the limits hold.

        The size of a photo grows with each new word, so this is called at each access.
        """
        limits = self._limits
        with self._lock:
            total = sum(photo.nbytes for photo in self._photos.values())
            oldest = self._clock() - limits.photo_seconds
            while self._photos:
                token, photo = next(iter(self._photos.items()))
                if photo.last_used >= oldest and len(self._photos) <= limits.photos and total <= limits.photos_bytes:
                    break
                total -= photo.nbytes
                del self._photos[token]
