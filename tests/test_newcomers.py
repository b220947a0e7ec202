"""Command lines and calls as people type them who have not read the documentation.

Each is answered as intended, or refused in one line that says what to do, with exit code 2.
"""

import fractions
import sys
from pathlib import Path

import numpy as np
import pytest
from docs_world import small_tagger
from made_shards import jpeg

from grounding import Grounder
from grounding.__main__ import main
from grounding.runtime.terminal import columns, in_one_line
from grounding.scene import GroundingScene
from grounding.settings import Settings
from proposals.errors import InputError

UNKNOWN = "the tagger has 14 words, such as cat, dog, cup; write in the language of these words"
# words, and what is printed: answers begin with a space, refusals do not
LINES = [
    (["photo.jpg", "a cat"], " a cat "),
    (["Ferien 2024 (Köln).JPG", "a cat"], " a cat "),
    (["фото кота.jpeg", "a cat", "a dog"], " a dog "),
    (["猫 😺.jpg", "a cat"], " a cat "),
    (["a\nb.jpg", "a cat"], " a cat "),
    (["photo", "a cat"], " a cat "),
    (["'it''s'.jpg", "a cat"], " a cat "),
    (["[ab].jpg", "a cat"], " a cat "),
    (["C:\\photo.jpg", "a cat"], " a cat "),
    (["./gamma=1.jpg", "a cat"], " a cat "),
    (["photo.jpg", "A CAT!!!"], " A CAT!!! "),
    (["photo.jpg", "a cat 😺"], " 😺"),
    (["photo.jpg", "a\ncat"], " a cat "),
    (["photo.jpg", "eine Katze", "a cat"], f" no word of 'eine Katze' is known: {UNKNOWN}"),
    (["photo.jpg", "une tasse de café"], f" no word of 'une tasse de café' is known: {UNKNOWN}"),
    (["photo.jpg", "una taza roja", "un perro"], " no word of 'una taza roja', 'un perro' is known"),
    (["photo.jpg", "красная кружка"], " no word of 'красная кружка' is known"),
    (["photo.jpg", "一只猫"], " no word of '一只猫' is known"),
    (["photo.jpg", "كوب أحمر"], " no word of 'كوب أحمر' is known"),
    (["photo.jpg", "😺"], " no word of '😺' is known"),
    (["photo.jpg", "the"], " no word of 'the' is known"),
    (["photo.jpg", "x" * 10_000], f" {'x' * 57}...  not groundable"),
    (["photo.jpg", *["eine Katze", "2", "3", "4", "5", "6", "7"]], " '4', '5' and 2 more is known"),
    (["album", "eine Katze", "a cat"], " no word of 'eine Katze' is known"),
    (["photo.jpg", "two.jpg", "--", "a cat"], " 2 files: 2 kept"),
    (["photo.jpg", "a cat", "gamma=.3"], " a cat "),
    (["photo.jpg", "E = mc2"], " no word of 'E = mc2' is known"),
    (["version"], " grounding "),
    (["photo.jpg", ""], "a phrase is empty"),
    (["photo.jpg", "T\udcfcr"], r"the phrase 'T\udcfcr' has bytes that are not UTF-8"),
    (["PHOTO.JPG", "a cat"], "PHOTO.JPG: no such image file; did you mean photo.jpg?"),
    (["photo.jpeg", "a cat"], "did you mean photo.jpg?"),
    (["album/1.JPG", "a cat"], "did you mean album/1.jpg?"),
    (["-dash.jpg", "a cat"], "-dash.jpg begins like an option: write ./-dash.jpg"),
    (["gamma=1.jpg", "a cat"], "gamma=1.jpg looks like a setting: write ./gamma=1.jpg"),
    (["video.mp4", "a cat"], "video.mp4 cannot be read as an image: give a JPEG, PNG, WebP or TIFF"),
    (["a cat", "photo.jpg", "two.jpg"], "the photos come first: grounding photo.jpg two.jpg -- 'a cat'"),
    (["a cat", "photo.jpg", "a dog"], "the photo comes first: grounding photo.jpg 'a cat' 'a dog'"),
    (["photo.jpg", "a cat", "gamma", "=", "0.3"], "without spaces around =, as in gamma=0.3"),
    (["photo.jpg", "a cat", "gamma = 0.3"], "write gamma=0.3 without spaces; a phrase with = in it comes after --"),
    (["photo.jpg", "a cat", "GAMMA=0.3"], "there is no setting GAMMA; did you mean gamma?"),
    (["photo.jpg", "a cat", "gamma='0.3'"], "gamma='0.3' is text: write gamma=0.3"),
    (["photo.jpg", "a cat", "gamma=1e9"], "must be at most 20"),
    (["photo.jpg", "a cat", "a dog", "rivalry=1e9"], "must be at most 20"),
    (["photo.jpg", "a cat", "nms=2"], "nms=2 must be in 0..1"),
    (["photo.jpg", "a cat", "seed=-1"], "seed=-1 must be 0 or more (conf/config.yaml"),
    (["photo.jpg", "a cat", "attention=MWP"], "there is no attention=MWP; did you mean mwp?"),
    (["photo.jpg", "a cat", "attention.side=10"], "side=10 is too small"),
    (["photo.jpg", "a cat", "device=gpu"], "device=gpu is not a PyTorch device: use cpu, cuda"),
    (["photo.jpg", "a cat", "pictures=jpg"], "choose one of png, svg, one, or null"),
    (["photo.jpg", "a cat", "step.boxes=all"], "step.boxes=all must be a whole number or null"),
    (["photo.jpg", "a cat", "tagger.path=album"], "album is a folder: give the path of a safetensors file in it"),
    (["photo.jpg", "a cat", "tagger=own.safetensors"], "a file of your own is given as tagger.path=own.safetensors"),
    (["photo.jpg", "a cat", "--cfg"], "--cfg needs a value: write --cfg job or hydra or all"),
    (["photo.jpg", "a cat", "--output", "out"], "there is no option --output"),
    (["Serve"], "there is no photo and no step 'Serve'; did you mean grounding serve?"),
    (["Ground", "photo.jpg", "a cat"], "did you mean grounding ground?"),
    (["train", "experiment=tabel4"], "did you mean table4?"),
    (["layers", "photo.jpg", "eine Katze"], "the tagger knows no word of 'eine Katze'; use other words"),
    (["serve", "step.host=nowhere.invalid"], "use another step.port, or step.host=127.0.0.1"),
]
NAMES = ["photo.jpg", "two.jpg", "photo", "Ferien 2024 (Köln).JPG", "фото кота.jpeg", "猫 😺.jpg", "a\nb.jpg",
         "-dash.jpg", "'it''s'.jpg", "[ab].jpg", "C:\\photo.jpg", "gamma=1.jpg", "album/1.jpg"]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("newcomer")
    (root / "album").mkdir()
    for name in NAMES:
        (root / name).write_bytes(jpeg("coffee", side=80))
    (root / "video.mp4").write_bytes(b"\0\0\0\x18ftypmp42")
    small_tagger(root / "small.safetensors")
    return root


