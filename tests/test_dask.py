"""The task for a scheduler, and the recipe for Dask with two processes on this machine: the answers of one run."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from made_tars import crawl

from grounding import Grounder
from grounding.shards.addresses import InputShard, find_shards
from grounding.steps.ground_shards import ShardOptions, ground_shard, ground_shards
from proposals.errors import InputError

RECIPES = Path(__file__).parents[1] / "docs" / "recipes"
ONE_PROCESS = ShardOptions(workers=0)
needs_dask = pytest.mark.skipif(find_spec("distributed") is None, reason="needs Dask: pip install -e '.[dask]'")


def answers(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*-*.json*"))}


def recipe(*arguments: object, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(RECIPES.parents[1]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(RECIPES / "dask_shards.py"), *map(str, arguments)]
    return subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, timeout=900)


def test_a_task_for_each_tar_gives_the_answers_of_one_run(tiny_grounder, tmp_path):
    crawl(tmp_path / "crawl", 2, 2)
    shards = find_shards(str(tmp_path / "crawl"))
    ground_shards(tiny_grounder, shards, ["a cup"], tmp_path / "one", options=ONE_PROCESS)
    for shard in reversed(shards):
        for _ in range(2):  # a scheduler may run a task twice
            line = ground_shard(tiny_grounder, shard, ["a cup"], tmp_path / "tasks", options=ONE_PROCESS)
            assert line == "2 photos: 2 kept"
    assert answers(tmp_path / "tasks") == answers(tmp_path / "one")
    missing = InputShard("none", str(tmp_path / "none.tar"))
    with pytest.raises(InputError, match=r"none\.tar"):
        ground_shard(tiny_grounder, missing, ["a cup"], tmp_path / "tasks", options=ONE_PROCESS)


def test_tasks_in_threads_of_one_worker_do_not_mix_their_phrases(tiny_grounder, tmp_path):
    crawl(tmp_path / "crawl", 1, 3)
    (shard,) = find_shards(str(tmp_path / "crawl"))

    def task(phrase: str) -> set[str]:
        folder = tmp_path / phrase
        ground_shard(tiny_grounder, shard, [phrase], folder, options=ONE_PROCESS)
        lines = (folder / f"groundings-{shard.name}.jsonl").read_text().splitlines()
        return {each["phrase"] for line in lines for each in json.loads(line)["groundings"]}

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(task, ["a cup", "a dog"])) == [{"a cup"}, {"a dog"}]


@pytest.mark.slow
@needs_dask
def test_the_recipe(tmp_path):
    crawl(tmp_path / "crawl", 2, 1)
    ground_shards(
        Grounder.load(), find_shards(str(tmp_path / "crawl")), ["a cup"], tmp_path / "one", options=ONE_PROCESS
    )
    done = recipe("local", tmp_path / "crawl", tmp_path / "dask", "a cup", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[:2] == ["1 photos: 1 kept"] * 2
    assert "2 shards, 2 photos: 2 kept" in done.stdout
    assert answers(tmp_path / "dask") == answers(tmp_path / "one")


@pytest.mark.slow
@needs_dask
def test_the_recipe_refuses_a_source_without_tars_in_one_line(tmp_path):
    done = recipe("local", tmp_path / "none.jpg", tmp_path / "dask", "a cup", folder=tmp_path)
    assert done.returncode == 1 and done.stderr == f"{tmp_path / 'none.jpg'} names no tar file\n"


def test_the_cluster_of_the_recipe_fits_together():
    service, scheduler, worker = yaml.safe_load_all((RECIPES / "dask.yaml").read_text())
    assert service["spec"]["selector"] == scheduler["spec"]["template"]["metadata"]["labels"]
    pods = [each["spec"]["template"]["spec"] for each in (scheduler, worker)]
    address = f"tcp://{service['metadata']['name']}:{service['spec']['ports'][0]['port']}"
    assert pods[1]["containers"][0]["command"][:3] == ["dask", "worker", address]
    for each, pod in zip((scheduler, worker), pods, strict=True):
        assert each["spec"]["selector"]["matchLabels"] == each["spec"]["template"]["metadata"]["labels"]
        (mount,) = pod["containers"][0]["volumeMounts"]
        assert [mount["name"]] == [volume["name"] for volume in pod["volumes"]]
    assert address in (RECIPES / "dask_shards.py").read_text()
    assert f"kubectl exec -i deploy/{scheduler['metadata']['name']}" in (RECIPES.parent / "scale.md").read_text()
