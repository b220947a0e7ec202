"""The figures of the paper's Tables 1, 2, 4 and 5, to print beside ours.

They are of another split (test, 1,000 photos), another tagger (18K tags, 6 million photos) and other proposals, so
compare the order of the methods rather than the values. Boxes of EdgeBoxes are not the boxes of our segments.
"""

from typing import NamedTuple

from eval.localization import TYPES

MCG, EDGE_BOXES = "MCG", "EdgeBoxes"


class PublishedRow(NamedTuple):
    """A row of Tables 4 and 5.

    Attributes:
        method: the name of the method in ``grounding.attention.methods``, or the paper's name of another system.
        proposals: ``MCG`` or ``EDGE_BOXES``.
        gamma: the optimised gamma; None for a system without one.
        every: R@1, R@5, R@10, mAP (Group), mAP (Phrase) of all phrases, in percent; None where the paper has no figure.
        small: the same of small phrases.
        by_type: R@5 of each of ``TYPES``, and the mean; empty where Table 5 has no row.
    """

    method: str
    proposals: str
    gamma: float | None
    every: tuple[float | None, ...]
    small: tuple[float | None, ...]
    by_type: tuple[float, ...]

    def recall_of(self, name: str) -> float | None:
        """R@5 of a type, or of "mean"; None without one."""
        return self.by_type[(*TYPES, "mean").index(name)] if self.by_type else None


PAPER = (
    PublishedRow("MCG_base", MCG, None, (10.7, 30.3, 40.5, 6.9, 16.8), (7.7, 22.4, 30.3, 4.5, 12.9),
                 (36.1, 30.1, 9.9, 50.8, 37.8, 26.5, 31.5, 19.1, 30.3)),
    PublishedRow("grad", MCG, 0.5, (24.3, 49.6, 59.7, 10.2, 28.8), (7.6, 32.9, 45.8, 3.8, 15.6),
                 (65.0, 32.4, 14.0, 70.1, 63.0, 40.7, 58.8, 32.5, 47.1)),
    PublishedRow("deconv", MCG, 0.5, (21.5, 48.4, 58.5, 10.0, 26.5), (11.3, 34.5, 46.0, 4.0, 16.7),
                 (65.4, 31.6, 18.7, 67.0, 64.0, 46.9, 53.6, 28.9, 47.0)),
    PublishedRow("lrp", MCG, 0.5, (24.3, 51.6, 61.3, 10.3, 28.9), (11.8, 36.8, 48.5, 4.3, 18.1),
                 (64.6, 37.7, 16.4, 62.9, 63.5, 45.7, 59.4, 37.9, 48.5)),
    PublishedRow("cam", MCG, 0.75, (21.7, 47.1, 56.1, 7.5, 26.0), (6.5, 27.9, 39.1, 2.0, 11.9),
                 (60.5, 28.4, 9.6, 57.0, 57.5, 37.0, 64.4, 32.7, 43.4)),
    PublishedRow("mwp", MCG, 0.5, (28.5, 52.7, 61.3, 11.8, 31.1), (15.0, 39.1, 49.8, 5.3, 20.3),
                 (68.6, 37.7, 16.1, 68.7, 66.3, 53.7, 54.5, 36.8, 50.3)),
    PublishedRow("c-mwp", MCG, 0.5, (26.2, 54.3, 62.2, 15.2, 30.8), (21.2, 43.4, 51.7, 10.8, 24.0),
                 (63.5, 47.6, 24.5, 69.9, 72.0, 54.3, 61.0, 40.2, 54.1)),
    PublishedRow("CCA*", EDGE_BOXES, None, (25.2, 50.3, 58.1, 12.8, 28.8), (21.8, 41.0, 47.3, 11.5, 23.6),
                 (63.6, 43.7, 22.9, 57.0, 69.0, 50.6, 45.0, 36.2, 48.5)),
    PublishedRow("CCA", EDGE_BOXES, None, (25.3, None, 59.7, 11.2, None), (None,) * 5, ()),
    PublishedRow("c-mwp", EDGE_BOXES, 0.25, (27.0, 49.9, 57.7, 13.2, 29.4), (18.4, 35.2, 43.9, 8.1, 20.0),
                 (62.8, 35.0, 17.6, 65.1, 73.5, 58.6, 53.2, 36.2, 50.3)),
)  # fmt: skip

# Table 1: the Pointing Game, (all, difficult) of each network on VOC07 test, then on COCO val; None: no figure
TABLE_1_NETWORKS = ("CNN-S", "VGG16", "GoogLeNet")
TABLE_1: dict[str, tuple[tuple[float, float] | None, ...]] = {
    "image centre": ((69.5, 42.6), (69.5, 42.6), (69.5, 42.6), (27.7, 19.4), (27.7, 19.4), (27.7, 19.4)),
    "grad": ((78.6, 59.8), (76.0, 56.8), (79.3, 61.4), (38.7, 30.1), (37.1, 30.7), (42.6, 36.3)),
    "deconv": ((73.1, 45.9), (75.5, 52.8), (74.3, 49.4), (36.4, 28.4), (38.6, 30.8), (35.7, 27.9)),
    "lrp": ((68.1, 41.3), None, (72.8, 50.2), (32.5, 24.0), None, (40.2, 32.7)),
    "cam": (None, None, (80.8, 61.9), None, None, (41.6, 35.0)),
    "mwp": ((73.7, 52.9), (76.9, 55.1), (79.3, 60.4), (35.0, 27.7), (39.5, 32.5), (43.6, 37.1)),
    "c-mwp": ((78.7, 61.7), (80.0, 66.8), (85.1, 72.3), (43.0, 37.0), (49.6, 44.2), (53.8, 48.3)),
}

# Table 2: the Pointing Game on VOC07's difficult set, GoogLeNet
C_GRAD = "c-grad"  # its map is zero; the paper has "N.A."
TABLE_2 = {
    "c-mwp": 70.6,
    "c-mwp-postnorm": 58.1,
    "c-mwp-nonorm": 41.6,
    "c-deconv": 67.7,
    "deconv": 49.4,
    "c-cam": 61.9,
    "cam": 61.9,
}

# by the class of a proposer: how tables call its proposals, and the paper's proposals that stand beside them
PROPOSALS = {
    "SegmentProposer": ("our segments", MCG),
    "BoxProposer": ("boxes of our segments", None),
    "McgProposals": ("MCG", MCG),
    "EdgeBoxesProposals": ("published EdgeBoxes", EDGE_BOXES),
    "EdgeBoxes": ("OpenCV's EdgeBoxes", EDGE_BOXES),
}


def proposals_name(proposer: str) -> str:
    """How tables call the proposals of a proposer.

    Args:
        proposer: the name of its class.
    """
    return PROPOSALS.get(proposer, (proposer, None))[0]


def paper_row(method: str, proposer: str) -> PublishedRow | None:
    """The paper's row to print beside one of ours; None if the paper has none.

    Args:
        method: the name of the method.
        proposer: the name of the proposer's class.
    """
    beside = PROPOSALS.get(proposer, (proposer, None))[1]
    return next((row for row in PAPER if (row.method, row.proposals) == (method, beside)), None)
