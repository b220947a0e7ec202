"""The benchmarks: counts, times, memory, tables, and implementations that are missing or fail."""

import json
import mmap
import time

import pytest

from eval import (
    benchmark_attention,
    benchmark_folder,
    benchmark_grounding,
    benchmark_memory,
    benchmark_stages,
    detector_peers,
)
from eval.benchmark import benchmark
from eval.benchmark_table import table
from eval.connections import multiply_adds, winning_connections
from eval.networks import NETWORKS
from grounding import Grounder, TopDown
from grounding.runtime.timing import interleaved, peak_memory
from proposals.errors import InputError


def test_number_of_connections_of_googlenet_above_pool2():
    network = NETWORKS["bvlc_googlenet"]()
    topdown, image = TopDown(network.model, network.target, network.classifier), network.image((224, 224))
    # 1.10 of GoogLeNet's 1.58 billion multiply-adds lie above pool2
    assert multiply_adds(network.target, topdown, image) == 1_103_972_352
    assert 0.05 < winning_connections(topdown, image) / 1_103_972_352 < 0.12


def test_row_of_the_table_and_file(tmp_path, monkeypatch):
    def refuses(*_):
        raise ValueError("not this network\nat all")

    def absent(*_):
        raise ImportError

    monkeypatch.setattr(benchmark_attention, "PEERS", {"torchray": refuses, "zennit": absent})
    monkeypatch.setattr(benchmark_attention, "_memory", len)
    monkeypatch.setattr(benchmark_attention, "get_context", lambda _: _Here)
    measured = benchmark_attention.measure(["bvlc_googlenet"], [(224, 224)], [2], 1, ["torchray", "zennit"])
    record = benchmark(lambda: measured, str(tmp_path))
    assert json.loads((tmp_path / "benchmark.json").read_text()) == json.loads(json.dumps(record))
    row = record["rows"][0]
    assert row["torchray"] is row["zennit"] is row["torchray / ours"] is None
    assert row["ours"] == row["look"] + row["attend"]
    assert row["winners' floor"] < row["floor"]
    assert row["attend / autograd"] == row["attend"] / row["autograd"]


class _Here:
    """Replaces a pool of processes by this process."""

    Pool = staticmethod(lambda _: _Here())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def apply(self, _, arguments):
        return float(len(arguments))


def test_interleaved_measures_the_median():
    seconds = interleaved({"short": lambda: time.sleep(0.002), "long": lambda: time.sleep(0.02)}, 3)
    assert 0.002 <= seconds["short"] < seconds["long"]


def test_peak_memory_includes_freed_memory():
    def work():
        # directly from the system, because the allocator may have free memory
        with mmap.mmap(-1, 80 * 2**20) as block:
            for page in range(0, len(block), mmap.PAGESIZE):
                block[page] = 1
            time.sleep(0.02)

    assert 75 < peak_memory(work) < 200


def test_table_has_a_column_for_each_key_and_a_dash_for_none():
    rows = [{"network": "a", "seconds": 0.01234}, {"network": "bb", "seconds": None, "ratio": 12345.0}]
    assert table(rows).splitlines() == [
        "network  seconds  ratio",
        "      a   0.0123      -",
        "     bb        -  12345",
    ]


def test_unknown_network_is_an_error():
    with pytest.raises(InputError, match="unknown network 'lenet': choose one of bvlc_googlenet"):
        benchmark_attention.measure(["lenet"])


