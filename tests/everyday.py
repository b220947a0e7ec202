"""A small folder in the format of COCO, and a grounder whose answers are known."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from PIL import Image

from grounding.images import read_image
from grounding.settings import Settings

# photo, category, x, y, width, height, crowd
OBJECTS = [
    ("1", "dog", 10, 10, 20, 20, 0),
    ("1", "dog", 60, 10, 20, 20, 0),
    ("1", "tv", 30, 50, 40, 20, 0),
    ("1", "cell phone", 0, 0, 90, 70, 1),  # only a crowd: no phrase, but shown
    ("2", "tv", 0, 0, 100, 80, 0),
]
NAMES = ["cell phone", "dog", "tv", "zebra"]


def write_coco(root: Path, masks: bool = True, split: str = "val") -> Path:
    """Photos "1", "2" and "3", of 100 x 80 pixels; "3" has no object. An object's mask is its box."""
    (root / split).mkdir(parents=True)
    (root / "annotations").mkdir(exist_ok=True)
    numbers = {"val": ("1", "2", "3"), "train": ("4",)}[split]
    for name in numbers:
        Image.fromarray(np.full((80, 100, 3), 90, np.uint8)).save(root / split / f"{name}.png")
    known = {name: number for number, name in enumerate(NAMES, 1)}
    things = [
        {"id": i, "image_id": int(photo), "category_id": known[name], "bbox": [x, y, w, h], "iscrowd": crowd}
        | ({"segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]]} if masks else {})
        for i, (photo, name, x, y, w, h, crowd) in enumerate(OBJECTS)
        if photo in numbers
    ]
    content = {
        "images": [{"id": int(n), "file_name": f"{n}.png", "height": 80, "width": 100} for n in numbers],
        "categories": [{"id": number, "name": name} for name, number in known.items()],
        "annotations": things,
    }
    (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    return root


@dataclass
class KnownGrounder:
    """Answers from tables: boxes (half-open) and point by photo and phrase, presence by name.

    A phrase without an entry is not groundable.
    """

    answers: dict[tuple[str, str], tuple[list, tuple | None]]
    present: dict[str, float] | None = None
    settings: Settings = field(default_factory=lambda: Settings(presence=0.5))
    proposer: object = None
    target: str = "pool3"

    def used_settings(self) -> dict:
        return asdict(self.settings) | {"target": self.target, "ranked_by": [self.settings.method]}

    def look(self, path) -> SimpleNamespace:
        name = Path(path).stem
        image = read_image(path)
        proposals = SimpleNamespace(boxes=np.array([[10, 10, 30, 30], [0, 0, 100, 80]], float))
        ground = lambda texts: [self._answer(name, text) for text in texts]  # noqa: E731
        scene = SimpleNamespace(image=image, proposals=proposals, ground=ground)
        present = self.present or {}
        scene.presence = lambda names: [present.get(name) for name in names]
        return scene

    def _answer(self, photo: str, text: str) -> SimpleNamespace:
        boxes, point = self.answers.get((photo, text), ([], None))
        presence = None if self.present is None else self.present.get(text)
        boxes = np.array(boxes, float).reshape(-1, 4)
        scores = np.linspace(1, 0.5, len(boxes))
        return SimpleNamespace(boxes=boxes, scores=scores, point=point, groundable=bool(len(boxes)), presence=presence)
