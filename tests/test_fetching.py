"""Remote shards: a real server with faults, commands, object storage, and a cache of bounded size."""

import os
import socket
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
from faulty_server import serving
from made_tars import crawl

from grounding.shards.fetching import FetchOptions, ShardCache
from proposals.errors import InputError

DATA = bytes(range(256)) * 3000


def options(tmp_path, **changes) -> FetchOptions:
    return FetchOptions(**{"cache": str(tmp_path / "cache"), "pause": 0.01, "timeout": 1, "attempts": 3} | changes)


def read(cache: ShardCache, address: str) -> bytes:
    with cache.local(address) as path:
        return path.read_bytes()


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "a.tar").write_bytes(DATA)
    return tmp_path / "files"


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("faults", [[], ["503"], ["cut"], ["cut", "cut"], ["long"], ["slow"], ["503", "cut"]])
def test_faults_of_a_server_are_overcome(tmp_path, folder, faults, ranges):
    with serving(folder, {"a.tar": faults}, ranges) as server:
        assert read(ShardCache(options(tmp_path)), f"{server.url}/a.tar") == DATA
        assert server.requests["a.tar"] == len(faults) + 1
        if ranges and "cut" in faults:  # it continues where it was cut off
            assert server.sent["a.tar"] == len(DATA)


@pytest.mark.parametrize(
    ("faults", "requests", "message"),
    [
        (["503"] * 9, 3, r"a.tar cannot be fetched \(tried 3 times\): HTTP 503 Service Unavailable"),
        (["403"] * 9, 1, r"a.tar cannot be fetched: HTTP 403 Forbidden"),
        (["long"] * 9, 3, r"\(tried 3 times\): .*(bytes came instead of|IncompleteRead|416)"),
        (["slow"] * 9, 3, r"\(tried 3 times\): timed out"),
    ],
)
def test_faults_that_stay_are_named(tmp_path, folder, faults, requests, message):
    with serving(folder, {"a.tar": faults}) as server:
        with pytest.raises(InputError, match=message):
            read(ShardCache(options(tmp_path)), f"{server.url}/a.tar")
        assert server.requests["a.tar"] <= requests


def test_a_server_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match=r"cannot be fetched \(tried once\): .*refused"):
        read(ShardCache(options(tmp_path, attempts=1)), "http://127.0.0.1:9/a.tar")


def test_a_shard_is_fetched_once_and_the_cache_is_bounded(tmp_path, folder):
    (folder / "b.tar").write_bytes(DATA)
    cache = ShardCache(options(tmp_path, gigabytes=1.5 * len(DATA) / 1e9))
    with serving(folder) as server:
        for _ in range(2):
            assert read(cache, f"{server.url}/a.tar") == DATA
        assert server.requests["a.tar"] == 1
        time.sleep(0.02)
        with cache.local(f"{server.url}/b.tar"), cache.local(f"{server.url}/a.tar") as path:  # both are in use
            assert path.read_bytes() == DATA
        assert sum(kept.stat().st_size for kept in (tmp_path / "cache").iterdir()) == len(DATA)


def test_two_uses_of_a_shard_at_a_time(tmp_path, folder):
    cache = ShardCache(options(tmp_path))
    with serving(folder) as server:
        address = f"{server.url}/a.tar"
        with cache.local(address) as first:
            with cache.local(address) as second:
                assert second != first
            assert first.read_bytes() == DATA


def test_processes_that_keep_and_remove_the_same_shard(tmp_path, folder, monkeypatch):
    (kept,) = _keep(tmp_path, folder)
    link, look = Path.hardlink_to, Path.stat

    def linked_after_another(path, target):
        if path == kept:
            path.write_bytes(DATA)
        return link(path, target)

    def removed_by_another(path, **how):
        if path == kept:
            path.unlink(missing_ok=True)
        return look(path, **how)

    kept.unlink()
    monkeypatch.setattr(Path, "hardlink_to", linked_after_another)
    assert _keep(tmp_path, folder) == [kept]
    kept.unlink()
    monkeypatch.setattr(Path, "stat", removed_by_another)
    assert _keep(tmp_path, folder) == []


