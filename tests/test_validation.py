"""Average precision, compared with plain loops."""

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from training import validation
from training.validation import average_precisions


@settings(deadline=None)
@given(st.integers(1, 12), st.integers(1, 5), st.integers(1, 4), st.integers(0, 10**6))
def test_average_precision_is_the_mean_of_the_precisions_at_the_positives(photos, tags, enough, seed):
    rng = torch.Generator().manual_seed(seed)
    scores = torch.randint(0, 5, (photos, tags), generator=rng).float()
    truths = torch.rand(photos, tags, generator=rng) < 0.5
    before, validation.MIN_POSITIVES = validation.MIN_POSITIVES, enough
    try:
        found = average_precisions(scores, truths).tolist()
    finally:
        validation.MIN_POSITIVES = before
    expected = []
    for tag in range(tags):
        ranking = sorted(range(photos), key=lambda i: (-scores[i, tag], i))
        hits = [bool(truths[i, tag]) for i in ranking]
        if sum(hits) >= enough:
            precisions = [sum(hits[: n + 1]) / (n + 1) for n in range(photos) if hits[n]]
            expected.append(sum(precisions) / len(precisions))
    assert len(found) == len(expected)
    assert all(math.isclose(a, b) for a, b in zip(found, expected, strict=True))
