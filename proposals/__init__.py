"""Region proposals: the regions of an image that may contain an object."""

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
