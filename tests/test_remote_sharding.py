"""``step=shards`` from remote tars: the shards are those of the local tars, whatever fails on the way."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from faulty_server import serving
from made_crawl import SETTINGS, content, write_crawl

from grounding.shards.fetching import FetchOptions
from proposals.errors import InputError
from training.sharding import shard
from training.shards import Shards
from training.sources import find_source

TARS = "{00000..00004}.tar"


@pytest.fixture(scope="module")
def crawl(tmp_path_factory) -> Path:
    return write_crawl(tmp_path_factory.mktemp("crawl"))


@pytest.fixture(scope="module")
def made(crawl, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("local")
    shard(str(crawl), str(output), **SETTINGS)
    return output


@pytest.fixture
def fetch(tmp_path) -> FetchOptions:
    return FetchOptions(cache=str(tmp_path / "cache"), attempts=4, pause=0.01, timeout=0.5)


def files(output: Path) -> dict[str, bytes]:
    """The tars, the tags and what was skipped; the other files name the source."""
    return {name: data for name, data in content(output).items() if name.endswith((".tar", ".txt", ".jsonl"))}


@pytest.mark.parametrize("gigabytes", [0, 1])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_server_with_faults_gives_the_shards_of_the_local_tars(crawl, made, fetch, tmp_path, gigabytes, workers):
    faults = {"00000.tar": ["503", "slow"], "00001.tar": ["cut", "long"], "00002.tar": ["cut", "503"]}
    options = replace(fetch, gigabytes=gigabytes)
    with serving(crawl, faults) as server:
        shard(f"{server.url}/{TARS}", str(tmp_path / "web"), **SETTINGS | {"workers": workers}, fetch=options)
        times = {name: count - len(faults.get(name, [])) for name, count in server.requests.items()}
    assert times == dict.fromkeys(times, 1 if gigabytes else 2)  # without a cache each pass fetches each tar
    assert files(tmp_path / "web") == files(made)
    assert Shards(tmp_path / "web").stats == Shards(made).stats
    assert len(list((tmp_path / "cache").iterdir())) == (5 if gigabytes else 0)


def test_a_tar_that_cannot_be_fetched_ends_the_step_which_continues_later(crawl, made, fetch, tmp_path):
    with serving(crawl) as server:
        source, output, options = f"{server.url}/{TARS}", tmp_path / "web", replace(fetch, gigabytes=0)
        server.faults["00002.tar"] = ["503"] * 4
        with pytest.raises(InputError, match=r"00002\.tar cannot be fetched \(tried 4 times\): HTTP 503"):
            shard(source, str(output), **SETTINGS, fetch=options)
        server.faults["00003.tar"] = ["", "404"]  # in the second pass
        with pytest.raises(InputError, match=r"00003\.tar cannot be fetched: HTTP 404"):
            shard(source, str(output), **SETTINGS, fetch=options)
        server.requests.clear()
        shard(source, str(output), **SETTINGS, fetch=options)
        assert server.requests == {"00003.tar": 1, "00004.tar": 1}
    assert files(output) == files(made)


def test_a_command_and_a_list_of_tars(crawl, made, fetch, tmp_path):
    commands = [f"pipe:cat {crawl}/{number:05d}.tar" for number in range(3)]
    listed = "\n".join(["# the crawl", *commands, f"{crawl}/00003.tar", f"{crawl}/00004.tar"])
    (tmp_path / "tars.txt").write_text(listed)
    shard(str(tmp_path / "tars.txt"), str(tmp_path / "out"), **SETTINGS, fetch=fetch)
    assert files(tmp_path / "out") == files(made)


def test_a_pattern_of_local_tars_is_the_folder(crawl, made, tmp_path):
    shard(f"{crawl}/*.tar", str(tmp_path / "out"), **SETTINGS)
    assert content(tmp_path / "out") == content(made)


def test_other_addresses_are_another_source(crawl, fetch):
    one, other = (find_source(f"http://127.0.0.1:9/{name}.tar", fetch=fetch).identity() for name in "ab")
    assert one != other
    assert json.loads(json.dumps(one)) == one


def test_a_local_tar_beside_remote_ones_is_known_by_its_content(crawl, fetch, tmp_path):
    (tmp_path / "own.tar").write_bytes((crawl / "00000.tar").read_bytes())
    (tmp_path / "tars.txt").write_text(f"http://127.0.0.1:9/1.tar\n{tmp_path}/own.tar\n")
    one = find_source(tmp_path / "tars.txt", fetch=fetch).identity()
    (tmp_path / "own.tar").write_bytes((crawl / "00001.tar").read_bytes())
    assert find_source(tmp_path / "tars.txt", fetch=fetch).identity() != one


@pytest.mark.parametrize(
    ("images", "captions", "message"),
    [
        ("http://127.0.0.1:9/photos.zip", None, "names no tar file: give URLs that end with .tar"),
        ("http://127.0.0.1:9/1.tar", "table.csv", "captions=table.csv are of photos in a folder"),
        ("none-{0..3}.tar", None, "none-0.tar does not exist: give tar files"),
        ("none-*.tar", None, "no tar file matches this pattern"),
    ],
)
def test_what_cannot_be_read_is_said(fetch, tmp_path, images, captions, message):
    with pytest.raises(InputError, match=message):
        shard(images, str(tmp_path / "out"), captions, fetch=fetch)
    assert not (tmp_path / "out").exists()


def test_a_step_that_reads_local_tars_only_says_so():
    with pytest.raises(InputError, match=r"1\.tar is remote, and this step reads tars of this machine"):
        find_source("http://127.0.0.1:9/1.tar")
