"""Where a training stands, as one safetensors file: weights, momentum, and a few numbers. Nothing is pickled."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from safetensors.torch import save_file
from torch.optim import SGD
from torch.optim.lr_scheduler import ReduceLROnPlateau

from grounding.artefacts import written_aside
from grounding.tagger import TagClassifier, read_tensors
from proposals.errors import InputError

FORMAT = "grounding-checkpoint-1"


@dataclass
class Progress:
    """The epochs that are done and what each measured; ``recipe`` tells runs apart."""

    recipe: str
    history: list[dict[str, float]] = field(default_factory=list)

    @property
    def epoch(self) -> int:
        """The next epoch, from 0."""
        return len(self.history)


def save(path: Path, tagger: TagClassifier, optimizer: SGD, plateau: ReduceLROnPlateau, progress: Progress) -> None:
    """Writes the checkpoint aside and renames it.

    Raises:
        InputError: the file cannot be written.
    """
    tensors = {f"weights.{name}": tensor.contiguous() for name, tensor in tagger.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        if state["momentum_buffer"] is not None:
            tensors[f"momentum.{index}"] = state["momentum_buffer"].contiguous()
    about = {
        "format": FORMAT,
        "progress": json.dumps(asdict(progress)),
        "rates": json.dumps([group["lr"] for group in optimizer.param_groups]),
        "plateau": json.dumps({name: getattr(plateau, name) for name in ("best", "num_bad_epochs")}),
    }
    with written_aside(path) as aside:
        save_file(tensors, aside, about)


def resume(path: Path, tagger: TagClassifier, optimizer: SGD, plateau: ReduceLROnPlateau, progress: Progress) -> None:
    """Sets everything to where the checkpoint left it.

    Raises:
        InputError: the file is no checkpoint, or one of another recipe or vocabulary.
    """
    about, tensors = read_tensors(path)
    if about.get("format") != FORMAT:
        raise InputError(f"{path} is no checkpoint; move it away to start anew")
    then = Progress(**json.loads(about["progress"]))
    if then.recipe != progress.recipe:
        raise InputError(f"{path} belongs to another recipe ({then.recipe}); set name= to keep both, or move it away")
    weights = {name.removeprefix("weights."): t for name, t in tensors.items() if name.startswith("weights.")}
    tagger.take(weights, path)
    state = optimizer.state_dict()
    momenta = {name.removeprefix("momentum."): t for name, t in tensors.items() if name.startswith("momentum.")}
    state["state"] = {int(index): {"momentum_buffer": tensor} for index, tensor in momenta.items()}
    for group, rate in zip(state["param_groups"], json.loads(about["rates"]), strict=True):
        group["lr"] = rate
    optimizer.load_state_dict(state)
    vars(plateau).update(json.loads(about["plateau"]))
    progress.history[:] = then.history
