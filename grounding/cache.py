"""Keeps expensive results in files: the attention maps of words and the proposals of photos.

A second evaluation, with another gamma, another NMS threshold or other phrases, reads them and needs no forward pass.
"""

import json
import zlib
from collections.abc import Sequence
from functools import cached_property
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any, cast
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from grounding.attention.topdown import Scene
from grounding.grounder import Grounder
from grounding.images import MAX_PANORAMA, read_image
from grounding.maps import CachedScene
from grounding.runtime.artefacts import atomic_path
from grounding.scene import GroundingScene
from grounding.tagger.tagger import TagClassifier
from proposals import InputError, Proposals
from proposals.provenance import code_of, settings_of
from proposals.shards import ShardProposals, decode, encode

# The modules whose code determines the maps: if one of them changes, maps are computed again.
# tests/test_provenance.py compares the list with the imports.
MODULES = (
    "grounding.attention.capture",
    "grounding.attention.capture.capture",
    "grounding.attention.capture.constants",
    "grounding.attention.capture.copying",
    "grounding.attention.capture.folding",
    "grounding.attention.capture.forms",
    "grounding.attention.capture.forms.elementwise",
    "grounding.attention.capture.forms.norms",
    "grounding.attention.capture.forms.registry",
    "grounding.attention.capture.forms.shapes",
    "grounding.attention.capture.forms.sums",
    "grounding.attention.capture.forms.weighted",
    "grounding.attention.capture.graph",
    "grounding.attention.capture.negation",
    "grounding.attention.capture.operations",
    "grounding.attention.capture.preparing",
    "grounding.attention.capture.recording",
    "grounding.attention.descent",
    "grounding.attention.engine.dense",
    "grounding.attention.engine.kernels",
    "grounding.attention.engine.runs",
    "grounding.attention.engine.sparse",
    "grounding.attention.engine.winners",
    "grounding.attention.forward",
    "grounding.attention.gradients",
    "grounding.attention.layers",
    "grounding.attention.mass",
    "grounding.attention.methods",
    "grounding.attention.network",
    "grounding.attention.networks",
    "grounding.attention.neurons",
    "grounding.attention.relevance",
    "grounding.attention.rules",
    "grounding.attention.split",
    "grounding.attention.topdown",
    "grounding.attention.verification",
    "grounding.attention.weights",
    "grounding.images",
    "grounding.runtime.heic",
    "grounding.tagger.architectures",
    "grounding.tagger.cnns",
    "grounding.tagger.convolutional",
    "grounding.tagger.efficientnet",
    "grounding.tagger.googlenet",
    "grounding.tagger.preprocessing",
    "grounding.tagger.tagger",
)


READS = 3  # attempts to read a photo that is replaced while it is read


def weights_digest(tagger: TagClassifier) -> str:
    """A digest of all weights of a tagger.

    Args:
        tagger: the network.
    """
    digest = sha256()
    for name, tensor in sorted(tagger.state_dict().items()):
        digest.update(name.encode() + tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


class Cache:
    """Looks at photos for a grounder, and keeps the maps and the proposals in files.

    The key of a photo is its content; the key of a map is the tagger, method, target layer, size and the code that
    computes maps; the key of proposals is the proposer's settings and code. Results with another key are computed and
    kept beside the old ones. Several processes may share a folder. If two of them add words to one photo at the same
    time, the words of one may be lost, and are computed again when they are needed.

    Args:
        grounder: computes what the cache does not contain.
        folder: the folder of the cache. It is created with the first file.
    """

    def __init__(self, grounder: Grounder, folder: str | Path) -> None:
        self.grounder, self.folder = grounder, Path(folder)

    def look(self, path: str | Path, phrases: Sequence[str] = ()) -> GroundingScene:
        """Returns what ``Grounder.look`` returns, with the maps of the words of some phrases.

        Args:
            path: the photo.
            phrases: the phrases whose maps are read or computed, and kept.

        Returns:
            The scene.

        Raises:
            InputError: the photo cannot be read, a phrase is empty, or the folder cannot be written.
        """
        image, digest = _read(Path(path))
        grounder, name = self.grounder, f"{Path(path).stem}-{digest}.npz"
        proposals = self._proposals(self._proposals_folder / name, image, Path(path).stem)

        def look() -> Scene:
            settings = grounder.settings
            return grounder.topdown.look(grounder.tagger.prepare(image, [settings.side]), settings.method)

        file = self._maps_folder / name
        source = CachedScene(_read_maps(file), look)
        known = len(source.kept)
        scene = GroundingScene(image, proposals, source, grounder.tagger, grounder.topdown, grounder.settings)
        scene.prepare(phrases)
        source.release()
        if len(source.kept) > known:
            np.savez_compressed(buffer := BytesIO(), **cast(dict[str, Any], source.kept))
            _write(file, buffer.getvalue())
        return scene

    @cached_property
    def _proposals_folder(self) -> Path:
        return self._folder("proposals", settings_of(self.grounder.proposer))

    @cached_property
    def _maps_folder(self) -> Path:
        settings = self.grounder.settings
        key = {
            "tagger": weights_digest(self.grounder.tagger),
            "method": settings.method,
            "target": self.grounder.target,
        }
        return self._folder(f"maps-{settings.method}", key | {"side": settings.side, "code": code_of(MODULES)})

    def _folder(self, kind: str, key: dict[str, object]) -> Path:
        digest = sha256(json.dumps(key, sort_keys=True).encode())
        return self.folder / f"{kind}-{digest.hexdigest()[:12]}"

    def _proposals(self, path: Path, image: NDArray[np.uint8], name: str) -> Proposals:
        if isinstance(self.grounder.proposer, ShardProposals):
            return self.grounder.proposer(image, name)  # these are files already
        try:
            return decode(path.read_bytes())
        except (OSError, InputError):
            proposals = self.grounder.proposer(image, name)
            _write(path, encode(proposals))
            return proposals


def _read(path: Path) -> tuple[NDArray[np.uint8], str]:
    """A photo, and a digest of its file, both of the same content: a wrong digest would give the photo wrong maps."""
    for _ in range(READS):
        before = _digest(path)
        image = read_image(path, MAX_PANORAMA)
        if before and before == _digest(path):
            return image, before
    raise InputError(f"{path} changes while it is read: run again when it is complete")


def _digest(path: Path) -> str:
    """A digest of a file; "" if it cannot be read."""
    try:
        return sha256(path.read_bytes()).hexdigest()[:16]
    except OSError:
        return ""


def _read_maps(path: Path) -> dict[str, NDArray[np.float32]]:
    """Reads the scores and maps of a file; none if the file is missing or damaged."""
    try:
        with np.load(BytesIO(path.read_bytes()), allow_pickle=False) as file:
            return dict(file.items())
    except (OSError, ValueError, KeyError, EOFError, BadZipFile, zlib.error):
        return {}


def _write(path: Path, data: bytes) -> None:
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)
