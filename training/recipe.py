"""The recipe: the settings of a training."""

from dataclasses import asdict, dataclass, fields

from grounding.runtime.renamed import new_names
from grounding.runtime.value_types import check_fields
from proposals.errors import InputError
from training.crops import Cropping

# These may change when a training is resumed. They do not change the weights, with two exceptions: another
# ``micro_batch`` changes their rounding, and ``validate_every`` decides when the learning rates can fall.
CHANGEABLE = ("epochs", "micro_batch", "workers", "validate_every", "save_minutes", "keep_checkpoints")
# Settings that earlier versions did not have.
ADDED = ("count_unknown_tags", "crop", "jpeg_quality", "pooling", "frozen")
MIN_CROP, MAX_CROP = 224, 1024  # pixels; the network has no position in less than 224
POOLING = 0.01, 100.0  # range of a pooling above 0; float32 is not exact enough beyond it


@dataclass(frozen=True)
class Recipe:
    """The settings of a training.

    The defaults trained the tagger ``googlenet``; ``experiment=stock6m`` is the recipe of the paper (Sec. 4.3).

    Attributes:
        epochs: passes over the training photos.
        batch: photos per step, over all ranks.
        micro_batch: photos that a rank processes at a time. A larger share of the batch is split into parts, whose
            gradients are added. None: the whole share.
        tags_per_image: use only the first N tags of a photo. None: all.
        count_unknown_tags: whether tags outside the vocabulary count among the first N, as in the paper. A photo
            without a known tag among the first N then counts as a photo without tags.
        crop: pixels of the side of a crop, for training and for validation. In crops larger than the paper's 224,
            small things have more pixels, and the network has several positions.
        crop_scale: smallest and largest share of a random crop of the photo's area, in (0, 1], for example (0.4, 1).
            None: crops with 7/8 of the side (224 of 256 pixels), as in the paper.
        jpeg_quality: lowest and highest JPEG quality, in 1..95, for example (30, 95): each crop is shrunk by a random
            factor, compressed and enlarged again. Without it a tagger learns the compression of each source of photos.
            None: crops stay as they are.
        pooling: how the scores of the positions of a crop become one score of each tag. 0: their mean. r > 0:
            log(mean(exp(r x))) / r, which is between the mean and the largest (Pinheiro and Collobert 2015). A crop of
            224 pixels has one position, and nothing to pool.
        frozen: name of a layer of the trunk, such as ``stage3`` of an EfficientNet-Lite: it and the layers before it do
            not learn. None: all layers learn.
        trunk_lr: learning rate of everything below the tag layer; 0 freezes it.
        tag_lr: learning rate of the tag layer.
        momentum: momentum of SGD.
        weight_decay: weight decay of SGD.
        lr_factor: in (0, 1], both learning rates are multiplied by this when a validation does not lower the loss
            (by 0.01 %). 1: never.
        distillation_weight: weight of the distillation loss, which keeps the tags that the initial tagger knows and
            the photos lack. 0: these tags are dropped.
        ema_decay: decay per step of the exponential moving average of the weights. The averaged weights are validated
            and published. 0: no average.
        precision: ``"float32"`` or ``"bfloat16"`` (autocast; the weights stay float32).
        compile: whether to use ``torch.compile``.
        validate_every: steps between two validations. None: one validation after each epoch.
        save_minutes: minutes between two checkpoints.
        keep_checkpoints: number of checkpoints to keep, the newest ones.
        workers: processes per rank that read photos. None: the number of cores minus one; 0: the rank itself reads.
        seed: seed of the order, crops, flips, dropout and the tag layer.
    """

    epochs: int = 4
    batch: int = 64
    micro_batch: int | None = None
    tags_per_image: int | None = None
    count_unknown_tags: bool = False
    crop: int = 224
    crop_scale: tuple[float, float] | None = None
    jpeg_quality: tuple[int, int] | None = None
    pooling: float = 0.0
    frozen: str | None = None
    trunk_lr: float = 0.0003
    tag_lr: float = 0.005
    momentum: float = 0.9
    weight_decay: float = 0.0005
    lr_factor: float = 0.3
    distillation_weight: float = 0.0
    ema_decay: float = 0.99
    precision: str = "float32"
    compile: bool = False
    validate_every: int | None = None
    save_minutes: float = 10
    keep_checkpoints: int = 2
    workers: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        check_fields(self, "step.")
        for name in ("epochs", "batch", "micro_batch", "tags_per_image", "validate_every", "keep_checkpoints"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise InputError(f"step.{name}={getattr(self, name)} must be 1 or more")
        for name in ("trunk_lr", "tag_lr", "weight_decay", "distillation_weight", "save_minutes", "workers", "seed"):
            if getattr(self, name) is not None and not getattr(self, name) >= 0:
                raise InputError(f"step.{name}={getattr(self, name)} must not be negative")
        for name in ("momentum", "ema_decay"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"step.{name}={getattr(self, name)} must be at least 0 and below 1")
        if self.pooling and not POOLING[0] <= self.pooling <= POOLING[1]:
            raise InputError(f"step.pooling={self.pooling} must be 0, or from {POOLING[0]} to {POOLING[1]:g}")
        if not MIN_CROP <= self.crop <= MAX_CROP:
            raise InputError(f"step.crop={self.crop} must be {MIN_CROP} to {MAX_CROP} pixels")
        self._check_scale()
        self._check_quality()
        if not 0 < self.lr_factor <= 1:
            raise InputError(f"step.lr_factor={self.lr_factor} must be above 0 and at most 1")
        if self.count_unknown_tags and self.tags_per_image is None:
            raise InputError("step.count_unknown_tags=true needs step.tags_per_image=, such as 5")
        if self.precision not in ("float32", "bfloat16"):
            raise InputError(f"step.precision={self.precision} is unknown: use float32 or bfloat16")

    def _check_scale(self) -> None:
        """Accepts a list, and numbers in order only."""
        if self.crop_scale is None:
            return
        scale = self.crop_scale
        if not 0 < scale[0] <= scale[1] <= 1:
            raise InputError(f"step.crop_scale={scale} must be two shares of the area in (0, 1], such as [0.4,1]")
        object.__setattr__(self, "crop_scale", (float(scale[0]), float(scale[1])))

    def _check_quality(self) -> None:
        quality = self.jpeg_quality
        if quality is None:
            return
        if not 1 <= quality[0] <= quality[1] <= 95:
            raise InputError(f"step.jpeg_quality={quality} must be two qualities in 1..95, such as [30,95]")
        object.__setattr__(self, "jpeg_quality", tuple(quality))

    @property
    def cropping(self) -> Cropping:
        """How the photos are cropped."""
        return Cropping(self.crop, self.crop_scale, self.jpeg_quality)

    def share(self, ranks: int) -> int:
        """The number of photos per step and rank.

        Args:
            ranks: number of ranks, >= 1.

        Returns:
            ``batch / ranks``.

        Raises:
            InputError: ``batch`` is not a multiple of ``ranks``.
        """
        if self.batch % ranks:
            raise InputError(f"step.batch={self.batch} photos cannot be split over {ranks} ranks: use a multiple")
        return self.batch // ranks

    def identity(self) -> dict[str, object]:
        """The settings that two runs must share for one to continue the other."""
        kept = {name: value for name, value in asdict(self).items() if name not in CHANGEABLE}
        for name in ADDED:
            if kept[name] == getattr(Recipe, name):  # the default
                del kept[name]  # so that trainings of earlier versions can be continued
        return kept

    @classmethod
    def of(cls, **settings: object) -> "Recipe":
        """Creates a recipe from settings by name.

        Args:
            **settings: fields of this class.

        Returns:
            The recipe; other fields have their defaults.

        Raises:
            InputError: a name is unknown, or a value is out of range.
        """
        renamed = new_names("train")
        for name in settings.keys() - {field.name for field in fields(cls)}:
            if name in renamed:
                raise InputError(f"{name} was renamed: use {renamed[name]}")
            raise InputError(f"step=train has no setting {name}: see training/recipe.py")
        return cls(**settings)
