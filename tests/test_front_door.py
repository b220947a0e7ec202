"""The front door: command lines of new users, each read as it was meant or refused in one line that helps."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import run_here
from hydra import compose as hydra_compose
from hydra import initialize_config_module
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from grounding.runtime import front_door, settings
from grounding.runtime.version import VERSION
from proposals.errors import InputError

ROOT = Path(__file__).parents[1]
NAMES = ["photo.jpg", "my photo, [1].jpg", "Bild 12:30:00.jpg", "it's.jpg", 'a "quoted" one.jpg', "${HOME}.jpg",
         "a=b.jpg", "-v.jpg", "серый кот.png", "写真.jpg", "50%.jpg", "#1.jpg", "back\\slash.jpg", "serve",
         "*.jpg"]  # fmt: skip
PHRASES = ["a woman's hat", "what is this?", "Tür", "eine Frau, die lacht", "une fille à vélo", "赤い帽子", "собака",
           "كلب", "dog🐕", "a \"red\" car", "[a cat]", "{x: 1}", "$HOME", "${gamma}", "C:\\dogs\\", "50% off", "null",
           "3", "a, b", "x" * 3000, "  two  spaces ", "don't\nbreak"]  # fmt: skip


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in NAMES:
        Path(name).write_text("no photo")
    Path("phrases.txt").write_text("a cat\n")
    return tmp_path


def asked(*words: str) -> tuple:
    """The image and the phrases that a command line asks for, after references are resolved."""
    config = front_door.read(words).config
    return tuple(settings.resolve(config[name], config, {}) for name in ("image", "phrases"))


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("-v.jpg", "serve")])
def test_any_file_name_is_a_photo(name):
    assert asked(name, "a cat") == (name, ["a cat"])
    assert asked(f"image={name}", "phrases=[a cat]") == (name, ["a cat"])
    assert asked(name, "*.jpg", "--", "a cat") == ([name, "*.jpg"], ["a cat"])


def test_names_that_mean_something_else_are_photos_after_a_folder_or_before_the_dashes():
    assert asked("./-v.jpg", "a cat") == ("./-v.jpg", ["a cat"])
    assert asked("./serve", "a cat") == ("./serve", ["a cat"])
    assert asked("serve", "--", "a cat") == ("serve", ["a cat"])
    assert asked("-", "a cat") == ("-", ["a cat"])


@pytest.mark.parametrize("phrase", PHRASES)
def test_any_text_is_a_phrase(phrase):
    assert asked("photo.jpg", phrase, "her dog") == ("photo.jpg", [phrase, "her dog"])
    assert asked("photo.jpg", "--", phrase, "gamma=0.3") == ("photo.jpg", [phrase])


def test_phrases_that_look_like_options_or_settings_come_after_the_dashes():
    assert asked("photo.jpg", "--", "-v", "--help", "E=mc2") == ("photo.jpg", ["-v", "--help", "E=mc2"])
    assert asked("photo.jpg", "-5 degrees") == ("photo.jpg", ["-5 degrees"])


def test_a_text_file_gives_the_phrases():
    assert asked("photo.jpg", "phrases.txt") == ("photo.jpg", "phrases.txt")
    assert asked("photo.jpg", "phrases=phrases.txt") == ("photo.jpg", "phrases.txt")


def test_lists_of_phrases_need_no_quotes():
    assert asked("image=photo.jpg", "phrases=[a woman's hat, Tür, what is this?]")[1] == [
        "a woman's hat", "Tür", "what is this?",
    ]  # fmt: skip


def test_settings_follow_the_words():
    line = front_door.read(["photo.jpg", "a cat", "gamma=0.3", "attention=mwp", "step.boxes=2", "device=cuda:0"])
    assert line.config["gamma"] == 0.3
    assert line.config["attention"]["method"] == "mwp"
    assert line.config["step"]["boxes"] == 2
    assert line.config["device"] == "cuda:0"


@pytest.mark.parametrize(
    ("words", "hydra"),
    [
        (["evaluate", "data.split=val"], ("step=evaluate", "data.split=val")),
        (["-m", "photo.jpg", "a, b", "gamma=0.25,0.5"],
         ("-m", "gamma=0.25,0.5", 'image="photo.jpg"', 'phrases=["a, b"]')),
        (["photo.jpg", "a cat", "+note=1"], ("+note=1", 'image="photo.jpg"', 'phrases=["a cat"]')),
        (["layers", "photo.jpg", "a cat"], ("step=layers", 'image="photo.jpg"', 'phrases=["a cat"]')),
        (["step=methods", "a.jpg", "b.jpg", "--", "a cat"],
         ("step=methods", 'image=["a.jpg","b.jpg"]', 'phrases=["a cat"]')),
        (["step=train", "~step.seed"], ("step=train", "~step.seed")),
        (["--cfg", "job", "step=train"], ("--cfg", "job", "step=train")),
        (["--shell-completion", "query=bash"], ("--shell-completion", "query=bash")),
    ],
)  # fmt: skip
def test_hydra_gets_what_only_it_can_do(words, hydra):
    assert front_door.read(words).hydra == hydra
    assert front_door.read(words).config is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["photo.jpg"], r"no phrase: say what to find, as in: grounding photo\.jpg 'a woman in red'"),
        (["sevre"], r"no photo and no step 'sevre'; did you mean grounding serve\?"),
        (["nowhere.jpg", "a cat"], r"nowhere\.jpg: no such image file"),
        (["x" * 5000, "a cat"], "no such image file"),
        (["photo.jpg", "a cat", ""], "a phrase is empty: phrase 2 of 2 has no words"),
        (["photo.jpg", " "], "a phrase is empty"),
        (["phrases=[a cat]", "photo.jpg", "--", "a dog"], "'a dog' and phrases= both name phrases"),
        (["image=photo.jpg", "it's.jpg", "--", "a dog"], r"it's\.jpg and image= both name a photo"),
        (["--", "a dog"], "no photo: write it first, as in: grounding photo.jpg 'a dog'"),
        (["photo.jpg", "it's.jpg", "a cat"],
         """is a photo among the phrases; write -- after the photos: grounding photo.jpg 'it'"'"'s.jpg' -- 'a cat'"""),
        (["photo.jpg", "-", "--", "a cat"], "- is the standard input"),
        (["photo.jpg", "a cat", "gama=0.3"],
         r"no setting gama; did you mean gamma\? \(conf/config\.yaml:\d+: gamma: 0\.55"),
        (["photo.jpg", "E=mc2"],
         "there is no setting E; docs/reference/settings.md lists all; a phrase with = in it comes after --"),
        (["photo.jpg", "a cat", "boxes=3"], r"did you mean step\.boxes\? \(conf/step/ground\.yaml:\d+: boxes: null"),
        (["photo.jpg", "a cat", "attention=mpw"], r"no attention=mpw; did you mean mwp\?; choose one of c-cam, "),
        (["step=fly"], "there is no step=fly; choose one of all, attend, "),
        (["photo.jpg", "a cat", "gamma=high"], r"gamma=high must be a number \(conf/config\.yaml:\d+: gamma: 0\.55"),
        (["photo.jpg", "a cat", "gamma=null"], "gamma=null must be a number"),
        (["photo.jpg", "a cat", "vote=x"], "vote=x must be a number"),
        (["photo.jpg", "a cat", "seed=x"], "seed=x must be a number"),
        (["photo.jpg", "a cat", "seed=true"], "seed=true must be a number"),
        (["photo.jpg", "a cat", "attention.side=abc"], r"attention\.side=abc must be a number \(conf/attention/"),
        (["photo.jpg", "a cat", "lexicon=2"], "lexicon=2 must be true or false"),
        (["-m", "photo.jpg", "a cat", "gamma=0.5,high"], "gamma=high must be a number"),
        (["-m", "photo.jpg", "a cat", "attention=mwp,mpw"], "there is no attention=mpw"),
        (["image=photo.jpg", "phrases=[a cat"], "close each bracket, or write: grounding PHOTO 'a cat'"),
        (["image=photo.jpg", "phrases=a cat"], "phrases follow the photo, as in: grounding PHOTO 'a cat'"),
        (["evaluate", "photo.jpg"], r"photo\.jpg is no setting: step=evaluate takes settings of the form NAME=VALUE"),
        (["a woman", "photo.jpg"], "the photo comes first: grounding photo.jpg 'a woman'"),
        (["photo.jpg", "missing.txt"], r"there is no file missing\.txt: give a text file with one phrase on each line"),
        (["photo.jpg", "a cat", "phrases.txt"], r"phrases\.txt is among other phrases: a file of phrases is given"),
        (["photo.jpg", "a cat", "gamma=0,5"], r"gamma=0,5 has a comma: write gamma=0\.5, or try each value with -m \("),
        (["photo.jpg", "a cat", "device=cpu,cuda"], r"write 'device=\[cpu,cuda\]' for a list, or try each value with"),
        (["photo.jpg", "a cat", "attention=[mwp,cam]"], "several: choose one, or try each with -m attention=mwp,cam"),
        (["photo.jpg", "a cat", "attention=mwp,cam"], "several: choose one, or try each with -m attention=mwp,cam"),
        (["photo.jpg", "a cat", "name="], "name= must be text: the results go to runs/NAME"),
        (["photo.jpg", "a cat", "name=[a,b]"], r"name=\[a,b\] must be text: the results go to runs/NAME"),
        (["photo.jpg", "a cat", "--gamma", "0.3"], "no option --gamma: write gamma=VALUE, without dashes"),
        (["photo.jpg", "a cat", "--gamma=0.3"], r"no option --gamma: write gamma=0\.3, without dashes"),
        (["serve", "port=9"], r"there is no setting port; did you mean step\.port\? \(conf/step/serve\.yaml"),
        (["serve", "step.limits=[1]"], r"step\.limits=\[1\] must be settings of its own: write step\.limits"),
        (["image=[photo.jpg,b.jpg", "phrases=[a cat]"], "close the bracket, or write the photos first, before --"),
        (["experiment=embedded"], "has settings of step=train, which step=ground does not have: add step=train"),
        (["photo.jpg", "a cat", "experiment=further"], "experiment=further has settings of step=train, which step=gr"),
        (["evaluate", "experiment=stock6m"], "which step=evaluate does not have: add step=train"),
        (["-m", "photo.jpg", "a cat", "experiment=best,embedded"], "experiment=embedded has settings of step=train"),
        (["--verson"], "there is no option --verson; did you mean --version"),
        (["-x", "a cat"], "there is no option -x; grounding --help lists them"),
    ],
)  # fmt: skip
def test_a_mistake_is_answered_with_what_would_be_right(words, message):
    with pytest.raises(InputError, match=message) as refused:
        front_door.read(words)
    assert "\n" not in str(refused.value)


def test_an_experiment_with_its_step_is_read():
    for name in ("embedded", "further", "stock6m", "efficientnet-tags", "efficientnet"):
        assert front_door.read(["train", f"experiment={name}"]).hydra == ("step=train", f"experiment={name}")
    assert front_door.read(["-m", "step=train,point", "experiment=further"]).config is None
    again = ["train", "experiment=stock6m", "step.validate_every=null"]  # null is the step's own value
    assert front_door.read(again).hydra == ("step=train", *again[1:])


def test_the_help_names_the_steps_and_a_step_its_settings():
    assert front_door.read([]).text == front_door.read(["--help"]).text
    assert 'grounding photo.jpg "a woman\'s hat"' in front_door.read([]).text
    assert "port: 8000" in front_door.read(["serve", "-h"]).text
    assert front_door.read(["help"]).text == front_door.read([]).text
    assert front_door.read(["help", "serve"]).text == front_door.read(["serve", "-h"]).text
    assert "epochs: 4" in front_door.read(["step=train", "--help"]).text
    assert front_door.read(["--version"]).text == f"grounding {VERSION}"


@given(st.text(st.sampled_from("ab \\\"'${}[],=\n\t#~+é🐕-:"), max_size=12))
def test_hydra_reads_a_quoted_text_unchanged(text):
    read = OverridesParser.create().parse_override(f"image={front_door.quoted(text)}").value()
    assert OmegaConf.create({"a": getattr(read, "text", read)}).a == text
    assert front_door._unquoted(front_door.quoted(text)[1:-1]) == text


CHOSEN = [
    *({group: name} for group in ("step", "experiment") for name in settings.choices()[group]),
    {"experiment": "table4", "data": "coco2017"},
    {"step": "point", "experiment": "paper", "attention": "cam"},
]


def test_the_settings_are_those_that_hydra_composes():
    with initialize_config_module("conf", version_base="1.3"):
        for chosen in [{}, *CHOSEN]:
            theirs = hydra_compose("config", [f"{group}={name}" for group, name in chosen.items()])
            ours = {key: value for key, value in settings.compose(chosen).items() if key != "hydra"}
            assert ours == OmegaConf.to_container(theirs), chosen


@pytest.mark.parametrize("chosen", [[], ["experiment=paper", "gamma=0.3", "name=first"], ["proposals=boxes", "seed=7"]])
def test_the_front_door_and_hydra_run_the_same_step(chosen, monkeypatch):
    monkeypatch.setenv("GROUNDING_DATA", "elsewhere")
    ours = front_door.read(["photo.jpg", "a cat", *chosen]).config
    with initialize_config_module("conf", version_base="1.3"):
        words = ["step=ground", 'image="photo.jpg"', 'phrases=["a cat"]', "step.output=here", *chosen]
        theirs = OmegaConf.to_container(hydra_compose("config", words).step, resolve=True)
    ours["step"]["output"] = "here"
    assert settings.resolve(ours["step"], ours, {}) == theirs


def test_a_photo_with_an_odd_name_is_grounded(folder, coffee):
    Path("my cup, [1].png").write_bytes(Path(coffee).read_bytes())
    done = run_here(folder, "my cup, [1].png", "a woman's cup", "dog🐕", "name=first", "step.pictures=null")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[1].startswith("a woman's cup")
    assert [path.name for path in (folder / "runs" / "first").iterdir()] == ["groundings.json"]


def test_a_photo_needs_no_slow_import_and_ends_without_a_search_for_garbage(folder, coffee):
    code = "import atexit, gc, sys\nfrom grounding.__main__ import main\n"
    code += "atexit.register(lambda: print(gc.get_freeze_count() > 0))\nmain()\n"
    code += "print([name for name in ('hydra', 'sympy', 'torch._dynamo', 'scipy.stats') if name in sys.modules])"
    command = [sys.executable, "-c", code, str(coffee), "a woman's cup", "a spoon", "step.pictures=null"]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert (done.stdout.splitlines()[-2:], done.stderr) == (["[]", "True"], "")


def test_a_refusal_imports_neither_hydra_nor_pytorch(folder):
    code = "import sys\nfrom grounding.__main__ import main\ntry: main()\nexcept SystemExit as end: print(end.code)\n"
    code += "print([name for name in ('hydra', 'torch', 'numpy') if name in sys.modules])"
    command = [sys.executable, "-c", code, "nowhere.jpg", "a cat"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    environment.pop("HYDRA_FULL_ERROR", None)  # other tests call main(), which sets it
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (done.stdout.split("\n")[:2], done.stderr) == (["2", "[]"], "grounding: nowhere.jpg: no such image file\n")
