"""Checkpoints: where a training stands, each one safetensors file. Nothing is pickled.

Order, crops and dropout follow from seed and step alone, so that weights, momentum and a few numbers are everything.
"""

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path

from torch import Tensor
from torch.optim import SGD
from torch.optim.lr_scheduler import ReduceLROnPlateau

from grounding.runtime.renamed import new_names
from grounding.tagger.tensors import read_tensors, write_tensors
from proposals.errors import InputError
from training.network import Network

FORMAT = "grounding-checkpoint-2"


@dataclass
class Progress:
    """How far a training has come.

    Attributes:
        identity: tells trainings apart, as JSON.
        step: the next step, from 0, over all epochs.
        loss, steps: the sum of the steps' losses since the last validation, and how many they are.
        history: what each validation measured.
        skipped: photos so far that were broken.
    """

    identity: str
    step: int = 0
    loss: float = 0.0
    steps: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    skipped: int = 0

    def add(self, loss: float, skipped: int) -> None:
        """A step is done, with this loss and so many broken photos."""
        self.skipped += skipped
        self.step, self.loss, self.steps = self.step + 1, self.loss + loss, self.steps + 1

    def validated(self, measured: dict[str, float]) -> None:
        """A validation is done."""
        self.history.append(measured)
        self.loss, self.steps = 0.0, 0


@dataclass
class Training:
    """All that changes in a training."""

    network: Network
    optimizer: SGD
    plateau: ReduceLROnPlateau
    progress: Progress


def save(folder: Path, training: Training, keep: int) -> None:
    """Writes ``step-NNNNNNNNN.safetensors`` aside and renames it, then removes all but the last ``keep``.

    Raises:
        InputError: the file cannot be written; the earlier ones stay.
    """
    tensors = {f"weights.{name}": tensor for name, tensor in training.network.tagger.state_dict().items()}
    if training.network.average is not None:
        tensors |= {f"average.{name}": tensor for name, tensor in training.network.average.state_dict().items()}
    for index, state in training.optimizer.state_dict()["state"].items():
        if state.get("momentum_buffer") is not None:
            tensors[f"momentum.{index}"] = state["momentum_buffer"]
    about = {
        "format": FORMAT,
        "progress": json.dumps(asdict(training.progress)),
        "rates": json.dumps([group["lr"] for group in training.optimizer.param_groups]),
        "plateau": json.dumps({name: getattr(training.plateau, name) for name in ("best", "num_bad_epochs")}),
    }
    for left in folder.glob(".step-*.part"):  # of a run that was killed
        left.unlink(missing_ok=True)
    path = path_of(folder, training.progress.step)
    write_tensors(path, tensors, about)
    for old in saved(folder)[:-keep]:
        old.unlink(missing_ok=True)


def path_of(folder: Path, step: int) -> Path:
    """Where the checkpoint of a step is."""
    return folder / f"step-{step:09d}.safetensors"


def saved(folder: Path) -> list[Path]:
    """The checkpoints of a folder, the last one last."""
    return sorted(folder.glob(f"step-{'[0-9]' * 9}.safetensors"))


def resume(path: Path, training: Training) -> None:
    """Sets everything to where the checkpoint left it.

    Raises:
        InputError: the file is no checkpoint, or one of another recipe or other shards.
    """
    try:
        about, tensors = read_tensors(path)
    except InputError as error:
        raise InputError(f"{error}: remove it, to go on from the one before or to start anew") from error
    try:
        if about.get("format") != FORMAT:
            raise KeyError("format")
        then = Progress(**json.loads(about["progress"]))
        then.identity = _with_new_names(then.identity)
        rates, plateau = json.loads(about["rates"]), json.loads(about["plateau"])
        if not math.isfinite(then.loss) or len(rates) != len(training.optimizer.param_groups):
            raise ValueError("progress")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} is no checkpoint of this version; move it away to start anew") from error
    if different := _difference(then.identity, training.progress.identity):
        raise InputError(f"{path} belongs to another training ({different}); set name= to keep both, or move it away")
    parts: dict[str, dict] = {"weights": {}, "average": {}, "momentum": {}}
    for name, tensor in tensors.items():
        kind, _, rest = name.partition(".")
        parts.setdefault(kind, {})[rest] = tensor
    training.network.tagger.set_weights(parts["weights"], path)
    try:
        if training.network.average is not None:
            training.network.average.load_state_dict(parts["average"])
        _set_rates(training.optimizer, rates, parts["momentum"])
    except (RuntimeError, KeyError, ValueError) as error:
        raise InputError(f"{path} is damaged ({str(error).splitlines()[0]}): remove it") from error
    vars(training.plateau).update(plateau)
    vars(training.progress).update(vars(then))


def _set_rates(optimizer: SGD, rates: list[float], momenta: dict[str, Tensor]) -> None:
    state = optimizer.state_dict()
    state["state"] = {int(index): {"momentum_buffer": tensor} for index, tensor in momenta.items()}
    for group, rate in zip(state["param_groups"], rates, strict=True):
        group["lr"] = rate
    optimizer.load_state_dict(state)


def _with_new_names(identity: str) -> str:
    """The identity of a checkpoint, with today's names of its settings."""
    renamed = new_names("train")
    return json.dumps({renamed.get(name, name): value for name, value in json.loads(identity).items()})


def _difference(theirs: str, ours: str) -> str:
    """What two identities, each a JSON object, differ in; "" where they are the same."""
    then, now = json.loads(theirs), json.loads(ours)
    names = [name for name in sorted(then.keys() | now) if then.get(name) != now.get(name)]
    return ", ".join(f"{name}: {then.get(name)}, now {now.get(name)}" for name in names)
