"""Several images in one forward pass and one top-down pass, as on a GPU: the maps of one image at a time.

``TopDown.together`` chooses this form; here it is set on the CPU.
"""

import pytest
import torch
from torch import Tensor, nn

from grounding import TopDown
from grounding.attention.mass import LostMassWarning
from grounding.attention.methods import METHODS
from proposals.errors import InputError

TAGS = 7
FORMS = pytest.mark.parametrize("together", [False, True])


def network(seed: int = 0) -> nn.Sequential:
    """A network with a pool, a batch norm, several positions of the classifier, an average for CAM."""
    torch.manual_seed(seed)
    below = [nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    above = [nn.Conv2d(6, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AvgPool2d(4, 1), nn.Dropout(0.5)]
    net = nn.Sequential(*below, *above, nn.Conv2d(8, TAGS, 1))
    net[4].running_mean.normal_(0, 0.3)
    return net.double().eval()


def images(count: int = 3) -> Tensor:
    return torch.randn(count, 3, 16, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def signals(*words: int) -> list[Tensor]:
    """Signals of some words for each image; each word has one tag or three."""
    torch.manual_seed(2)
    rows = [torch.rand(count, TAGS, dtype=torch.float64) for count in words]
    for own in rows:
        own[:, 3:] *= torch.rand(len(own), 1) > 0.5
        own[:, 0] = 0
    return rows


def topdown(together: bool, **settings) -> TopDown:
    prepared = TopDown(network(), "2", "8", **settings)
    assert not prepared.together  # the default on a CPU
    prepared.together, prepared.warned = together, True
    return prepared


def assert_same(ours: Tensor, expected: Tensor):
    torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-12 * float(expected.abs().max()) + 1e-14)


@FORMS
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("chunk", [None, 4])
def test_each_image_may_have_signals_of_its_own(method, together, chunk):
    """Images with fewer words are filled up with zeros, also an image without any word."""
    prepared, batch, own = topdown(together, chunk=chunk), images(4), signals(3, 1, 0, 5)
    padded = nn.utils.rnn.pad_sequence(own, batch_first=True)
    if METHODS[method].target is not None:
        prepared._target = None  # the method's own
    seen = prepared.look(batch, method)
    maps = seen.attend(padded, method)
    assert maps.shape[:2] == (4, 5)
    for image, wanted, found in zip(batch, own, maps, strict=True):
        alone = prepared.look(image[None], method)
        if len(wanted):
            assert_same(found[: len(wanted)], alone.attend(wanted, method)[0])
            assert found[: len(wanted)].any()
        assert not found[len(wanted) :].any()


@FORMS
def test_the_scores_of_images_together_are_those_of_one_at_a_time(together):
    prepared, batch = topdown(together), images()
    seen, alone = prepared.look(batch), [prepared.look(image[None]) for image in batch]
    assert_same(seen.score_maps, torch.cat([one.score_maps for one in alone]))
    assert_same(seen.logits, torch.cat([one.logits for one in alone]))
    assert len(seen.forward(METHODS["c-mwp"])) == (1 if together else 3)


@FORMS
def test_the_same_signals_for_all_images_are_one_form_of_three(together):
    seen = topdown(together).look(images())
    same = torch.eye(TAGS, dtype=torch.float64)[[4, 1]]
    expected = seen.attend([4, 1])
    assert_same(seen.attend(same), expected)
    assert_same(seen.attend(same.expand(3, -1, -1)), expected)


@FORMS
def test_unit_and_dual_of_images_together_serve_both_contrasts(together):
    prepared = topdown(together)
    seen, own = prepared.look(images()), torch.stack(signals(2, 2, 2))
    run, passes = prepared.passes, []

    def counted(work, jobs, lanes=1):
        passes.extend(jobs)
        return run(work, jobs, lanes)

    prepared.passes = counted
    for method in ("c-mwp-partial", "c-mwp"):
        seen.attend(own, method)
    assert len(passes) == (1 if together else 3)
    seen.attend(own.flip(0), "c-mwp")  # of other images: not answered from what is kept
    assert len(passes) == (2 if together else 6)


@FORMS
def test_the_mass_of_each_image_is_that_of_its_own_signals(together):
    prepared, batch, own = topdown(together), images(), torch.stack(signals(2, 2, 2))
    kept = prepared.look(batch).kept(own)
    for number in range(3):
        alone = prepared.look(batch[number : number + 1]).kept(own[number])
        assert_same(kept.share[number], alone.share[0])


@FORMS
@pytest.mark.parametrize("method", ["c-mwp", "c-mwp-partial"])
def test_lost_mass_is_that_of_the_first_image(together, method):
    """Not the sum over the images, which would hide the loss."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 1), nn.ReLU(), nn.Conv2d(4, 2, 1)).eval()
    net[2].bias.data.fill_(1)
    net[2].weight.data[:2] = -net[2].weight.data[:2].abs()  # these two are active without a winner
    net[4].weight.data.fill_(1)
    prepared = TopDown(net, "1", "4")
    prepared.together = together
    batch = torch.rand(8, 3, 6, 6, generator=torch.Generator().manual_seed(3))
    share = float(prepared.look(batch).kept([0]).share[0, 0])
    assert 0.5 / 8 < share < 0.5
    with pytest.warns(LostMassWarning, match=f"{share:.0%} of the mass"):
        prepared.look(batch).attend([0], method)


@pytest.mark.parametrize("shape", [(2, 1, TAGS), (3, 1, TAGS + 1), (3, 0, TAGS), (1, 3, 1, TAGS)])
def test_signals_of_another_number_of_images_or_tags_are_refused(shape):
    with pytest.raises(InputError, match=r"finite \(W, 7\) matrix of real numbers, or \(3, W, 7\)|tags must be given"):
        topdown(True).look(images()).attend(torch.ones(shape, dtype=torch.float64))
