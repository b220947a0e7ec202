"""``step=train``, ``shards`` and ``ground`` from an S3 server on this machine: the results are those of local tars.

pip install --target S3 'moto[server]' s3fs
PYTHONPATH=.:S3 python -m pytest -p no:hydra_pytest -m "" tests/test_streaming_s3.py    # two versions of antlr4
"""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from made_crawl import SETTINGS, content, write_crawl
from made_shards import make_shards, tiny_tagger
from training_runs import RECIPE, losses, tiny_trainings

from grounding import Grounder
from grounding.shards.addresses import find_shards
from grounding.shards.fetching import FetchOptions
from grounding.steps.ground_shards import ShardOptions, ground_shards
from proposals import BoxProposer
from proposals.errors import InputError, SkippedError
from training.order import WINDOW
from training.sharding import shard
from training.streaming import StreamOptions
from training.train import train

WHY = "is not installed; it needs another antlr4 than Hydra, so this test has a command of its own"
s3fs = pytest.importorskip("s3fs", reason=f"s3fs {WHY}")
pytest.importorskip("moto", reason=f"moto[server] {WHY}")
KEYS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}


def answers(port: int) -> bool:
    with socket.socket() as client:
        return not client.connect_ex(("127.0.0.1", port))


@pytest.fixture
def bucket(monkeypatch) -> Iterator[str]:
    """The URL of an empty bucket."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for name, value in (KEYS | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}).items():
        monkeypatch.setenv(name, value)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    server = subprocess.Popen([sys.executable, "-m", "moto.server", "-p", str(port)], env=environment)
    try:
        while not answers(port):
            assert server.poll() is None
            time.sleep(0.1)
        s3fs.S3FileSystem.clear_instance_cache()
        s3fs.S3FileSystem().mkdir("photos")
        yield "s3://photos"
    finally:
        server.kill()
        server.wait()
        s3fs.S3FileSystem.clear_instance_cache()


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # those of botocore and aiohttp
def test_a_training_from_a_bucket(bucket, tmp_path):
    shards = make_shards(tmp_path / "shards", train=3)
    for path in shards.iterdir():
        s3fs.S3FileSystem().put_file(str(path), f"photos/crawl/{path.name}")
    assert len(find_shards(f"{bucket}/crawl/train-*.tar")) == 3
    options = StreamOptions(buffer=WINDOW, fetch=FetchOptions(cache=str(tmp_path / "cache"), attempts=2, pause=0.01))
    with tiny_trainings(tmp_path):
        train(str(shards), str(tmp_path / "local"), epochs=2, **RECIPE)
        train(f"{bucket}/crawl", str(tmp_path / "streamed"), epochs=2, stream=options, **RECIPE)
        assert losses(tmp_path / "streamed") == losses(tmp_path / "local")
        s3fs.S3FileSystem().rm_file("photos/crawl/train-000001.tar")
        for path in Path(tmp_path / "cache").iterdir():
            path.unlink()
        with pytest.raises(InputError, match=r"train-000001\.tar cannot be fetched: there is no such object"):
            train(f"{bucket}/crawl", str(tmp_path / "missing"), epochs=1, stream=options, **RECIPE)


@pytest.fixture
def crawl(bucket, tmp_path) -> tuple[Path, str]:
    """The same tars in a folder and in the bucket, some of them damaged."""
    folder = write_crawl(tmp_path / "crawl")
    for path in folder.iterdir():
        s3fs.S3FileSystem().put_file(str(path), f"photos/raw/{path.name}")
    return folder, f"{bucket}/raw/" + "{00000..00004}.tar"


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # those of botocore and aiohttp
def test_shards_of_a_bucket(crawl, tmp_path):
    fetch = FetchOptions(cache=str(tmp_path / "cache"), attempts=2, pause=0.01)
    for source, output in zip(map(str, crawl), ("local", "remote"), strict=True):
        shard(source, str(tmp_path / output), **SETTINGS, fetch=fetch)
    local, remote = (content(tmp_path / output) for output in ("local", "remote"))
    for name, data in local.items():
        if name.endswith((".tar", ".txt", ".jsonl")):  # the other files name the source
            assert remote[name] == data


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_the_photos_of_a_bucket_are_grounded(crawl, tmp_path):
    grounder = Grounder.load(
        tiny_tagger(tmp_path / "tiny.safetensors", ("dog", "cat")), proposer=BoxProposer(20, 32), method="mwp", side=224
    )
    fetch = FetchOptions(cache=str(tmp_path / "cache"), attempts=2, pause=0.01)
    for source, output in zip(map(str, crawl), ("local", "remote"), strict=True):
        with pytest.raises(SkippedError, match="5 shards"):  # the crawl has photos that cannot be read
            ground_shards(
                grounder,
                find_shards(source),
                ["a dog"],
                tmp_path / output,
                options=ShardOptions(workers=0, fetch=fetch),
            )
    local, remote = (
        {path.name: path.read_bytes() for path in (tmp_path / output).glob("groundings-*.jsonl")}
        for output in ("local", "remote")
    )
    assert len(local) == 5 and local == remote
