"""Checkpoints: the state of a training, one safetensors file each. Nothing is pickled.

The order of the photos, their crops and the dropout depend only on the seed and the step. So a checkpoint needs no
state of a random generator.
"""

import json
import math
from dataclasses import asdict
from pathlib import Path

from torch import Tensor
from torch.optim import SGD

from grounding.runtime.renamed import new_names
from grounding.tagger.tensors import read_tensors, write_tensors
from proposals.errors import InputError
from training.distributed import RankGroup
from training.progress import Progress
from training.state import TrainingState

FORMAT = "grounding-checkpoint-2"


def save(folder: Path, state: TrainingState, keep: int) -> None:
    """Writes ``step-NNNNNNNNN.safetensors``, then removes all but the newest checkpoints.

    The file is written under another name and renamed when it is complete.

    Args:
        folder: folder of the checkpoints.
        state: the state to save.
        keep: number of checkpoints to keep, >= 1.

    Raises:
        InputError: the file cannot be written; the earlier checkpoints are kept.
    """
    tensors = {f"weights.{name}": tensor for name, tensor in state.model.tagger.state_dict().items()}
    if state.model.average is not None:
        tensors |= {f"average.{name}": tensor for name, tensor in state.model.average.state_dict().items()}
    for index, values in state.optimizer.state_dict()["state"].items():
        if values.get("momentum_buffer") is not None:
            tensors[f"momentum.{index}"] = values["momentum_buffer"]
    metadata = {
        "format": FORMAT,
        "progress": json.dumps(asdict(state.progress)),
        "rates": json.dumps([group["lr"] for group in state.optimizer.param_groups]),
        "plateau": json.dumps({name: getattr(state.scheduler, name) for name in ("best", "num_bad_epochs")}),
    }
    for incomplete in folder.glob(".step-*.part"):  # left by a run that was killed
        incomplete.unlink(missing_ok=True)
    write_tensors(checkpoint_path(folder, state.progress.step), tensors, metadata)
    for old in checkpoints(folder)[:-keep]:
        old.unlink(missing_ok=True)


def checkpoint_path(folder: Path, step: int) -> Path:
    """The path of the checkpoint of a step."""
    return folder / f"step-{step:09d}.safetensors"


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in a folder, oldest first."""
    return sorted(folder.glob(f"step-{'[0-9]' * 9}.safetensors"))


def last_checkpoint(folder: Path, ranks: RankGroup) -> Path | None:
    """The newest checkpoint that rank 0 sees, the same for all ranks; None if there is none."""
    found = checkpoints(folder) if ranks.rank == 0 else []
    step = ranks.max(int(found[-1].stem.removeprefix("step-")) if found else -1)
    return checkpoint_path(folder, int(step)) if step >= 0 else None


def resume(path: Path, state: TrainingState) -> None:
    """Restores the state that a checkpoint holds.

    Args:
        path: the checkpoint.
        state: the initial state of the same training; it is changed.

    Raises:
        InputError: the file is not a checkpoint, is damaged, or belongs to a training with another recipe or other
            shards.
    """
    metadata, tensors = _read(path)
    try:
        progress, rates, plateau = _parse(metadata, len(state.optimizer.param_groups))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} is not a checkpoint of this version: move it away to start again") from error
    if different := _difference(progress.identity, state.progress.identity):
        raise InputError(
            f"{path} belongs to another training ({different}): set name= to keep both, or move the file away"
        )
    parts: dict[str, dict[str, Tensor]] = {"weights": {}, "average": {}, "momentum": {}}
    for name, tensor in tensors.items():
        kind, _, rest = name.partition(".")
        parts.setdefault(kind, {})[rest] = tensor
    state.model.tagger.set_weights(parts["weights"], path)
    try:
        if state.model.average is not None:
            state.model.average.load_state_dict(parts["average"])
        _restore_optimizer(state.optimizer, rates, parts["momentum"])
    except (RuntimeError, KeyError, ValueError) as error:
        raise InputError(f"{path} is damaged ({str(error).splitlines()[0]}): remove it") from error
    vars(state.scheduler).update(plateau)
    vars(state.progress).update(vars(progress))


def _read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    try:
        return read_tensors(path)
    except InputError as error:
        raise InputError(f"{error}: remove it to resume from the checkpoint before, or to start again") from error


def _parse(metadata: dict[str, str], groups: int) -> tuple[Progress, list[float], dict[str, float]]:
    """The progress, the learning rate of each parameter group, and the state of the scheduler."""
    if metadata.get("format") != FORMAT:
        raise ValueError("format")
    progress = Progress(**json.loads(metadata["progress"]))
    progress.identity = _with_new_names(progress.identity)
    rates, plateau = json.loads(metadata["rates"]), json.loads(metadata["plateau"])
    if not math.isfinite(progress.loss) or len(rates) != groups:
        raise ValueError("progress")
    return progress, rates, plateau


def _restore_optimizer(optimizer: SGD, rates: list[float], momenta: dict[str, Tensor]) -> None:
    state = optimizer.state_dict()
    state["state"] = {int(index): {"momentum_buffer": tensor} for index, tensor in momenta.items()}
    for group, rate in zip(state["param_groups"], rates, strict=True):
        group["lr"] = rate
    optimizer.load_state_dict(state)


def _with_new_names(identity: str) -> str:
    """The identity in a checkpoint, with the settings' present names."""
    renamed = new_names("train")
    return json.dumps({renamed.get(name, name): value for name, value in json.loads(identity).items()})


def _difference(theirs: str, ours: str) -> str:
    """The settings in which two identities differ; "" if they are equal."""
    then, now = json.loads(theirs), json.loads(ours)
    names = [name for name in sorted(then.keys() | now) if then.get(name) != now.get(name)]
    return ", ".join(f"{name}: {then.get(name)}, now {now.get(name)}" for name in names)
