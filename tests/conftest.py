"""Fixtures that several tests share: photos from scikit-image, and the folder of real data."""

import os
from importlib.resources import files
from pathlib import Path

import pytest
from hypothesis import settings

# set before torch is imported: threads that spin while they wait make a busy machine many times slower
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# with several test processes each uses one core
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# the same examples in every run, and new ones with HYPOTHESIS_SEARCH=1; no deadline, because a busy machine is slow
settings.register_profile("repeatable", derandomize=True, deadline=None, max_examples=50)
settings.register_profile("search", deadline=None, max_examples=500)
settings.load_profile("search" if os.environ.get("HYPOTHESIS_SEARCH") else "repeatable")


@pytest.fixture(scope="session")
def astronaut() -> Path:
    return Path(str(files("skimage.data") / "astronaut.png"))


@pytest.fixture(scope="session")
def coffee() -> Path:
    return Path(str(files("skimage.data") / "coffee.png"))


@pytest.fixture(scope="session")
def chelsea() -> Path:
    return Path(str(files("skimage.data") / "chelsea.png"))


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real data; tests that need it are skipped if GROUNDING_DATA does not name one."""
    folder = Path(os.environ.get("GROUNDING_DATA", ""))
    if not os.environ.get("GROUNDING_DATA") or not folder.is_dir():
        pytest.skip("GROUNDING_DATA names no folder with flickr8k/, flickr30k_entities/, bvlc_googlenet/, ...")
    return folder


@pytest.fixture(scope="session")
def grounder():
    """GoogLeNet with the default settings, on small photos."""
    from grounding import Grounder  # imports PyTorch, which the environment above must precede

    return Grounder.load("googlenet", side=224)


@pytest.fixture(scope="session")
def tiny_grounder(tmp_path_factory):
    """A tagger of one convolution and few proposals, for tests of files, not of what is found."""
    from made_shards import tiny_tagger

    from grounding import Grounder
    from proposals import BoxProposer

    tagger = tiny_tagger(
        tmp_path_factory.mktemp("tagger") / "tiny.safetensors", ("cup", "spoon", "dog", "plate", "table", "sky")
    )
    return Grounder.load(tagger, proposer=BoxProposer(50, 64), method="mwp", side=224)


@pytest.fixture(scope="session")
def page_grounder():
    """A grounder with the settings of the page."""
    from grounding import Grounder

    return Grounder.load("googlenet", method="c-mwp", side=300, gamma=0.4, prior=0, presence=0)


@pytest.fixture(scope="module")
def site(page_grounder):
    """A running server of the page."""
    from page_server import running

    with running(page_grounder) as site:
        yield site
