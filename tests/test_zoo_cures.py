"""What a message says to do is done, word for word, and then the data set is read."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from zoo import CAPTIONS, Given, Member
from zoo_annotations import ANNOTATIONS
from zoo_tables import TABLES
from zoo_tars import TARS

from eval.voc import Voc
from proposals.errors import InputError
from training.sources import find_source

MEMBERS = {member.tool: member for member in (*TABLES, *TARS, *ANNOTATIONS)}


def read(given: Given) -> list[tuple[str, ...]]:
    """The captions of each photo, sorted."""
    samples = (sample for unit in find_source(given.path, given.second).units() for sample in unit.samples())
    return sorted(sample.text.captions for sample in samples if not sample.reason)


def message(given: Given) -> str:
    with pytest.raises(InputError) as caught:
        read(given)
    return str(caught.value)


def write(tool: str, folder: Path) -> tuple[Given, str]:
    """Writes a member that is refused, and returns its message."""
    member: Member = MEMBERS[tool]
    assert member.refused
    given = member.write(folder)
    return given, message(given)


def run(command: str, folder: Path) -> None:
    if shutil.which(command.split()[0]) is None:
        pytest.skip(f"{command.split()[0]} is not installed")
    subprocess.run(command, shell=True, cwd=folder, check=True)


@pytest.mark.parametrize("tool", ["Excel: CSV in the system's encoding", "Excel: Unicode text"])
def test_iconv(tmp_path, tool):
    _, said = write(tool, tmp_path)
    command = re.search(r"iconv -f \S+ -t UTF-8 \S+ > (\S+)", said)
    run(command[0], tmp_path)
    assert read(Given(tmp_path / command[1])) == sorted(CAPTIONS)


def test_iconv_of_a_name_with_spaces(tmp_path):
    given, _ = write("Excel: CSV in the system's encoding", tmp_path)
    path = given.path.rename(tmp_path / "my 'table'.csv")
    run(re.search(r"iconv .*", message(Given(path)))[0], tmp_path)
    assert read(Given(tmp_path / "utf8.csv")) == sorted(CAPTIONS)


@pytest.mark.parametrize("folder", ["data", "my data"])
def test_tar(tmp_path, folder):
    (tmp_path / folder).mkdir()
    (tmp_path / "SHARDS").mkdir()
    _, said = write("img2dataset: files", tmp_path / folder)
    run(re.search(r"tar -cf .*", said)[0], tmp_path)
    assert read(Given(tmp_path / "SHARDS")) == sorted(texts[:1] for texts in CAPTIONS)


def test_another_setting(tmp_path):
    _, said = write("Hugging Face imagefolder: the folder itself", tmp_path)
    path = re.search(r"give images=(\S+),", said)[1]
    assert read(Given(Path(path))) == sorted(texts[:1] for texts in CAPTIONS)


def test_gunzip(tmp_path):
    given = MEMBERS["img2dataset: WebDataset"].write(tmp_path)
    run("gzip 00000.tar", tmp_path)
    assert "00000.tar.gz is packed: unpack it first, a .tar.gz with gunzip" in message(given)
    run("gunzip 00000.tar.gz", tmp_path)
    assert read(given) == sorted(texts[:1] for texts in CAPTIONS)


def test_folders_of_voc(tmp_path):
    given = MEMBERS["Roboflow: PASCAL VOC, XML beside the photos"].write(tmp_path)
    with pytest.raises(InputError, match="move photos to JPEGImages, XML to Annotations, and list"):
        Voc(given.path, "train")
    for name, suffix in (("JPEGImages", "jpg"), ("Annotations", "xml")):
        (tmp_path / name).mkdir()
        for path in (tmp_path / "train").glob(f"*.{suffix}"):
            path.rename(tmp_path / name / path.name)
    (tmp_path / "ImageSets" / "Main").mkdir(parents=True)
    names = [path.stem for path in (tmp_path / "JPEGImages").iterdir()]
    (tmp_path / "ImageSets" / "Main" / "train.txt").write_text("\n".join(names), "utf-8")
    assert sum(len(photo.objects) for photo in Voc(tmp_path, "train")) == 3