def _keep(tmp_path: Path, folder: Path) -> list[Path]:
    """What is in the cache after one use of a shard."""
    assert read(ShardCache(options(tmp_path)), f"local://{folder}/a.tar") == DATA
    return list((tmp_path / "cache").iterdir())


def test_what_a_killed_process_left_is_removed(tmp_path, folder):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / f".x.{dead.pid}.use").touch()
    (tmp_path / "cache" / f".x.{os.getppid()}.use").touch()
    read(ShardCache(options(tmp_path)), f"pipe:cat {folder}/a.tar")
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [f".x.{os.getppid()}.use"]


def test_commands(tmp_path, folder):
    cache = ShardCache(options(tmp_path, attempts=2))
    assert read(cache, f"pipe:cat {folder}/a.tar") == DATA
    with pytest.raises(InputError, match=r"\(tried 2 times\): the command ended with 1: cat: .*b.tar: No such file"):
        read(cache, f"pipe:cat {folder}/b.tar")
    once = f"pipe:test -e {tmp_path}/twice || {{ touch {tmp_path}/twice; exit 3; }}; cat {folder}/a.tar"
    assert read(cache, once) == DATA


def test_storage_of_fsspec(tmp_path, folder):
    cache = ShardCache(options(tmp_path))
    assert read(cache, f"local://{folder}/a.tar") == DATA
    with pytest.raises(InputError, match="cannot be fetched: there is no such object"):
        read(cache, f"local://{folder}/b.tar")
    with pytest.raises(InputError, match="nonsense"):
        read(cache, "nonsense://bucket/a.tar")
    if find_spec("gcsfs") is None:
        with pytest.raises(InputError, match="gs:// needs another package: "):
            read(cache, "gs://bucket/a.tar")


def test_a_folder_that_cannot_be_written(tmp_path, folder):
    with pytest.raises(InputError, match=r"a\.tar cannot be written"):
        read(ShardCache(options(tmp_path, cache=str(folder / "a.tar"))), f"pipe:cat {folder}/a.tar")


def test_settings_out_of_range():
    with pytest.raises(InputError, match="attempts=0 must be 1 or more"):
        FetchOptions(attempts=0)


@pytest.mark.skipif(
    not all(map(find_spec, ("moto", "flask", "flask_cors", "s3fs"))), reason="needs moto[server] and s3fs"
)
def test_a_bucket(tmp_path, monkeypatch):
    import boto3

    from grounding.shards.addresses import find_shards

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for name, value in {"ACCESS_KEY_ID": "a", "SECRET_ACCESS_KEY": "b", "DEFAULT_REGION": "us-east-1"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    server = subprocess.Popen([sys.executable, "-m", "moto.server", "-p", str(port)], stderr=subprocess.DEVNULL)
    try:
        for _ in range(300):
            with socket.socket() as probe:
                if not probe.connect_ex(("127.0.0.1", port)):
                    break
            time.sleep(0.1)
        client = boto3.client("s3")
        client.create_bucket(Bucket="photos")
        for tar in crawl(tmp_path / "crawl", 2, 1):
            client.upload_file(str(tar), "photos", f"crawl/{tar.name}")
        shards = find_shards("s3://photos/crawl/*.tar")
        assert [shard.address for shard in shards] == [f"s3://photos/crawl/0000{i}.tar" for i in range(2)]
        cache = ShardCache(options(tmp_path))
        assert read(cache, shards[1].address) == (tmp_path / "crawl" / "00001.tar").read_bytes()
        with pytest.raises(InputError, match="there is no such object"):
            read(cache, "s3://photos/crawl/9.tar")
    finally:
        server.kill()
        server.wait()
