"""Photos that clients sent: read with suspicion, and kept for a while under a name that cannot be guessed."""

import re
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from weakref import WeakKeyDictionary

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from grounding.attention.methods import IMAGE, METHODS
from grounding.attention.topdown import Scene
from grounding.grounder import Grounder
from grounding.images import read_image
from grounding.page.limits import Limits
from grounding.scene import GroundingScene
from proposals.errors import InputError

FORMATS = {"image/jpeg": "JPEG", "image/png": "PNG", "image/webp": "WEBP"}
SCAN = b"\xff\xda"  # a JPEG's marker; a byte ff of what follows it is always written ff 00
NAME = re.compile(r"[^\x00-\x1f\x7f-\x9f/\\:\u202a-\u202e\u2066-\u2069\ud800-\udfff]{1,200}")


def decode(data: bytes, limits: Limits) -> np.ndarray:
    """The pixels of a photo's file, (H, W, 3) uint8 RGB: a JPEG, a PNG or a WebP, whatever its name.

    Raises:
        InputError: another file, one that is broken, or a photo beyond ``limits``.
    """
    if data.startswith(b"\xff\xd8") and data.count(SCAN) > limits.scans:
        raise InputError(f"the photo is a JPEG of more than {limits.scans} scans; save it anew")
    too_large = InputError(f"the photo has more than {limits.pixels} pixels; make it smaller")
    try:
        opened = Image.open(BytesIO(data), formats=list(FORMATS.values()))
    except UnidentifiedImageError as error:
        raise InputError("the body is no photo that can be read: send a JPEG, PNG or WebP") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise too_large from error
    except Exception as error:  # Pillow's readers may raise anything on a broken file
        raise InputError("the photo is truncated or corrupt") from error
    with opened:
        if opened.width * opened.height > limits.pixels:
            raise too_large
        return read_image(opened, limits.aspect)


def check_name(name: str) -> str:
    """A file's name as it was given, which is only ever shown.

    Raises:
        InputError: it is a path, or holds characters that are not shown.
    """
    if not NAME.fullmatch(name) or not name.strip(". "):
        raise InputError("name= is no plain file name: give one such as photo.jpg, without folders")
    return name


def slow(method: str) -> bool:
    """Whether a method sends dense signals down to the image: half a second and a hundred megabytes a word."""
    return METHODS[method].target == IMAGE


class Glancer:
    """Looks at photos as ``Grounder.look`` does, but lightly: a scene of the network's holds 95 MB of a square photo.

    A ``GroundingScene`` of it holds the photo, its proposals and the maps of words asked for; of the network's own
    scenes only the last few stay, and for new words on another photo the network looks anew.

    Args:
        grounder: looks; scenes: how many stay.
    """

    def __init__(self, grounder: Grounder, scenes: int):
        self._grounder, self._scenes = grounder, scenes
        # weak: with a photo goes all that was made of it
        self._recent: WeakKeyDictionary[Glance, Scene] = WeakKeyDictionary()
        self._lock = threading.Lock()

    def look(self, pixels: np.ndarray) -> GroundingScene:
        """A photo (H, W, 3) uint8 RGB that can be asked."""
        grounder = self._grounder
        proposals, glance = grounder.proposer(pixels), Glance(self, pixels)
        return GroundingScene(pixels, proposals, glance, grounder.tagger, grounder.topdown, grounder.settings)

    def scene(self, glance: "Glance", method: str) -> Scene:
        """The network's values on a photo; those for a slow method are the largest, asked the least, and never stay."""
        if slow(method):
            return self._look(glance, method)
        with self._lock:
            scene = self._recent.pop(glance, None)
        scene = scene or self._look(glance, "c-mwp")
        with self._lock:
            self._recent[glance] = scene
            while len(self._recent) > self._scenes:
                del self._recent[next(iter(self._recent.keys()))]
        return scene

    def _look(self, glance: "Glance", method: str) -> Scene:
        prepared = self._grounder.tagger.prepare(glance.pixels, [self._grounder.settings.side])
        return self._grounder.topdown.look(prepared, method)


class Glance:
    """Stands for a ``Scene``: asks the glancer for one when new words are wanted.

    Args:
        glancer: looks; pixels: at what.
    """

    def __init__(self, glancer: Glancer, pixels: np.ndarray):
        self._glancer, self.pixels = glancer, pixels

    def attend(self, tags: Sequence[int], method: str) -> Tensor:
        """As ``Scene.attend``."""
        scene, together = self._glancer.scene(self, method), 2 if slow(method) else len(tags)
        return torch.cat([scene.attend(tags[i : i + together], method) for i in range(0, len(tags), together)], 1)


@dataclass
class Kept:
    """A photo of a client.

    Attributes:
        token: its secret name; name: the client's name of it; scene: what was seen; used: when it was last asked for.
    """

    token: str
    name: str
    scene: GroundingScene
    used: float

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        height, width = self.scene.image.shape[:2]
        return width, height


class Photos:
    """The photos that are kept; the least recently used goes first. Threads may share it.

    Args:
        limits: photos, photos_bytes, photo_seconds; clock: seconds that only grow.
    """

    def __init__(self, limits: Limits, clock: Callable[[], float] = time.monotonic):
        self._limits, self._clock = limits, clock
        self._kept: OrderedDict[str, Kept] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def keep(self, name: str, scene: GroundingScene) -> Kept:
        """The photo under a token of its own: 128 bits of chance."""
        kept = Kept(secrets.token_urlsafe(16), name, scene, self._clock())
        with self._lock:
            self._kept[kept.token] = kept
        self.tidy()
        return kept

    def find(self, token: str) -> Kept:
        """The photo of a token.

        Raises:
            KeyError: there is none, or none any more.
        """
        self.tidy()
        with self._lock:
            kept = self._kept[token]
            self._kept.move_to_end(token)
            kept.used = self._clock()
            return kept

    def forget(self, token: str) -> None:
        """Drops a photo, if it is there."""
        with self._lock:
            self._kept.pop(token, None)

    def tidy(self) -> None:
        """Drops what is too old, too many, or too much: maps of words are added to photos as they are asked."""
        limits = self._limits
        with self._lock:
            held = sum(kept.scene.nbytes for kept in self._kept.values())
            oldest = self._clock() - limits.photo_seconds
            while self._kept:
                first = next(iter(self._kept))
                kept = self._kept[first]
                if kept.used >= oldest and len(self._kept) <= limits.photos and held <= limits.photos_bytes:
                    break
                held -= kept.scene.nbytes
                del self._kept[first]
