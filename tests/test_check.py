"""The step check says what a data set holds and what would be skipped."""

import json
from pathlib import Path

import pytest
from command_line import run_here
from made_crawl import photo, sample, write_crawl, write_tar

from grounding.runtime.ledger import Ledger, LedgerError
from grounding.steps.check import Survey, check
from proposals.errors import InputError, SkippedError
from training.survey import TrainingPhotos


@pytest.fixture
def root(tmp_path) -> Path:
    """Half of the photos of a table were copied."""
    (tmp_path / "photos").mkdir()
    for number in range(3):
        (tmp_path / "photos" / f"{number}.jpg").write_bytes(photo(number))
    (tmp_path / "photos" / "3.jpg").touch()
    rows = "".join(f"{number}.jpg,a red dog\n" for number in range(9))
    (tmp_path / "c.csv").write_text(f"image,caption\n{rows}9.jpg,\n")
    return tmp_path


def photos(root: Path, **settings) -> TrainingPhotos:
    return TrainingPhotos(str(root / "photos"), str(root / "c.csv"), **{"min_images": 2} | settings)


def test_a_data_set_of_which_half_was_copied(root, capsys):
    with pytest.raises(SkippedError, match=r"^10 samples: 3 kept, 5 missing, 1 empty, 1 without text; see .*skipped"):
        check(photos(root), str(root / "out"))
    lines = dict(line.split("  ", 1) for line in capsys.readouterr().out.splitlines())
    assert {name: value.strip() for name, value in lines.items()} == {
        "in": "10 samples: 3 kept, 5 missing, 1 empty, 1 without text",
        "empty": "3",
        "missing": "4, 5, 6, ...",
        "without text": "9",
        "source": f"{root / 'c.csv'}, 0.0 MB; photos in {root / 'photos'}",
        "captions": "3, 1.0 for each of 3 photos",
        "tags": "2 distinct, 2 of them in 2 photos or more: dog (3), red (3)",
        "opened": "3 photos at random: 3 kept",
    }
    written = json.loads((root / "out" / "check.json").read_text())
    assert written["skipped"] == {"missing": 5, "empty": 1, "without text": 1}
    assert len((root / "out" / "skipped.jsonl").read_text().splitlines()) == 7


def test_a_complete_data_set_says_so(root):
    (root / "c.csv").write_text("image,tags\n0.jpg,dog\n1.jpg,dog;cat\n2.jpg,red\n")
    survey = check(photos(root), str(root / "out"))
    assert survey.ledger.line() == "3 samples: 3 kept"
    assert survey.facts["tagged"] == "3 photos have tags, not captions"
    assert survey.facts["tags"] == "3 distinct, 1 of them in 2 photos or more: dog (2)"
    assert (
        check(photos(root, min_images=9), str(root / "out"))
        .facts["tags"]
        .endswith("lower step.min_images= of step=shards")
    )


def test_photos_that_would_be_skipped_are_found_by_opening_some(root):
    (root / "photos" / "1.jpg").write_bytes(photo(1)[:900])
    survey = photos(root).survey()
    assert survey.facts["opened"].startswith(
        "3 photos at random: 2 kept, 1 truncated or corrupt; the first: 1: image file"
    )
    assert survey.facts == photos(root).survey().facts
    assert photos(root, opened=1).survey().facts["opened"].startswith("1 photos at random")
    assert photos(root, limit=2).survey().ledger.line() == "2 samples: 2 kept"


def test_tars_that_are_cut_off_or_missing_are_named(tmp_path):
    write_crawl(tmp_path)
    (tmp_path / "00001.tar").unlink()
    survey = TrainingPhotos(str(tmp_path)).survey()
    assert survey.facts["numbers missing"] == "1, 00001.tar: is the copy complete?"
    assert survey.facts["cut off"] == "1 tars, 00004.tar: copy them again"
    assert survey.ledger.reasons["in the damaged part of a tar"] == 1 and survey.ledger.reasons["empty"] == 1


@pytest.mark.parametrize(
    "names", [["a.tar", "b.tar"], ["1.tar", "99999.tar"], ["00.tar", "01.tar"], ["x.tar"], ["2.tar"]]
)
def test_names_that_are_no_series_lack_nothing(tmp_path, names):
    for number, name in enumerate(names):
        write_tar(tmp_path / name, sample(number))
    assert "numbers missing" not in TrainingPhotos(str(tmp_path)).survey().facts


def test_nothing_that_can_be_used_is_an_error(root):
    for path in (root / "photos").iterdir():
        path.write_bytes(b"")
    with pytest.raises(
        InputError, match=r"none of 10 samples can be used \(5 missing, 4 empty, 1 without text\)"
    ) as error:
        check(photos(root), str(root / "out"))
    assert not isinstance(error.value, SkippedError)


class Annotated:
    def __init__(self, lose: bool = False):
        self.lose = lose

    def survey(self) -> Survey:
        ledger = Ledger("photos")
        for _ in ledger.reading(["1", "2"]):
            if not self.lose:
                ledger.keep()
        return Survey(ledger, {"objects": "3"})


def test_any_data_set_with_a_survey_can_be_checked(root, capsys):
    check(photos(root), str(root / "out"), Annotated())
    assert capsys.readouterr().out == "in       2 photos: 2 kept\nobjects  3\n"
    with pytest.raises(LedgerError):
        check(photos(root), str(root / "out"), Annotated(lose=True))


def test_the_command_line(root):
    given = [f"images={root / 'photos'}", f"captions={root / 'c.csv'}", f"hydra.run.dir={root / 'run'}"]
    done = run_here(root, "step=check", *given)
    assert done.returncode == 3 and done.stdout.startswith("in            10 samples: 3 kept, 5 missing")
    assert (
        done.stderr
        == f"grounding: 10 samples: 3 kept, 5 missing, 1 empty, 1 without text; see {root}/run/skipped.jsonl\n"
    )