@pytest.mark.slow
def test_our_settings_beside_the_papers(monkeypatch):
    monkeypatch.setattr(benchmark_grounding, "PHRASES", ["a woman"])
    monkeypatch.setattr(benchmark_grounding, "OTHER_PHRASES", [])
    monkeypatch.setattr(benchmark_grounding, "interleaved", lambda works, _: {n: len(w()) for n, w in works.items()})
    monkeypatch.setattr(benchmark_stages, "interleaved", lambda works, rounds: dict.fromkeys(works, 0.5))
    monkeypatch.setattr(benchmark_stages, "matrix_rate", lambda: 1e9)
    measured, common = benchmark_grounding.measure(1, [])
    rows, stages = measured[:5], measured[5:]
    assert [stage["stage"] for stage in stages][::3] == ["plain forward pass", "look, attend and rank, 5 phrases",
                                                        "floor of the top-down pass, 5 phrases"]  # fmt: skip
    assert all(stage["forward passes"] == stage["seconds"] / 0.5 > 0 for stage in stages)
    assert [row["settings"] for row in rows][::4] == ["paper", "ours"]
    assert all(row["times paper's"] == 1 for row in rows) and common == {"phrases": ["a woman"]}
    with pytest.raises(InputError, match="rounds=0 must be a whole number"):
        benchmark_grounding.measure(0)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "outputs"), [("owlvit", (576, 2)), ("grounding_dino", (900, 256))])
def test_a_detector_is_asked_all_phrases(name, outputs, monkeypatch):
    monkeypatch.setattr(detector_peers, "DINO_SIDE", 256)
    answer = detector_peers.DETECTORS[name]((64, 48), ["a man", "a red car"])()
    assert answer.logits.shape == (1, *outputs) and answer.pred_boxes.shape == (1, outputs[0], 4)


def test_detectors_are_known_and_installed(monkeypatch, caplog):
    with pytest.raises(InputError, match="unknown detector 'yolo': choose one of owlvit, grounding_dino"):
        benchmark_grounding.measure(1, ["yolo"])
    monkeypatch.setattr(benchmark_grounding, "find_spec", lambda _: None)
    assert not benchmark_grounding._peers(["owlvit"]) and "pip install -e '.[bench]'" in caplog.text


def test_memory_of_many_photos(monkeypatch):
    class Grounds(_Here):
        def apply(self, work, arguments):
            assert (work, arguments) == (benchmark_memory.grow, (12,))
            sizes = [500.0, 900.0] + [1000.0] * 10 + [1010.0]
            return [benchmark_memory.ProcessMemory(size, size + 200) for size in sizes], 2.5

    monkeypatch.setattr(benchmark_memory, "get_context", lambda _: _HereWith(Grounds()))
    rows, common = benchmark_memory.measure(12, [1, 10, 12, 50])
    assert [row["photo"] for row in rows] == ["0", "1", "10", "12"]
    assert [row["MB"] for row in rows] == [500, 900, 1000, 1010]
    assert [row["MB at most"] for row in rows] == [700, 1100, 1200, 1210]
    assert [row["growth since the 10th"] for row in rows] == [None, None, 0, pytest.approx(0.01)]
    assert common["photos"] == 12
    with pytest.raises(InputError, match="photos=0 must be a whole number"):
        benchmark_memory.measure(0)


class _HereWith:
    """A context of processes with one pool."""

    def __init__(self, pool):
        self._pool = pool

    def Pool(self, _):  # noqa: N802
        return self._pool


@pytest.mark.slow
def test_a_folder_by_one_process_and_by_workers():
    rows, common = benchmark_folder.measure((0, 1), photos=3)
    assert common["photos"] == 3 and [row["workers"] for row in rows] == ["0", "1"]
    assert rows[0]["rate / the first row's"] == 1
    for row in rows:
        assert row["photos a second"] > 2 / row["seconds"] and row["MB of a process"] > 100
    with pytest.raises(InputError, match="photos=1 must be a whole number, 2 or more"):
        benchmark_folder.measure(photos=1)


def test_a_folder_in_batches(tiny_grounder, monkeypatch):
    devices = []
    monkeypatch.setattr(Grounder, "load", lambda device: devices.append(device) or tiny_grounder)
    rows, common = benchmark_folder.measure_batches((1, 3), photos=4)
    assert devices == ["cpu"] and common["device"] == "cpu" and [row["batch"] for row in rows] == ["1", "3"]
    assert rows[0]["rate / the first row's"] == 1
    for row in rows:
        assert row["photos a second"] > 3 / row["seconds"] and row["MB of a process"] > 100
    with pytest.raises(InputError, match="batch=0 must be a whole number, 1 or more"):
        benchmark_folder.measure_batches((0,), photos=4)
