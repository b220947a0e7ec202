"""Region proposals: the regions of an image that may contain an object."""

from importlib import import_module
from typing import TYPE_CHECKING

from proposals.kernel_cache import ensure_kernel_cache

if TYPE_CHECKING:
    from proposals.boxes import Boxes, BoxProposer
    from proposals.errors import InputError
    from proposals.proposals import Proposals, Proposer
    from proposals.published import EdgeBoxesProposals, McgProposals
    from proposals.segments import SegmentProposer, Segments

__all__ = [
    "BoxProposer",
    "Boxes",
    "EdgeBoxesProposals",
    "InputError",
    "McgProposals",
    "Proposals",
    "Proposer",
    "SegmentProposer",
    "Segments",
]
HOMES = {
    "BoxProposer": "boxes",
    "Boxes": "boxes",
    "EdgeBoxesProposals": "published",
    "InputError": "errors",
    "McgProposals": "published",
    "Proposals": "proposals",
    "Proposer": "proposals",
    "SegmentProposer": "segments",
    "Segments": "segments",
}

ensure_kernel_cache()  # before any module imports numba


def __getattr__(name: str) -> object:
    # Names are imported when they are first used: numba and SciPy take half a second, which an error message on the
    # command line does not need
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"proposals.{HOMES[name]}"), name)
