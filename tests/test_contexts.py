"""Where and how a look is called changes nothing, and a look changes nothing about the model or about PyTorch."""

import contextlib
import gc
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import equivalent_activations  # noqa: F401
import equivalent_hooks  # noqa: F401
import equivalent_pools  # noqa: F401
import equivalent_shapes  # noqa: F401
import equivalent_weights  # noqa: F401
import pytest
import torch
import torch.utils._python_dispatch
from equivalent_models import MODELS
from equivalents import CLASSIFIER, PAIRS, TAGS, TARGET, assert_equal_maps, images, maps_of, networks, simple
from sweeps import sweep
from untouched import assert_untouched, snapshot

from grounding import TopDown
from proposals.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore:.*of the mass arrives")
CONTEXTS = {
    "no_grad": torch.no_grad,
    "enable_grad": torch.enable_grad,
    "inference_mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "device": lambda: torch.device("cpu"),
    "anomaly_detection": lambda: torch.autograd.set_detect_anomaly(True),
}


@pytest.fixture(scope="module")
def expected():
    return maps_of(simple(), images())


@pytest.mark.parametrize("name", CONTEXTS)
@pytest.mark.filterwarnings("ignore:Anomaly Detection has been enabled")
def test_maps_are_the_same_in_every_context(name, expected):
    net = simple()
    before = snapshot(net)
    with CONTEXTS[name]():
        assert_equal_maps(maps_of(net, images()), expected)
    assert_untouched(net, before)


@pytest.mark.parametrize("inside", [False, True])
def test_a_topdown_of_one_context_serves_in_another(inside, expected):
    mode = torch.inference_mode if inside else contextlib.nullcontext
    other = contextlib.nullcontext if inside else torch.inference_mode
    with mode():
        topdown = TopDown(simple(), target=TARGET, classifier=CLASSIFIER)
        first = topdown.look(images())
    with other():
        assert_equal_maps(maps_of(topdown, images()), expected)
        assert_equal_maps({"mwp": first.attend(range(TAGS), "mwp")}, {"mwp": expected["mwp"]})
    with mode():
        assert_equal_maps(maps_of(topdown, images()), expected)


def test_what_the_user_has_set_is_as_before():
    settings = [
        torch.is_grad_enabled,
        torch.is_inference_mode_enabled,
        torch.get_default_dtype,
        lambda: torch.is_autocast_enabled("cpu"),
        torch.get_num_threads,
        torch.get_rng_state,
        torch.are_deterministic_algorithms_enabled,
        torch.utils._python_dispatch._get_current_dispatch_mode_stack,
    ]
    before = [setting() for setting in settings]
    maps_of(simple(), images())
    with pytest.raises(InputError):
        TopDown(simple(), target=TARGET, classifier=CLASSIFIER).look(images()[:, :1])
    for setting, was in zip(settings, before, strict=True):
        now = setting()
        assert torch.equal(now, was) if isinstance(was, torch.Tensor) else now == was


def test_maps_carry_no_gradient(expected):
    scene = TopDown(simple(), target=TARGET, classifier=CLASSIFIER).look(images().requires_grad_())
    for value in (scene.logits, scene.score_maps, scene.attend([0]), scene.attend([0], "grad")):
        assert not value.requires_grad
    assert_equal_maps({"mwp": scene.attend(range(TAGS), "mwp")}, {"mwp": expected["mwp"]})


