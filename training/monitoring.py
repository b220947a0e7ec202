"""Monitoring: a progress bar, ``metrics.jsonl``, TensorBoard, maps of one photo, and a report at the end."""

import json
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from tqdm import tqdm

from grounding.attention.topdown import TopDown
from grounding.draw import heated
from grounding.runtime.artefacts import atomic_path
from grounding.tagger.tagger import TagClassifier
from proposals.errors import InputError
from training.dataset import TrainingBatch
from training.progress import Progress

log = logging.getLogger(__name__)

EVERY = 20  # steps per line of metrics.jsonl
MAPS = 5  # tags whose maps are drawn


class Monitor:
    """Shows the progress of a training; on ranks other than 0 it does nothing.

    It removes lines of ``metrics.jsonl`` that an earlier run wrote after its last checkpoint, so that each step occurs
    once.

    Args:
        output: folder of the training.
        progress: how far the training has come.
        total: number of steps of the training; None if it is not known.
        photos: photos per step.
        tensorboard: whether to write TensorBoard files as well.
        active: False on ranks that show nothing.

    Raises:
        InputError: TensorBoard is not installed, or the folder cannot be written.
    """

    def __init__(
        self, output: Path, progress: Progress, total: int | None, photos: int, tensorboard: bool, active: bool
    ):
        self.output, self.photos, self.active = output, photos, active
        self._reset()
        self._board = _tensorboard(output, progress.step) if tensorboard and active else None
        self._bar = tqdm(total=total, initial=progress.step, unit="step", disable=None if active else True)
        if active:
            _remove_later_lines(output / "metrics.jsonl", progress)

    def _reset(self) -> None:
        self._losses: list[float] = []
        self._waited, self._since = 0.0, time.perf_counter()

    def __enter__(self) -> "Monitor":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()
        if self._board:
            self._board.close()

    def waited(self, seconds: float) -> None:
        """Adds time that a step waited for its photos."""
        self._waited += seconds

    def step(self, progress: Progress, loss: float, rates: Sequence[float]) -> None:
        """Shows a step.

        Args:
            progress: how far the training has come.
            loss: loss of the step, averaged over ranks.
            rates: learning rates of the trunk and of the tag layer.
        """
        if not self.active:
            return
        self._losses.append(loss)
        self._bar.update()
        passed = time.perf_counter() - self._since
        speed, waiting = self.photos * len(self._losses) / passed, self._waited / passed
        self._bar.set_postfix(loss=f"{loss:.2f}", photos_s=f"{speed:.1f}", wait=f"{waiting:.0%}")
        if progress.step % EVERY == 0:
            mean = sum(self._losses) / len(self._losses)
            line = {"loss": mean, "photos_per_second": speed, "waiting": waiting, "trunk_lr": rates[0]}
            self._write(progress.step, line | {"tag_lr": rates[1]})
            self._reset()

    def validated(self, progress: Progress, measured: dict[str, float]) -> None:
        """Shows the measurements of a validation."""
        if self.active:
            log.info("step %d: %s", progress.step, json.dumps({k: round(v, 3) for k, v in measured.items()}))
            self._write(progress.step, {"validation": measured})
            self._reset()

    def draw_maps(self, progress: Progress, tagger: TagClassifier, batch: TrainingBatch) -> None:
        """Draws the c-MWP maps of the first tags of a batch's first photo: ``maps/step-NNNNNNNNN.jpg``."""
        if not self.active:
            return
        picture = _draw_maps(tagger, batch)
        with atomic_path(self.output / "maps" / f"step-{progress.step:09d}.jpg") as part:
            picture.save(part, "JPEG", quality=90)
        if self._board:
            self._board.add_image("maps", np.asarray(picture), progress.step, dataformats="HWC")

    def _write(self, step: int, line: dict[str, Any]) -> None:
        try:
            with (self.output / "metrics.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step} | line) + "\n")
        except OSError as error:
            raise InputError(f"{self.output}/metrics.jsonl cannot be written: {error.strerror}") from error
        for name, value in (line | line.get("validation", {})).items():
            if self._board and name != "validation":
                self._board.add_scalar(f"validation/{name}" if "validation" in line else name, value, step)


def _tensorboard(output: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise InputError(
            "TensorBoard is not installed: run .venv/bin/pip install -e '.[watch]', or set step.tensorboard=false"
        ) from error
    return SummaryWriter(str(output), purge_step=step)


def _remove_later_lines(path: Path, progress: Progress) -> None:
    """Keeps the lines up to the present step; a line that was cut off is removed, too."""
    kept = []
    for text in path.read_text("utf-8", "replace").splitlines() if path.exists() else []:
        try:
            line = json.loads(text)
            repeated = line["step"] == progress.step and "validation" in line and progress.steps > 0
            if line["step"] <= progress.step and not repeated:
                kept.append(text + "\n")
        except (ValueError, KeyError, TypeError):
            continue
    with atomic_path(path) as part:
        part.write_text("".join(kept), "utf-8")


def _draw_maps(tagger: TagClassifier, batch: TrainingBatch) -> Image.Image:
    """The batch's first photo, with the maps of its first tags to its right."""
    image = batch.images[:1]
    tags = batch.columns[batch.rows == 0][:MAPS].tolist()
    was_training = tagger.training
    prepared = tagger.preprocessing(image.to(next(tagger.parameters()).device))
    maps = TopDown(tagger.eval(), tagger.target, warn=False).look(prepared).attend(tags, "c-mwp")[0] if tags else []
    tagger.train(was_training)
    pixels = image[0].permute(1, 2, 0).numpy()
    pictures = [Image.fromarray(pixels), *(heated(pixels, attention.float().cpu().numpy(), 1) for attention in maps)]
    sheet = Image.new("RGB", (sum(picture.width for picture in pictures), pixels.shape[0]))
    for i, (picture, name) in enumerate(zip(pictures, ["", *(tagger.vocabulary[tag] for tag in tags)], strict=True)):
        ImageDraw.Draw(picture).text(
            (5, 3), name, "white", ImageFont.load_default(15), stroke_width=1, stroke_fill="black"
        )
        sheet.paste(picture, (i * pixels.shape[1], 0))
    return sheet


def write_report(output: Path, progress: Progress, seconds: float) -> None:
    """Writes ``report.md``: the recipe, and the measurements of each validation.

    Args:
        output: folder of the training.
        progress: how far the training has come.
        seconds: duration of this run.

    Raises:
        InputError: the file cannot be written.
    """
    columns = list(progress.history[-1]) if progress.history else []
    rows = [
        " | ".join(f"{line.get(name, float('nan')):.3f}".rstrip("0").rstrip(".") for name in columns)
        for line in progress.history
    ]
    recipe = [f"- {name}: {value}" for name, value in json.loads(progress.identity).items()]
    lines = [
        "# Training of a tagger\n",
        f"{progress.step} steps; this run took {seconds:.0f} s; {progress.skipped} broken photos were skipped.\n",
        " | ".join(columns),
        " | ".join(["---"] * len(columns)),
        *rows,
        "\n## Recipe\n",
        *recipe,
    ]
    with atomic_path(output / "report.md") as part:
        part.write_text("\n".join(lines) + "\n", "utf-8")
