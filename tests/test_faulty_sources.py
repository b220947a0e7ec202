"""Faults of the data that the step shards must not pass over in silence."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest
from made_crawl import content, photo, write_tar

from proposals.errors import InputError
from training.sharding import shard
from training.shards import Shards
from training.thumbnails import HOLE, make_thumbnail

SETTINGS = {"min_images": 1, "held_out": 0.3, "workers": 0}


@pytest.fixture
def root(tmp_path) -> Path:
    """Twelve photos in ``photos``, and a table of them."""
    (tmp_path / "photos").mkdir()
    for number in range(12):
        (tmp_path / "photos" / f"{number}.jpg").write_bytes(photo(number))
    rows = [{"image": f"{number}.jpg", "caption": "a dog"} for number in range(12)]
    (tmp_path / "c.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def run(root: Path, images: str = "photos", captions: str = "c.jsonl", output: str = "out", **settings) -> dict:
    return shard(str(root / images), str(root / output), str(root / captions), **SETTINGS | settings)


def test_wrong_images_are_refused_and_the_corrected_run_works(root):
    (root / "wrong").mkdir()
    (root / "wrong" / "x.png").touch()
    with pytest.raises(InputError, match=r"none of 12 photos .* for 0\.jpg, 1\.jpg, 2\.jpg; found there: x\.png; give"):
        run(root, "wrong")
    stats = run(root)
    assert stats["samples"] == stats["train"] + stats["held_out"] == 12


def test_other_images_do_not_continue_the_shards(root):
    (root / "half").mkdir()
    (root / "half" / "0.jpg").write_bytes(photo(0))
    assert run(root, "half", held_out=0)["skipped"] == {"missing": 11}
    with pytest.raises(InputError, match=r"has shards of other photos or settings \(photos\)"):
        run(root, held_out=0)


def test_photos_that_arrive_later_are_added(root, caplog):
    for number in range(6):
        (root / "photos" / f"{number}.jpg").rename(root / f"{number}.jpg")
    assert run(root, images_per_shard=4)["skipped"] == {"missing": 6}
    assert caplog.messages[0] == (
        "4 of 4 photos that were looked up are missing: 0, 1, 2; is the copy complete? step=check lists all"
    )
    assert caplog.messages[1].startswith("12 samples: 6 kept, 6 missing; see ")
    before = {path.name: path.stat().st_mtime_ns for path in (root / "out").glob("*-000002.*")}
    for number in range(6):
        (root / f"{number}.jpg").rename(root / "photos" / f"{number}.jpg")
    assert run(root, images_per_shard=4)["skipped"] == {}
    assert {name: (root / "out" / name).stat().st_mtime_ns for name in before} == before
    run(root, images_per_shard=4, output="new")
    assert content(root / "out") == content(root / "new")


@pytest.mark.parametrize("wrong", [{"came": 99}, {"skipped": [[1]]}, {"kept": "x"}, {"came": None}])
def test_shards_whose_counts_are_damaged_are_made_again(root, wrong):
    run(root)
    made = content(root / "out")
    path = root / "out" / "train-000000.npz"
    arrays = dict(np.load(path))
    about = json.loads(arrays["about"].tobytes())
    arrays["about"] = np.frombuffer(json.dumps(about | {"ledger": about["ledger"] | wrong}).encode(), np.uint8)
    np.savez(path, **arrays)
    run(root)
    assert content(root / "out") == made


def test_photos_are_found_if_the_first_ones_are_missing(root):
    rows = [f"{number}.jpg,a dog\n" for number in (*range(100, 2100), *range(12))]
    (root / "c.csv").write_text("".join(["image,caption\n", *rows]))
    assert run(root, captions="c.csv")["skipped"] == {"missing": 2000}


def test_two_runs_give_the_same_bytes(root):
    (root / "photos" / "3.jpg").unlink()
    for output in ("one", "two"):
        run(root, output=output, workers=2 if output == "two" else 0)
    assert content(root / "one") == content(root / "two")


def test_if_no_photo_can_be_used_nothing_stays(root):
    (root / "out").mkdir()
    (root / "out" / "train-own.txt").touch()
    for number in range(12):
        (root / "photos" / f"{number}.jpg").write_bytes(b"no photo")
    with pytest.raises(
        InputError, match=r"none of 12 samples can be used \(12 broken\): .*first: 0: unknown format; give"
    ):
        run(root)
    assert {path.name for path in (root / "out").iterdir()} == {"skipped.jsonl", "train-own.txt"}
    for number in range(12):
        (root / "photos" / f"{number}.jpg").write_bytes(photo(number))
    assert run(root)["samples"] == 12


def test_a_json_array_is_not_read_as_plain_text(root):
    (root / "c.json").write_text(json.dumps([f"{number}.jpg" for number in range(12)]))
    with pytest.raises(InputError, match=r"c\.json is JSON without photos and texts: give COCO captions, or a list of"):
        run(root, captions="c.json")


def test_held_out_that_leaves_no_photo_is_named(root, caplog):
    with pytest.raises(
        InputError, match=r"held_out=0\.9999 leaves none of the 12 photos with a text for training: lower"
    ):
        run(root, held_out=0.9999)
    with caplog.at_level(logging.WARNING):
        run(root, held_out=0)
    assert caplog.messages == [
        "no photo is for validation, and step=train needs some: set another step.held_out= (now 0) and output"
    ]
    assert not Shards(root / "out").val


def test_a_tar_of_the_same_size_with_other_photos_is_another_source(root):
    for color in ("red", "tan"):
        write_tar(root / "tars" / "a.tar", {"1.jpg": photo(1), "1.txt": f"a {color} dog".encode()})
        if color == "red":
            shard(str(root / "tars"), str(root / "out"), **SETTINGS | {"held_out": 0})
    with pytest.raises(InputError, match=r"other photos or settings \(source\)"):
        shard(str(root / "tars"), str(root / "out"), **SETTINGS | {"held_out": 0})


def large() -> bytes:
    return photo(1, (900, 600), quality=95)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[: len(data) // 2] + bytes(len(data) - len(data) // 2),  # a copy that stopped
        lambda data: data[:-100] + bytes(100),
        lambda data: data[: 8 * HOLE] + bytes(2 * HOLE) + data[10 * HOLE :],  # a block that was lost
    ],
)
def test_a_photo_with_blocks_of_zeros_is_refused(damage):
    with pytest.raises(InputError, match="truncated or corrupt: blocks of zeros"):
        make_thumbnail(damage(large()))


@pytest.mark.parametrize("padding", [0, 1, 63, 5000])
def test_zeros_after_the_end_of_a_photo_are_no_damage(padding):
    assert make_thumbnail(large() + bytes(padding)).width == 200


def test_a_large_area_of_one_colour_is_no_damage():
    from io import BytesIO

    from PIL import Image

    for color in ("black", "white", "grey"):
        file = BytesIO()
        Image.new("RGB", (4000, 3000), color).save(file, "JPEG", optimize=True)
        assert make_thumbnail(file.getvalue()).height == 150
