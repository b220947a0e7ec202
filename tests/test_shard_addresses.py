"""Which tar shards ``image=`` names."""

import pytest
from made_tars import crawl, photo

from grounding.runtime import front_door
from grounding.shards.addresses import find_shards
from proposals.errors import InputError


def names(source) -> list[str]:
    return [shard.name for shard in find_shards(source)]


def test_files_folders_patterns_and_braces(tmp_path):
    tars = crawl(tmp_path / "crawl", 3, 1)
    assert names(str(tars[1])) == ["00001"]
    for source in (tmp_path / "crawl", tmp_path / "crawl" / "*.tar", tmp_path / "crawl" / "{00000..00002}.tar"):
        assert names(str(source)) == ["00000", "00001", "00002"]
    assert names([str(tars[2]), str(tars[0])]) == ["00002", "00000"]


def test_other_images_are_not_tars(tmp_path):
    crawl(tmp_path / "album", 1, 1)
    (tmp_path / "album" / "a.jpg").write_bytes(photo(0))
    for source in ("photo.jpg", "-", str(tmp_path / "album"), "http://host/a.jpg", "x" * 5000, str(tmp_path)):
        assert find_shards(source) is None
    assert find_shards(["a.jpg", "b.jpg"]) is None


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("list.txt", "# a comment\ncrawl/00000.tar\n\ncrawl/00001.tar\n"),
        ("list.csv", "photos,path\n3,crawl/00000.tar\n4,crawl/00001.tar\n"),
        ("list.tsv", "photos\tshard\n3\tcrawl/00000.tar\n4\tcrawl/00001.tar\n"),
        ("list.jsonl", '{"url": "crawl/00000.tar"}\n{"url": "crawl/00001.tar"}\n'),
    ],
)
def test_tables(tmp_path, name, text):
    crawl(tmp_path / "crawl", 2, 1)
    (tmp_path / name).write_text(text)
    assert names(str(tmp_path / name)) == ["00000", "00001"]


def test_names_are_the_shortest_that_differ():
    assert names("s3://b/{x,y}/{00..01}.tar") == ["x-00", "x-01", "y-00", "y-01"]
    assert names("http://host/a.tar?key=1") == ["a"]
    assert names("pipe:aws s3 cp s3://b/{0..1}.tar -") == ["0", "1"]
    assert names(["pipe:make-a-tar", "pipe:make-another"]) == ["shard-000000", "shard-000001"]


@pytest.mark.parametrize("source", ["crawl/{0..1}.tar", "s3://bucket/*.tar", "pipe:cat 0.tar"])
def test_the_command_line_takes_them(source):
    config = front_door.read([source, "a cup", "step.shards.workers=0"]).config
    assert (config["image"], config["phrases"], config["step"]["shards"]["workers"]) == (source, ["a cup"], 0)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("*.tar", "no tar file matches this pattern"),
        (["a.tar", "a.tar"], "a.tar is given twice: its photos would be answered twice"),
        (["a.tar", "b.jpg"], "b.jpg names no tar file, but other parts of image= do: ground them separately"),
        ("empty.txt", "lists no tar file: give one on each line, or a column path, url, shard, tar"),
        ("photos.txt", "photos.txt: .*a.jpg is no tar file: list tar files"),
        ("broken.jsonl", "broken.jsonl is not JSON lines"),
        ("latin.txt", "latin.txt cannot be read .*list one tar file on each line, in UTF-8"),
    ],
)
def test_messages(tmp_path, monkeypatch, source, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "photos.txt").write_text("a.jpg\n")
    (tmp_path / "broken.jsonl").write_text("{\n")
    (tmp_path / "latin.txt").write_bytes(b"\xe4.tar\n")
    with pytest.raises(InputError, match=message):
        find_shards(source)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            "s3://b/{0..3}-{.tar",
            r"cannot be read \(Unbalanced braces.*write braces as in \{00000",
        ),
        ("s3://b/{0..999999999999}.tar", "names more than 1,000,000 tars: write a shorter range"),
        (f"s3://b/{{0..{'9' * 5000}}}.tar", "names more than 1,000,000 tars"),
        ("s3://b/{0..99999999..2}.tar", "names more than 1,000,000 tars"),
        ("s3://b/{0..99999}-{0..99}.tar", "names more than 1,000,000 tars"),
    ],
)
def test_braces_that_name_no_tars_or_too_many(source, message):
    with pytest.raises(InputError, match=message) as error:
        find_shards(source)
    assert len(str(error.value)) < 700


def test_a_long_range_with_a_large_step_is_read():
    shards = find_shards("s3://b/{0..9999999..1000}.tar")
    assert len(shards) == 10_000 and shards[1].address == "s3://b/1000.tar"