def typed(words: list[str], monkeypatch) -> int:
    """Runs a command line in this process, with the small tagger; log files would stay open."""
    own = [] if any(word.startswith("tagger") or word in ("version", "--cfg") for word in words) else [
        "tagger.path=small.safetensors"
    ]  # fmt: skip
    quiet = ["hydra/job_logging=none", "hydra/hydra_logging=none"] if {"layers", "-m"} & {*words} else []
    end = words.index("--") if "--" in words else len(words)
    monkeypatch.setattr(sys, "argv", ["grounding", *words[:end], *own, *quiet, *words[end:]])
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    try:
        main()
    except SystemExit as end_of_program:
        return int(end_of_program.code or 0)
    return 0


@pytest.mark.parametrize(("words", "expected"), LINES, ids=[" ".join(words)[:40] for words, _ in LINES])
def test_a_command_line_is_answered_or_refused_in_one_line(words, expected, folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    code = typed(words, monkeypatch)
    printed = capsys.readouterr()
    if expected.startswith(" "):
        assert code == 0 and not printed.err, printed.err
        assert expected in " " + printed.out.replace("\n", "\n ")
        assert max(map(len, printed.out.splitlines())) < 400
    else:
        assert code == 2 and expected in printed.err
        assert printed.err.startswith("grounding: ") and len(printed.err.splitlines()) == 1


@pytest.mark.slow
def test_a_sweep_with_one_wrong_job_finishes_the_others_and_can_be_repeated(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    for _ in range(2):
        code = typed(["-m", "photo.jpg", "a cat", "attention=mwp,cam", "gamma=0.5,-1"], monkeypatch)
        refused = [line for line in capsys.readouterr().err.splitlines() if line.startswith("grounding: ")]
        assert code == 1 and len(refused) == 2
        assert all("gamma=-1 must be a number >= 0" in line for line in refused)
        done = sorted(path.parent.name for path in Path("runs/ground-sweep").glob("*/groundings.json"))
        assert done == ["0", "2"]


def test_a_sweep_over_taggers_names_the_one_that_is_missing(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    asked = ["-m", "photo.jpg", "a cat", "tagger.path=small.safetensors,missing.safetensors"]
    assert typed(asked, monkeypatch) == 1
    assert "missing.safetensors does not exist: give the path" in capsys.readouterr().err


def test_memory_that_does_not_suffice_is_said_in_one_line(folder, monkeypatch, capsys):
    def exhausted(*_: object, **__: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 44859600000 bytes")

    monkeypatch.chdir(folder)
    monkeypatch.setattr(Grounder, "ground", exhausted)
    assert typed(["photo.jpg", "a cat"], monkeypatch) == 2
    printed = capsys.readouterr().err
    assert "there is not enough memory" in printed and len(printed.splitlines()) == 1


def test_a_terminal_that_lacks_characters_gets_escapes(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    sys.stdout.reconfigure(encoding="ascii")
    assert typed(["photo.jpg", "一只猫"], monkeypatch) == 0
    assert "\\u4e00" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "shown"),
    [("a\ncat", "a cat"), ("a\tcat\0", "a cat"), ("\u202ea cat", "a cat"), ("x" * 61, "x" * 57 + "..."), ("", "")],
)
def test_a_text_in_one_line(text, shown):
    assert in_one_line(text) == shown


def test_wide_characters_count_twice():
    assert columns("一只猫") == 6 and columns("cafe\u0301") == 4
    assert columns(in_one_line("猫" * 100)) <= 60


@pytest.fixture(scope="module")
def small(folder) -> Grounder:
    return Grounder.load(folder / "small.safetensors")


@pytest.fixture(scope="module")
def scene(small, folder) -> GroundingScene:
    return small.look(folder / "photo.jpg")


class BytesPath:
    """A path of bytes, as ``os.scandir`` gives them for a folder of bytes."""

    def __fspath__(self) -> bytes:
        return b"photo.jpg"


PIXELS = np.random.default_rng(0).integers(0, 255, (40, 50, 3), np.uint8)
GOOD_PHOTOS = {
    "mirrored": PIXELS[::-1, ::-1],
    "from OpenCV": PIXELS[..., ::-1],
    "columns first": np.asfortranarray(PIXELS),
    "a matrix": PIXELS[..., 0].view(np.matrix) if hasattr(np, "matrix") else PIXELS,
    "masked": np.ma.masked_array(PIXELS, PIXELS > 9),
    "bytes as a path": BytesPath(),
}


@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")
@pytest.mark.parametrize("name", GOOD_PHOTOS)
def test_a_photo_of_any_layout_is_read(name, small, folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert small.look(GOOD_PHOTOS[name]).image.shape[2] == 3


def test_phrases_of_any_list_are_read(scene):
    expected = repr(scene.ground(["a dog", "a cat"]))
    for phrases in (("a dog", "a cat"), np.array(["a dog", "a cat"]), iter(["a dog", "a cat"])):
        assert repr(scene.ground(phrases)) == expected
    assert repr(scene.ground(["a dog"], gamma=fractions.Fraction(1, 2))) == repr(scene.ground(["a dog"], gamma=0.5))


def closed(folder: Path) -> object:
    with (folder / "photo.jpg").open("rb") as file:
        return file


CALLS = {
    "a number as a tagger": (lambda g, s, f: Grounder.load(path=3), "path=3 must be the path of a tagger's file"),
    "a folder as a tagger": (lambda g, s, f: Grounder.load(f / "album"), "album is a folder"),
    "bytes as a tagger": (lambda g, s, f: Grounder.load(b"small"), "must be the path of a tagger's file"),
    "a device as proposer": (lambda g, s, f: Grounder.load(f / "small.safetensors", "cpu"), "proposer='cpu' must be"),
    "yes": (lambda g, s, f: Grounder.load(f / "small.safetensors", lexicon="yes"), "lexicon='yes' must be True or Fal"),
    "gamma as text": (lambda g, s, f: s.ground(["a dog"], gamma="0.5"), "gamma=0.5 must be a number"),
    "gamma of a list": (lambda g, s, f: s.ground(["a dog"], gamma=[0.5]), r"gamma=\[0.5\] must be a number"),
    "no phrases": (lambda g, s, f: s.ground(None), r"phrases must be a list, such as \['a red mug'\], not None"),
    "one text": (lambda g, s, f: s.ground("a dog"), "phrases must be a list, .* not 'a dog'"),
    "a path": (lambda g, s, f: s.ground(f / "phrases.txt"), "phrases must be a list"),
    "an empty list": (lambda g, s, f: s.ground([]), "no phrase to ground"),
    "bytes in a list": (lambda g, s, f: s.ground([b"a dog"]), "a phrase must be text, not b'a dog'"),
    "presence of one text": (lambda g, s, f: s.presence("a cat"), "phrases must be a list"),
    "maps of one tag": (lambda g, s, f: s.attend("cat"), "phrases must be a list"),
    "a folder as a photo": (lambda g, s, f: g.look(f / "album"), "album is a folder: give one photo"),
    "an empty path": (lambda g, s, f: g.look(""), "the path of the photo is empty"),
    "a closed file": (lambda g, s, f: g.look(closed(f)), "cannot be read"),
    "NaN": (lambda g, s, f: g.look(np.full((9, 9, 3), np.nan)), "values that are NaN or infinite: replace them"),
    "infinity": (lambda g, s, f: g.look(np.full((9, 9), np.inf)), "values that are NaN or infinite"),
    "normalised": (lambda g, s, f: g.look(PIXELS / 100 - 1), "undo its normalisation"),
    "a list of pixels": (lambda g, s, f: g.look(PIXELS.tolist()), "list is no image"),
    "a vector": (lambda g, s, f: g.look(PIXELS.ravel()), r"an image array must be \(H, W\)"),
    "no photos": (lambda g, s, f: list(g.ground_batch(None, ["a cat"])), "None is no list of images"),
    "one photo of a batch": (lambda g, s, f: g.ground_batch("photo.jpg", ["a cat"]), "is one image, not a list"),
    "Settings": (lambda g, s, f: Settings(gamma="x"), "gamma=x must be a number"),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_wrong_call_is_refused_in_one_line(name, small, scene, folder):
    call, message = CALLS[name]
    with pytest.raises(InputError, match=message) as refused:
        call(small, scene, folder)
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 400


def test_an_answer_without_end_is_printed_in_one_short_line(scene):
    (answer,) = scene.ground(["x" * 10_000])
    assert len(str(answer)) < 500 and answer.phrase.text == "x" * 10_000
