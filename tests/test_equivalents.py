"""What a network computes decides its maps, and not how the network is written."""

import equivalent_activations  # noqa: F401
import equivalent_hooks  # noqa: F401
import equivalent_pools  # noqa: F401
import equivalent_shapes  # noqa: F401
import equivalent_weights  # noqa: F401
import pytest
import torch
import torch.distributed
from equivalent_models import MODELS, TARGETS
from equivalents import PAIRS, TARGET, assert_equal_maps, images, maps_of, networks, simple
from sweeps import sweep
from torch import nn

pytestmark = pytest.mark.filterwarnings("ignore:.*of the mass arrives")
# these are computed in float32, or have a gradient with constants of float32
SINGLE = ("single", "hardswish", "hardsigmoid")
ONE_IMAGE = {"mean_squeezed_of_one_image"}


@pytest.fixture(scope="module")
def expected():
    """The maps of the simple network."""
    return maps_of(simple(), images())


@pytest.mark.parametrize("name", sweep(PAIRS))
def test_an_equivalent_network_has_the_same_maps(name):
    written, plain = networks(name)
    batch = images(1 if name in ONE_IMAGE else 2)
    found = maps_of(written, batch)
    tolerance = 1e-6 if name.startswith(SINGLE) else 1e-9
    assert_equal_maps(found, maps_of(plain, batch), tolerance)
    with torch.no_grad():
        torch.testing.assert_close(found["logits"], written(batch), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", MODELS)
def test_what_is_around_a_network_does_not_change_its_maps(name, expected):
    assert_equal_maps(maps_of(MODELS[name](simple()), images(), target=TARGETS.get(name, TARGET)), expected)


def test_a_distributed_model_has_the_same_maps(tmp_path, expected):
    torch.distributed.init_process_group("gloo", f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        parallel = nn.parallel.DistributedDataParallel(simple())
        assert_equal_maps(maps_of(parallel, images()), expected)
    finally:
        torch.distributed.destroy_process_group()
