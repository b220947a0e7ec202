"""Keeps expensive results in files: the attention maps of words and the proposals of photos.

A second evaluation, with another gamma, another NMS threshold or other phrases, reads them and needs no forward pass.
"""

import json
import zlib
from collections.abc import Callable, Sequence
from functools import cached_property
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import cast
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from grounding.attention.topdown import Scene
from grounding.grounder import Grounder
from grounding.images import read_image
from grounding.runtime.artefacts import atomic_path
from grounding.scene import GroundingScene
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
    "grounding.attention.topdown",
    "grounding.attention.verification",
    "grounding.attention.weights",
    "grounding.images",
    "grounding.tagger.architectures",
    "grounding.tagger.googlenet",
    "grounding.tagger.preprocessing",
    "grounding.tagger.tagger",
)


class CachedScene:
    """A ``MapSource`` with the maps of some tags; it runs the network only for maps that it does not have.

    Args:
        maps: ``(h, w)`` float32 by the tag's index.
        look: runs the forward pass.
        method: the attention method of the maps.

    Attributes:
        maps: the maps so far.
    """

    def __init__(self, maps: dict[int, NDArray[np.float32]], look: Callable[[], Scene], method: str) -> None:
        self.maps, self._look, self._method = maps, look, method

    def attend(self, tags: Sequence[int], method: str, /) -> Tensor:
        """Returns the maps of tags, as ``Scene.attend`` does.

        Args:
            tags: indices of tags.
            method: the attention method; maps of another method than the cached one are not cached.

        Returns:
            ``(1, W, h, w)`` float32.
        """
        if method != self._method:
            return self._compute(tags, method)
        missing = [tag for tag in tags if tag not in self.maps]
        if missing:
            self.maps |= zip(missing, self._compute(missing, method)[0].float().cpu().numpy(), strict=True)
        return torch.from_numpy(np.stack([self.maps[tag] for tag in tags]))[None]

    def _compute(self, tags: Sequence[int], method: str) -> Tensor:
        return cast(Tensor, self._look().attend(tags, method))  # one tensor, because there is one target


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

    def look(self, path: str | Path, tags: Sequence[str]) -> GroundingScene:
        """Returns what ``Grounder.look`` returns, with the maps of some tags.

        Args:
            path: the photo.
            tags: the tags whose maps are read or computed, and kept.

        Returns:
            The scene.

        Raises:
            InputError: the photo cannot be read, the vocabulary does not contain a tag, or the folder cannot be
                written.
        """
        image, grounder = read_image(path), self.grounder
        name = f"{Path(path).stem}-{sha256(Path(path).read_bytes()).hexdigest()[:16]}.npz"
        proposals = self._proposals(self._proposals_folder / name, image, Path(path).stem)
        ids = sorted({grounder.tagger.vocabulary.index(tag) for tag in tags})
        scene = self._maps(self._maps_folder / name, ids, image)
        return GroundingScene(image, proposals, scene, grounder.tagger, grounder.topdown, grounder.settings)

    @cached_property
    def _proposals_folder(self) -> Path:
        return self._folder("proposals", settings_of(self.grounder.proposer))

    @cached_property
    def _maps_folder(self) -> Path:
        settings, digest = self.grounder.settings, sha256()
        for name, tensor in sorted(self.grounder.tagger.state_dict().items()):
            digest.update(name.encode() + tensor.detach().float().cpu().contiguous().numpy().tobytes())
        key = {"tagger": digest.hexdigest(), "method": settings.method, "target": settings.target}
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

    def _maps(self, path: Path, ids: list[int], image: NDArray[np.uint8]) -> CachedScene:
        def look() -> Scene:
            settings = self.grounder.settings
            return self.grounder.topdown.look(self.grounder.tagger.prepare(image, [settings.side]), settings.method)

        scene = CachedScene(_read_maps(path), look, self.grounder.settings.method)
        known = len(scene.maps)
        if ids:
            scene.attend(ids, self.grounder.settings.method)
        if len(scene.maps) > known:
            numbers, maps = np.array(list(scene.maps)), np.stack(list(scene.maps.values()))
            buffer = BytesIO()
            np.savez_compressed(buffer, tags=numbers, maps=maps)
            _write(path, buffer.getvalue())
        return scene


def _read_maps(path: Path) -> dict[int, NDArray[np.float32]]:
    """Reads the maps of a file; none if the file is missing or damaged."""
    try:
        with np.load(BytesIO(path.read_bytes()), allow_pickle=False) as file:
            return dict(zip(file["tags"].tolist(), file["maps"], strict=True))
    except (OSError, ValueError, KeyError, EOFError, BadZipFile, zlib.error):
        return {}


def _write(path: Path, data: bytes) -> None:
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)
