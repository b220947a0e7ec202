"""Keeps the photos of clients in memory for a while, each under a random token."""

import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

import numpy as np

from grounding.page.limits import Limits
from grounding.scene import GroundingScene

TOKEN_BYTES = 16


@dataclass
class StoredPhoto:
    """A photo of a client.

    Attributes:
        token: random text that identifies the photo. It is secret: whoever knows it can use the photo.
        client: the client that sent it.
        name: file name that the client gave.
        scene: the photo, its proposals and its maps.
        data: the bytes of its file.
        public: whether it is a sample, whose scene all clients share.
        last_used: time of the last request for it, in seconds of the store's clock.
    """

    token: str
    client: str
    name: str
    scene: GroundingScene
    data: bytes
    public: bool
    last_used: float

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        height, width = self.scene.image.shape[:2]
        return width, height

    @property
    def nbytes(self) -> int:
        """Bytes of its file, its pixels, its proposals and its maps so far."""
        return len(self.data) + self.scene.nbytes + bytes_of_arrays(self.scene.proposals)


class PhotoStore:
    """The photos in memory. If there are too many, the least recently used of the largest client is removed.

    So a client that sends many photos loses its own ones, never those of others. All samples together count as the
    photos of one more client. Threads may share the store.

    Args:
        limits: ``photos``, ``photos_bytes``, ``client_photos``, ``client_bytes`` and ``photo_seconds`` are used.
        clock: returns the time in seconds; it never goes backwards.
        public: the files of the sample photos, which are no secret of a client.
    """

    def __init__(
        self, limits: Limits, clock: Callable[[], float] = time.monotonic, public: Collection[bytes] = ()
    ) -> None:
        self._limits, self._clock, self._public = limits, clock, public
        self._photos: OrderedDict[str, StoredPhoto] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._photos)

    def add(self, name: str, scene: GroundingScene, data: bytes = b"", client: str = "") -> StoredPhoto:
        """Stores a photo under a new random token of 128 bits, unless this client has stored it under this name.

        If two requests with the same file were processed at the same time, the scene of the first is kept for both.

        Args:
            name: file name that the client gave.
            scene: the photo.
            data: the bytes of its file.
            client: the client that sent it.

        Returns:
            The stored photo.
        """
        token, public = secrets.token_urlsafe(TOKEN_BYTES), data in self._public
        with self._lock:
            scene = (self._scene_of(data, client) if data else None) or scene
            photo = StoredPhoto(token, client, name, scene, data, public, self._clock())
            holders = [known for known in self._photos.values() if known.scene is scene]
            for known in holders:
                photo.data = known.data  # equal, and in memory once
            same = next((known for known in holders if (known.client, known.name) == (client, name)), photo)
            same.last_used, photo = photo.last_used, same
            self._photos[photo.token] = photo
            self._photos.move_to_end(photo.token)
        self.evict()
        return photo

    def scene_of(self, data: bytes, client: str = "") -> GroundingScene | None:
        """The scene of a file that is in the store already, with its proposals and maps.

        A client finds its own files and the samples only: the response time would tell it what others have sent.

        Args:
            data: the bytes of the file.
            client: the client that sends it.

        Returns:
            The scene; None if the file must be processed.
        """
        with self._lock:
            return self._scene_of(data, client)

    def _scene_of(self, data: bytes, client: str) -> GroundingScene | None:
        allowed = (photo for photo in self._photos.values() if photo.client == client or photo.public)
        return next((photo.scene for photo in allowed if photo.data == data), None)

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
        """Removes old photos, and those of the largest clients until the limits hold.

        The size of a photo grows with each new word, so this is called at each access.
        """
        limits = self._limits
        with self._lock:
            oldest = self._clock() - limits.photo_seconds
            for token, photo in list(self._photos.items()):
                if photo.last_used < oldest:
                    del self._photos[token]
            # the least recently used photo of each client comes first
            of_client: dict[str | None, list[StoredPhoto]] = {}
            for photo in self._photos.values():
                of_client.setdefault(None if photo.public else photo.client, []).append(photo)
            for photos in of_client.values():
                while _scenes(photos) > limits.client_photos or _bytes(photos) > limits.client_bytes:
                    del self._photos[photos.pop(0).token]
            while len(self._photos) > limits.photos:
                del self._photos[max(of_client.values(), key=len).pop(0).token]
            while _bytes(self._photos.values()) > limits.photos_bytes:
                del self._photos[max(of_client.values(), key=_bytes).pop(0).token]


def bytes_of_arrays(owner: object) -> int:
    """The bytes of the arrays in an object's attributes, and in theirs.

    Args:
        owner: any object that does not refer to itself.
    """
    if isinstance(owner, np.ndarray):
        return owner.nbytes
    return sum(map(bytes_of_arrays, vars(owner).values())) if hasattr(owner, "__dict__") else 0


def _scenes(photos: Iterable[StoredPhoto]) -> int:
    return len({id(photo.scene) for photo in photos})


def _bytes(photos: Iterable[StoredPhoto]) -> int:
    """The bytes of some photos. Those of a scene that several photos have are counted once."""
    return sum(photo.nbytes for photo in {id(photo.scene): photo for photo in photos}.values())
