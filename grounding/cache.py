"""A cache of what is dear: the words' maps and the proposals of photos, kept by what made them.

Whatever the gamma, the NMS or the phrases' grammar, a photo is looked at once: a second evaluation reads.
"""

import json
import zlib
from collections.abc import Callable, Sequence
from functools import cached_property
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from grounding.attention.topdown import Scene
from grounding.grounder import Grounder
from grounding.images import read_image
from grounding.runtime.artefacts import atomic_path
from grounding.scene import GroundingScene
from proposals import InputError, Proposals
from proposals.provenance import code_of, settings_of
from proposals.shards import ShardProposals, decode, encode

# The modules whose code decides what a map is. Kept maps are computed again when one of them changes.
# tests/test_provenance.py compares the list with the imports.
MODULES = (
    "grounding.attention.descent",
    "grounding.attention.engine.dense",
    "grounding.attention.engine.kernels",
    "grounding.attention.engine.runs",
    "grounding.attention.engine.sparse",
    "grounding.attention.engine.winners",
    "grounding.attention.forward",
    "grounding.attention.gradients",
    "grounding.attention.layers",
    "grounding.attention.methods",
    "grounding.attention.network",
    "grounding.attention.neurons",
    "grounding.attention.relevance",
    "grounding.attention.rules",
    "grounding.attention.topdown",
    "grounding.attention.tracing",
    "grounding.attention.weights",
    "grounding.images",
    "grounding.tagger.architectures",
    "grounding.tagger.googlenet",
    "grounding.tagger.preprocessing",
    "grounding.tagger.tagger",
)


class KeptScene:
    """Stands for a ``Scene``: it has the raw maps of some tags, and asks the network for others when they are wanted.

    Args:
        maps: by tag's number, (h, w) float32; look: gives the real scene; method: that the maps are of.
    """

    def __init__(self, maps: dict[int, np.ndarray], look: Callable[[], Scene], method: str):
        self.maps, self._look, self._method = maps, look, method

    def attend(self, tags: Sequence[int], method: str) -> Tensor:
        """(1, W, h, w) float32, as ``Scene.attend`` gives them; of another method, not kept."""
        if method != self._method:
            return self._look().attend(tags, method)
        missing = [tag for tag in tags if tag not in self.maps]
        if missing:
            self.maps |= zip(missing, self._look().attend(missing, method)[0].float().cpu().numpy(), strict=True)
        return torch.from_numpy(np.stack([self.maps[tag] for tag in tags]))[None]


class Cache:
    """Looks at photos for a grounder, and keeps what it saw in files.

    A photo is known by its bytes, maps by the tagger, method, layer and size that they are of, proposals by the
    proposer's settings, both by the code that made them; what has another key is made anew beside the old. Several
    processes may share a folder; of two that add words to one photo at once, one may have to look again.

    Args:
        grounder: that would look; folder: of the cache, made when first written to.
    """

    def __init__(self, grounder: Grounder, folder: str | Path):
        self.grounder, self.folder = grounder, Path(folder)

    def look(self, path: str | Path, tags: Sequence[str]) -> GroundingScene:
        """As ``Grounder.look``, ready for words of these tags.

        Raises:
            InputError: the photo cannot be read, the vocabulary has no such tag, or the folder cannot be written.
        """
        image = read_image(path)
        name = f"{Path(path).stem}-{sha256(Path(path).read_bytes()).hexdigest()[:16]}.npz"
        found = self._proposals(self._proposed / name, image, Path(path).stem)
        ids = sorted({self.grounder.tagger.vocabulary.index(tag) for tag in tags})
        scene = self._maps(self._attended / name, ids, image)
        grounder = self.grounder
        return GroundingScene(image, found, scene, grounder.tagger, grounder.topdown, grounder.settings)

    @cached_property
    def _proposed(self) -> Path:
        return self._place("proposals", settings_of(self.grounder.proposer))

    @cached_property
    def _attended(self) -> Path:
        settings, digest = self.grounder.settings, sha256()
        for name, tensor in sorted(self.grounder.tagger.state_dict().items()):
            digest.update(name.encode() + tensor.detach().float().cpu().contiguous().numpy().tobytes())
        what = {"tagger": digest.hexdigest(), "method": settings.method, "target": settings.target}
        return self._place(f"maps-{settings.method}", what | {"side": settings.side, "code": code_of(MODULES)})

    def _place(self, kind: str, what: dict) -> Path:
        key = json.dumps(what, sort_keys=True)
        return self.folder / f"{kind}-{sha256(key.encode()).hexdigest()[:12]}"

    def _proposals(self, path: Path, image: np.ndarray, name: str) -> Proposals:
        if isinstance(self.grounder.proposer, ShardProposals):
            return self.grounder.proposer(image, name)  # kept already, where it may be made anew
        try:
            return decode(path.read_bytes())
        except (OSError, InputError):
            found = self.grounder.proposer(image, name)
            _write(path, encode(found))
            return found

    def _maps(self, path: Path, ids: list[int], image: np.ndarray) -> KeptScene:
        def look() -> Scene:
            settings = self.grounder.settings
            return self.grounder.topdown.look(self.grounder.tagger.prepare(image, [settings.side]), settings.method)

        scene = KeptScene(_read_maps(path), look, self.grounder.settings.method)
        known = len(scene.maps)
        if ids:
            scene.attend(ids, self.grounder.settings.method)
        if len(scene.maps) > known:
            numbers, maps = np.array(list(scene.maps)), np.stack(list(scene.maps.values()))
            buffer = BytesIO()
            np.savez_compressed(buffer, tags=numbers, maps=maps)
            _write(path, buffer.getvalue())
        return scene


def _read_maps(path: Path) -> dict[int, np.ndarray]:
    """The maps kept in a file; none if it is not there or no such file."""
    try:
        with np.load(BytesIO(path.read_bytes()), allow_pickle=False) as kept:
            return dict(zip(kept["tags"].tolist(), kept["maps"], strict=True))
    except (OSError, ValueError, KeyError, EOFError, BadZipFile, zlib.error):
        return {}


def _write(path: Path, data: bytes) -> None:
    with atomic_path(path) as aside:
        aside.write_bytes(data)
