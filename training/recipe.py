"""Recipe: how a tagger is trained."""

from dataclasses import asdict, dataclass, fields

from proposals.errors import InputError

# what may change between two parts of one training: weights do not depend on it, but for the rounding in other parts of
# a batch (``most``), and for when the plateau is looked at (``validate``)
FREE = ("epochs", "most", "workers", "validate", "save_minutes", "keep")


@dataclass(frozen=True)
class Recipe:
    """By default what trained the embedded tagger (eval/RESULTS.md); ``experiment=stock6m`` is the paper's (Sec. 4.3).

    Attributes:
        epochs: passes over the photos.
        batch: photos a step, of all ranks together.
        most: photos that a rank works on at a time; its share of a batch in several parts, where that is larger. None:
            its whole share.
        first: so many tags of a photo count, its first ones; None: all.
        trunk_rate: learning rate of everything below the tag layer; 0 freezes it.
        tag_rate: learning rate of the tag layer.
        momentum, decay: of SGD.
        plateau: what the rates are multiplied by when a validation does not lower the loss (by 0.01 %); 1: never.
        inherit: the weight of the distillation that keeps the names alive which the network knew before; 0: it forgets
            those that are no tags.
        average: decay a step of the moving average of the weights, which is judged and published in their place; 0:
            none.
        precision: "float32" or "bfloat16" (autocast; the weights stay float32).
        compile: whether torch.compile works on the network first.
        validate: steps between two validations; None: at the end of each epoch.
        save_minutes: minutes between two checkpoints; keep: so many of the last checkpoints stay.
        workers: processes of each rank that read photos; None: as many as there are cores, but one; 0: none, the rank
            reads itself.
        seed: of order, crops, flips, dropout and the tag layer.
    """

    epochs: int = 4
    batch: int = 64
    most: int | None = None
    first: int | None = None
    trunk_rate: float = 0.0003
    tag_rate: float = 0.005
    momentum: float = 0.9
    decay: float = 0.0005
    plateau: float = 0.3
    inherit: float = 0.0
    average: float = 0.99
    precision: str = "float32"
    compile: bool = False
    validate: int | None = None
    save_minutes: float = 10
    keep: int = 2
    workers: int | None = None
    seed: int = 0

    def __post_init__(self):
        for name in ("epochs", "batch", "most", "first", "validate", "keep"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise InputError(f"step.{name}={getattr(self, name)} must be 1 or more")
        for name in ("trunk_rate", "tag_rate", "decay", "inherit", "save_minutes", "workers", "seed"):
            if getattr(self, name) is not None and not getattr(self, name) >= 0:
                raise InputError(f"step.{name}={getattr(self, name)} must not be negative")
        for name in ("momentum", "average"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"step.{name}={getattr(self, name)} must be in 0..1, and below 1")
        if not 0 < self.plateau <= 1:
            raise InputError(f"step.plateau={self.plateau} must be above 0, and 1 at most")
        if self.precision not in ("float32", "bfloat16"):
            raise InputError(f"step.precision={self.precision}: choose float32 or bfloat16")

    def share(self, ranks: int) -> int:
        """How many photos of a step each of so many ranks has.

        Raises:
            InputError: they do not come out even.
        """
        if self.batch % ranks:
            raise InputError(f"step.batch={self.batch} photos cannot be shared by {ranks} ranks: choose a multiple")
        return self.batch // ranks

    def identity(self) -> dict:
        """What two runs must have in common for one to go on where the other stopped."""
        return {name: value for name, value in asdict(self).items() if name not in FREE}

    @classmethod
    def of(cls, **settings: object) -> "Recipe":
        """A recipe of settings by name.

        Raises:
            InputError: an unknown name, or a value out of its range.
        """
        unknown = settings.keys() - {field.name for field in fields(cls)}
        if unknown:
            raise InputError(f"a recipe has no {', '.join(sorted(unknown))}; see training/recipe.py")
        return cls(**settings)