LAYOUTS = {
    "channels_last": lambda x: x.to(memory_format=torch.channels_last),
    "transposed": lambda x: x.mT.contiguous().mT,
    "part_of_a_larger_one": lambda x: torch.nn.functional.pad(x, (3, 5, 1, 2, 0, 0, 1, 1))[1:-1, :, 1:-2, 3:-5],
    "parameter": torch.nn.Parameter,
    "of_inference_mode": torch.inference_mode()(lambda x: x.clone()),
    "read_only": lambda x: x.detach().requires_grad_(),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_layout_of_images_does_not_matter(name, expected):
    batch = LAYOUTS[name](images())
    before = batch.detach().clone()
    assert_equal_maps(maps_of(simple(), batch), expected)
    assert torch.equal(batch, before)


def test_each_image_has_its_own_maps_in_any_batch():
    topdown, batch = TopDown(simple(), target=TARGET, classifier=CLASSIFIER), images(5)
    together = maps_of(topdown, batch)
    for count in (1, 2, 3):
        part = maps_of(topdown, batch[-count:])
        assert_equal_maps(part, {name: value[-count:] for name, value in together.items()})


def test_one_topdown_serves_images_of_many_sizes():
    topdown = TopDown(simple(), target=TARGET, classifier=CLASSIFIER)
    for size in (32, 40, 17, 32, 8):
        assert_equal_maps(maps_of(topdown, images(size=size)), maps_of(simple(), images(size=size)))
    wide = images(size=48)[:, :, :20]
    assert_equal_maps(maps_of(topdown, wide), maps_of(simple(), wide))


@pytest.mark.parametrize("name", sweep(PAIRS, 16))
def test_any_network_serves_images_of_another_size_or_refuses_them(name):
    """Some blocks name the size 16 and cannot be given another one; others must not remember the first."""
    net, _ = networks(name)
    topdown, batch = TopDown(net, target=TARGET, classifier=CLASSIFIER), images(1, size=24)
    maps_of(topdown, images(1), ["mwp"])
    try:
        with torch.no_grad():
            net(batch)
    except (RuntimeError, AssertionError):
        with contextlib.suppress(InputError):  # what was captured may be more general than the code
            maps_of(topdown, batch, ["mwp"])
        return
    assert_equal_maps(maps_of(topdown, batch, ["mwp"]), maps_of(net, batch, ["mwp"]))


def test_threads_may_make_and_share_topdowns(expected):
    shared = TopDown(simple(), target=TARGET, classifier=CLASSIFIER)
    sizes = [32, 24, 40, 32, 24, 40]
    alone = {size: maps_of(simple(), images(size=size)) for size in set(sizes)}
    nets = [simple() for _ in sizes]
    barrier = threading.Barrier(len(sizes))

    def work(size, net):
        barrier.wait()
        return maps_of(shared, images(size=size)), maps_of(net, images(size=size))

    with ThreadPoolExecutor(len(sizes)) as pool:
        for size, found in zip(sizes, pool.map(work, sizes, nets), strict=True):
            for maps in found:
                assert_equal_maps(maps, alone[size])


def test_a_model_in_use_by_another_thread_is_not_disturbed():
    net, batch, stop, failures = simple(), images(), threading.Event(), []
    expected = net(batch)

    def use():
        while not stop.is_set():
            if not torch.equal(net(batch), expected) or net.training:
                failures.append("another output")

    thread = threading.Thread(target=use)
    thread.start()
    try:
        for size in (16, 24, 32):
            TopDown(net, target=TARGET, classifier=CLASSIFIER).look(images(size=size)).attend([0])
    finally:
        stop.set()
        thread.join()
    assert not failures


# it adds to its own list in every forward
UNTOUCHED = [name for name in MODELS if name != "features_are_listed"]


@pytest.mark.parametrize("name", UNTOUCHED)
def test_the_model_is_left_as_it_was(name):
    net = MODELS[name](simple())
    before = snapshot(net)
    with contextlib.suppress(InputError):
        maps_of(net, images())
    assert_untouched(net, before)


@pytest.mark.parametrize("name", sweep(PAIRS, 16))
def test_a_network_is_left_as_it_was(name):
    net, _ = networks(name)
    before = snapshot(net)
    with contextlib.suppress(InputError):
        maps_of(net, images())
    assert_untouched(net, before)


def test_a_model_in_training_keeps_every_flag():
    net = simple().train()
    net.stem.eval()
    before = snapshot(net)
    maps_of(net, images())
    assert_untouched(net, before)


def test_a_change_of_the_model_afterwards_does_not_change_a_topdown(expected):
    net = simple()
    topdown = TopDown(net, target=TARGET, classifier=CLASSIFIER)
    maps_of(topdown, images())
    net.block.conv.weight.data.mul_(-1)
    assert_equal_maps(maps_of(topdown, images()), expected)


def test_nothing_keeps_a_model_that_is_given_up():
    net = simple()
    topdown = TopDown(net, target=TARGET, classifier=CLASSIFIER)
    topdown.look(images()).attend([0])
    gone = weakref.ref(topdown)
    del topdown
    gc.collect()
    assert gone() is None
