"""The normal form of each ATen operation; see ``registry.py``."""

from grounding.attention.capture.forms import elementwise, norms, shapes, sums, weighted
from grounding.attention.capture.forms.registry import normal

__all__ = ["elementwise", "normal", "norms", "shapes", "sums", "weighted"]
