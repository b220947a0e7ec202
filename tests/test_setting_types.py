"""Settings of a wrong type or shape: each one of every step is refused in one line, before anything runs."""

import copy
import sys
from collections.abc import Mapping
from typing import Any

import pytest

from grounding.__main__ import main
from grounding.runtime.setting_names import check_settings
from grounding.runtime.setting_types import FIELDS, _parameters, check_types
from grounding.runtime.settings import Setting, assign, choices, compose, locate, plain_value, resolve
from proposals.errors import InputError

STEPS = {"step": None, "benchmark": "benchmark", "proposals": "propose", "data": "check"}
CHOSEN = [
    {group: name} | ({"step": step} if step else {}) for group, step in STEPS.items() for name in choices()[group]
]
WRONG = {"table": {"a": 1}, "lists": [["a"]], "list": ["a", "b"], "text": "x y", "number": 2.5, "truth": True}
LISTS = ("image", "data.root", "step.against", "step.stream.validation")  # one text, or several
TABLES = ("data.classes", "step.samples", "step.data", "step.commands")
OWN = {"runtime.output_dir": "runs/x", "runtime.choices.step": "x"}


def composed(chosen: Mapping[str, str]) -> dict[str, Any]:
    """The settings of a step, with those that a user has to set."""
    config = compose(chosen) | {"captions": "captions.txt"}
    config.pop("hydra")
    if "root" in config["proposals"]:
        config["proposals"]["root"] = "proposals"
    return config


def leaves(node: Any, before: str = "") -> list[tuple[str, Any]]:
    """The dotted keys of all settings that are no references, and their values."""
    if isinstance(node, dict) and node:
        return [leaf for name, part in node.items() for leaf in leaves(part, f"{before}.{name}".lstrip("."))]
    return [] if "${" in str(node) or "_" in (before.rpartition(".")[2][0], before[-1]) else [(before, node)]


def wrong_kinds(key: str, value: Any) -> set[str]:
    """The kinds of values that a setting cannot have, told by the value that it has in ``conf``."""
    if key.startswith(TABLES):
        return set()
    if isinstance(value, bool):
        return {*WRONG} - {"truth"}
    if isinstance(value, int | float):
        return {*WRONG} - {"number"}
    if isinstance(value, list):
        return {"table", "number", "truth"}
    several = {"list"} if key in LISTS else set()
    return {*WRONG} - {"text"} - several if isinstance(value, str) else {"table", "lists"}


def changed(config: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    config = copy.deepcopy(config)
    assign(config, key, value)
    return config


def is_used(config: dict[str, Any], key: str) -> bool:
    """Whether a step has a setting or a reference to it."""
    return "a mark" in str(resolve(changed(config, key, "a mark")["step"], changed(config, key, "a mark"), OWN))


@pytest.mark.parametrize("chosen", CHOSEN, ids=lambda chosen: "-".join(dict.fromkeys(chosen.values())))
def test_each_setting_of_a_wrong_shape_is_refused_by_name(chosen):
    config = composed(chosen)
    check_types(config, chosen)
    used = [(key, value) for key, value in leaves(config) if is_used(config, key)]
    assert used
    for key, value in used:
        for kind in wrong_kinds(key, value):
            with pytest.raises(InputError) as refused:
                check_types(changed(config, key, WRONG[kind]), chosen)
            assert str(refused.value).startswith(f"{key}="), (key, kind, str(refused.value))
            assert "\n" not in str(refused.value)


def targets(node: Any) -> set[str]:
    """The functions that settings name."""
    parts = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    own = {node["_target_"]} if isinstance(node, dict) and "_target_" in node else set()
    return own.union(*map(targets, parts))


def test_every_function_of_every_step_has_its_parameters_compared():
    found = set().union(*(targets(composed(chosen)) for chosen in CHOSEN))
    assert {*FIELDS} <= found
    for target in found:
        parameters = _parameters(target)
        assert parameters is not None, target
        assert all(parameter.annotation is not parameter.empty for parameter in parameters.values()), target


@pytest.mark.parametrize("function", FIELDS)
def test_the_fields_of_settings_refuse_wrong_shapes_in_python_too(function):
    fields = locate(FIELDS[function])
    for name, value in vars(fields()).items():
        for kind in wrong_kinds(name, value):
            with pytest.raises(InputError, match=name):
                fields(**{name: WRONG[kind]})


def refusal(words: list[str], monkeypatch, capsys) -> str:
    """What the command line prints when it refuses."""
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    quiet = ["hydra/job_logging=none", "hydra/hydra_logging=none"]
    monkeypatch.setattr(sys, "argv", ["grounding", *words, *quiet])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    message = capsys.readouterr().err.splitlines()
    assert len(message) == 1
    return message[0]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["shards", "images=[a,b]", "captions=x"], "images=[a, b] must be text (conf/config.yaml:"),
        (["phrases"], "captions is not set: add captions=TEXT (conf/config.yaml:"),
        (["propose", "images={a: b}"], "images={a: b} must be text (conf/config.yaml:"),
        (["propose", "images=[a,b]", "proposals=mcg"], "proposals.root is not set: add proposals.root=TEXT (conf/prop"),
        (["evaluate", "data.split=2017"], """data.split=2017 must be text: write 'data.split="2017"' (conf/data/"""),
        (["methods", "step.methods=mwp"], "must be a list of texts: write 'step.methods=[mwp]' (conf/step/methods"),
        (["train", "step.stream=3"], "step.stream=3 must be settings of its own: write step.stream.NAME=VALUE"),
        (["train", "step.crop_scale=[1]"], "step.crop_scale=[1] must be a list of 2 numbers or null (conf/step/train"),
        (["train", "+step.speed=3"], "no setting step.speed: training.train.train has no parameter speed; leave it"),
        (["train", "~step.root"], "step.root was removed, but training.train.train needs it"),
        (["ground", "tagger.path=[a,b]"], "tagger.path=[a, b] must be text or null (conf/tagger/embedded.yaml:1: "),
        (["serve", "step.hosts=localhost"], "step.hosts=localhost must be a list of texts: write 'step.hosts=[localh"),
        (["serve", "step.limits=[1]"], "step.limits=[1] must be settings of its own: write step.limits.NAME=VALUE"),
        (["table4", "step.proposers=1"], "step.proposers=1 must be settings of its own: write step.proposers"),
    ],
)  # fmt: skip
def test_the_refusal_names_the_setting_and_what_is_right(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert message in refusal(words, monkeypatch, capsys)


def test_a_number_of_thousands_of_digits_is_refused():
    with pytest.raises(InputError, match=r"^99999999999999999999\.\.\. has 5,000 characters: write a shorter number$"):
        plain_value("9" * 5000)


def test_an_experiment_that_is_a_sweep_takes_several_values_without_m():
    targets = Setting("", "attention.target", "pool1,pool3")
    assert check_settings([Setting("", "experiment", "layers"), targets])
    with pytest.raises(InputError, match=r"attention\.target=pool1,pool3 has a comma"):
        check_settings([Setting("", "experiment", "best"), targets])
