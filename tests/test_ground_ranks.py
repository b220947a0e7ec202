"""``step=ground`` by several processes, one of which is killed: the output is that of one process."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from faulty_server import serving
from made_tars import crawl

from grounding import Grounder
from grounding.shards.addresses import find_shards
from grounding.shards.fetching import FetchOptions
from grounding.steps.ground_shards import ShardOptions, ground_shards
from proposals import BoxProposer
from proposals.errors import SkippedError

PHRASES = ["a cup"]
CHILD = """
import sys
from grounding import Grounder
from grounding.shards.addresses import find_shards
from grounding.steps.ground_shards import ShardOptions, ground_shards
from proposals import BoxProposer
grounder = Grounder.load(proposer=BoxProposer(), method="mwp", side=224)
print("ready", flush=True)
sys.stdin.readline()
ground_shards(grounder, find_shards(sys.argv[1]), ["a cup"], sys.argv[2], options=ShardOptions(workers=0, lease=60))
"""


@pytest.fixture(scope="module")
def grounder() -> Grounder:
    return Grounder.load(proposer=BoxProposer(), method="mwp", side=224)


def answers(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*-*.json*"))}


def start(rank, source, output) -> subprocess.Popen:
    ranks = {"RANK": str(rank), "WORLD_SIZE": "4", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", CHILD, str(source), str(output)]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    process = subprocess.Popen(command, env=os.environ | ranks, text=True, **pipes)
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.slow
def test_four_ranks_of_which_one_is_killed(grounder, tmp_path):
    crawl(tmp_path / "crawl", 5, 6)
    ground_shards(
        grounder, find_shards(str(tmp_path / "crawl")), PHRASES, tmp_path / "one", options=ShardOptions(workers=0)
    )
    (tmp_path / "four").mkdir()
    ranks = [start(rank, tmp_path / "crawl", tmp_path / "four") for rank in (3, 0, 1, 2)]
    killed, *others = ranks
    killed.stdin.write("\n")
    killed.stdin.flush()
    while not any(path.read_bytes().count(b"\n") > 2 for path in (tmp_path / "four").glob(".*.rows")):
        assert killed.poll() is None
        time.sleep(0.005)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    for process in others:
        process.stdin.write("\n")
        process.stdin.flush()
    outputs = [process.communicate(timeout=300) for process in others]
    assert [process.returncode for process in others] == [0, 0, 0], outputs
    assert sum("5 shards, 30 photos: 30 kept" in out for out, _ in outputs) == 1  # the first rank says it
    assert answers(tmp_path / "four") == answers(tmp_path / "one")
    assert not list((tmp_path / "four" / "leases").iterdir())
    assert not list((tmp_path / "four").glob(".*"))


def test_shards_from_a_server_with_faults(tiny_grounder, tmp_path):
    crawl(tmp_path / "crawl", 3, 2)
    local = find_shards(str(tmp_path / "crawl"))
    ground_shards(tiny_grounder, local, PHRASES, tmp_path / "local", options=ShardOptions(workers=0))
    fetch = FetchOptions(cache=str(tmp_path / "cache"), attempts=2, pause=0.01)
    faults = {"00000.tar": ["503"], "00001.tar": ["404"] * 2, "00002.tar": ["cut"]}
    with serving(tmp_path / "crawl", faults) as server:
        shards = find_shards(f"{server.url}/{{00000..00002}}.tar")
        with pytest.raises(SkippedError, match="2 shards, 5 photos: 4 kept, 1 unreadable shards"):
            ground_shards(
                tiny_grounder, shards, PHRASES, tmp_path / "web", options=ShardOptions(workers=0, fetch=fetch)
            )
        (skipped,) = map(json.loads, (tmp_path / "web" / "skipped.jsonl").read_text().splitlines())
        assert skipped["detail"] == f"{server.url}/00001.tar cannot be fetched: HTTP 404 Not Found"
        server.faults.clear()  # it is there now
        ground_shards(tiny_grounder, shards, PHRASES, tmp_path / "web", options=ShardOptions(workers=0, fetch=fetch))
        assert server.requests == {"00000.tar": 2, "00001.tar": 2, "00002.tar": 2}
    assert answers(tmp_path / "web") == answers(tmp_path / "local")
