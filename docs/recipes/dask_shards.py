"""Grounds phrases in tars with Dask: one task for each tar.

    python dask_shards.py local 'crawl/{00000..00127}.tar' out 'a kite' 'a dog'
    python dask_shards.py tcp://scheduler:8786 's3://bucket/crawl/*.tar' /shared/out 'a kite' 'a dog'

``local`` starts two processes on this machine. This process and all workers must see the output folder.
"""

import sys

from dask.distributed import Client, LocalCluster, as_completed

from grounding import Grounder
from grounding.shards.addresses import InputShard, find_shards
from grounding.steps.ground_shards import ShardOptions, ground_shard, ground_shards
from proposals.errors import InputError


def answer(shard: InputShard, phrases: list[str], output: str) -> str:
    """The task: answers about one tar, in the process of the worker."""
    return ground_shard(Grounder.load(), shard, phrases, output, options=ShardOptions(workers=0))


def main(scheduler: str, source: str, output: str, phrases: list[str]) -> None:
    """Runs a task for each tar, and lists at the end what was skipped."""
    shards = find_shards(source)
    if shards is None:
        raise InputError(f"{source} names no tar file")
    cluster = LocalCluster(n_workers=2, threads_per_worker=1) if scheduler == "local" else scheduler
    with Client(cluster) as client:
        tasks = client.map(answer, shards, phrases=phrases, output=output, pure=False, retries=2)
        for task in as_completed(tasks):
            print(task.result() if task.status == "finished" else task.exception(), flush=True)
    # tars whose tasks failed are tried once more
    ground_shards(Grounder.load(), shards, phrases, output, options=ShardOptions(workers=0))


if __name__ == "__main__":
    if len(sys.argv) < 5:
        sys.exit(__doc__)
    try:
        main(*sys.argv[1:4], sys.argv[4:])
    except InputError as error:
        sys.exit(str(error))
