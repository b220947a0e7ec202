"""How far a training has come."""

from dataclasses import dataclass, field


@dataclass
class Progress:
    """How far a training has come. Checkpoints store it by these names.

    Attributes:
        identity: JSON of the recipe, the shards and the initial tagger; two runs with equal identities are parts of
            one training.
        step: the next step, from 0, counted over all epochs.
        loss: sum of the steps' losses since the last validation.
        steps: number of steps since the last validation.
        history: measurements of each validation.
        skipped: number of broken photos so far.
        epoch: of photos that are streamed: the epoch, from 0.
        epoch_steps: of photos that are streamed: the steps of this epoch so far.
        places: of photos that are streamed: the place of each rank, see ``training.streaming.StreamPlace``; empty at
            the beginning of an epoch.
    """

    identity: str
    step: int = 0
    loss: float = 0.0
    steps: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    skipped: int = 0
    epoch: int = 0
    epoch_steps: int = 0
    places: list[list[int]] = field(default_factory=list)

    def add(self, loss: float, skipped: int) -> None:
        """Records a step.

        Args:
            loss: loss of the step.
            skipped: number of its photos that were broken.
        """
        self.skipped += skipped
        self.step, self.loss, self.steps = self.step + 1, self.loss + loss, self.steps + 1

    def validated(self, measured: dict[str, float]) -> None:
        """Records a validation."""
        self.history.append(measured)
        self.loss, self.steps = 0.0, 0
