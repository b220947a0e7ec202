"""``step=train`` from an S3 server on this machine: the losses are those of the local training.

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
from made_shards import make_shards
from training_runs import RECIPE, losses, tiny_trainings

from grounding.shards.addresses import find_shards
from grounding.shards.fetching import FetchOptions
from proposals.errors import InputError
from training.order import WINDOW
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
