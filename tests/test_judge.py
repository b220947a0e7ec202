"""The step judge: several data sets beside each other, and the report of one of them."""

import json
import re

import numpy as np
import pytest
from entities_folder import write_entities
from everyday import write_coco

from eval.coco import Coco
from eval.flickr30k import Flickr30kEntities
from eval.judge import COLUMNS, judge, judge_table
from eval.report import report
from eval.sweep_table import write_sweep_table
from grounding import Grounder
from proposals.errors import InputError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    (root / "entities").mkdir()
    write_entities(root / "entities")
    write_coco(root / "coco")
    return root


@pytest.fixture(scope="module")
def judged(folder, grounder):
    data = {"entities": Flickr30kEntities(folder / "entities", "toy"), "coco": Coco(folder / "coco", "val")}
    return judge(grounder, data, str(folder / "out"))


def test_the_sets_are_beside_each_other(folder, judged):
    assert json.loads((folder / "out/judge.json").read_text()) == json.loads(json.dumps(judged))
    assert [(row["images"], row["phrases"]) for row in judged.values()] == [(1, 3), (3, 3)]
    for name in ("entities", "coco"):
        metrics = json.loads((folder / "out" / name / "metrics.json").read_text())
        assert judged[name]["own box"] is None or judged[name]["own box"]["value"] == metrics["own_box"]
        union = metrics["recall" if name == "entities" else "recall_union"]["5"]
        assert judged[name]["R@5 union"]["value"] == union
    assert judged["entities"]["AUC"] is None
    lines = judge_table(judged).splitlines()
    assert [line.split()[0] for line in lines[1:3]] == ["entities", "coco"]
    assert "any" in lines[0] and len(lines) == 4


def test_presence_has_a_column():
    row = dict.fromkeys(COLUMNS) | {"images": 1, "phrases": 2, "AUC": {"value": 0.8764, "interval": None}}
    assert "0.876" in judge_table({"coco": row})


def test_no_data_set_is_an_error(grounder, tmp_path):
    with pytest.raises(InputError, match="no data set to judge"):
        judge(grounder, {}, str(tmp_path))


def test_the_report_shows_categories(folder, judged, grounder, tmp_path):
    settings = (grounder, str(folder / "coco"), "val", str(folder / "out/coco"), str(tmp_path))
    page = report(*settings, photos=Coco(folder / "coco", "val")).read_text("utf-8")
    assert page.count("<figure") == 3 and "By class" in page and "any object" in page
    assert not re.search(r"(src|href)=\"(?!data:)", page)
    with pytest.raises(InputError, match="is an evaluation on COCO or VOC: set data=coco2017 or voc2012"):
        report(*settings)
    entities = (grounder, str(folder / "entities"), "toy", str(folder / "out/entities"), str(tmp_path))
    with pytest.raises(InputError, match="is an evaluation on Entities: set data=flickr30k_entities"):
        report(*entities, photos=Coco(folder / "coco", "val"))


def test_a_sweep_has_a_table_of_categories(folder, judged, tmp_path):
    (tmp_path / "0").mkdir()
    (tmp_path / "0/metrics.json").write_bytes((folder / "out/coco/metrics.json").read_bytes())
    head, _, row = write_sweep_table(tmp_path).splitlines()
    assert "R@1, any object" in head and row.count("|") == head.count("|")


def test_cache_changes_no_metric(folder, judged, grounder, tmp_path):
    data = {"coco": Coco(folder / "coco", "val")}
    for _ in range(2):
        assert judge(grounder, data, str(tmp_path / "out"), cache=str(tmp_path / "cache"))["coco"] == judged["coco"]
    assert list((tmp_path / "cache").glob("maps-*/1-*.npz"))


def test_the_judge_takes_the_settings_of_a_grounder(folder, tmp_path):
    rows = judge(
        Grounder.load(side=224, gamma=0.25), {"coco": Coco(folder / "coco", "val")}, str(tmp_path), limit=1, part="odd"
    )
    metrics = json.loads((tmp_path / "coco/metrics.json").read_text())
    assert rows["coco"]["images"] == 1 and metrics["gamma"] == 0.25 and metrics["data"]["part"] == "odd"
    assert np.isfinite(rows["coco"]["R@1 any"]["value"])
