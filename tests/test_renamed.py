"""Old names of settings are refused with the new name in the message."""

import re
import sys

import pytest
from hydra import compose, initialize_config_module
from omegaconf import DictConfig, OmegaConf

from grounding.__main__ import main
from grounding.runtime import renamed
from grounding.runtime.renamed import RENAMED, new_names, refuse_renamed
from proposals.errors import InputError


@pytest.mark.parametrize(
    "override",
    ["step.decay=0.1", "+step.decay=0.1", "++step.decay=0.1", "~step.decay", "~step.decay=0.1", "step.decay=0.1,0.2"],
)
def test_an_old_key_is_refused(override):
    with pytest.raises(InputError, match=r"^step\.decay was renamed: use step\.weight_decay$"):
        refuse_renamed(["-m", override, "step=train"])


def test_an_old_key_of_one_step_may_be_a_key_of_another():
    refuse_renamed(["step=propose", "step.photos=5"])
    refuse_renamed(["step.photos=5"])
    with pytest.raises(InputError, match=r"step\.photos was renamed: use step\.images_per_shard"):
        refuse_renamed(["step=propose,shards", "step.photos=5"])


@pytest.mark.parametrize(
    ("arguments", "new"),
    [
        (["experiment=stock6m", "step.trunk_rate=0.1"], "step.trunk_lr"),
        (["experiment=embedded", "step.inherit=3"], "step.distillation_weight"),
        (["experiment=paper", "step.choose=[0.1]"], "step.gamma_candidates"),
        (["experiment=paper", "+step.choose=[0.1]"], "step.gamma_candidates"),
    ],
)
def test_an_experiment_chooses_the_step(arguments, new):
    with pytest.raises(InputError, match=f"was renamed: use {new}"):
        refuse_renamed(arguments)


def test_a_file_outside_of_the_experiments_is_not_read():
    # the file chooses step=table4, which has no step.every; because it is not read, all steps count
    with pytest.raises(InputError, match=r"step\.every was renamed: use step\.hold_out_every"):
        refuse_renamed(["experiment=../experiment/table4", "step.every=3"])
    refuse_renamed(["experiment=table4", "step.every=3"])


def test_an_old_choice_of_a_group_is_refused(monkeypatch):
    monkeypatch.setitem(RENAMED, "attention=old", "attention=new")
    refuse_renamed(["attention=older", "name=old"])
    with pytest.raises(InputError, match=r"^attention=old was renamed: use attention=new$"):
        refuse_renamed(["attention=mwp,old"])


def test_other_arguments_pass():
    refuse_renamed([])
    refuse_renamed(["--config-name", "config", "-m", "image=step.decay", "phrases=[step.decay=1]", "step=train"])


def has(config: DictConfig, key: str) -> bool:
    parent, _, name = key.rpartition(".")
    return name in OmegaConf.select(config, parent)


@pytest.mark.parametrize("old", [key for key in RENAMED if ":" in key])
def test_the_configuration_has_the_new_key_and_not_the_old_one(old):
    step, _, key = old.rpartition(":")
    with initialize_config_module("conf", version_base="1.3"):
        config = compose("config", [f"step={step}"])
    assert has(config, RENAMED[old])
    assert not has(config, key)


def test_the_names_of_one_step(monkeypatch):
    monkeypatch.setattr(renamed, "RENAMED", {"train:step.a": "step.b", "shards:step.c": "step.d", "e": "f"})
    assert new_names("train") == {"a": "b"}


@pytest.mark.parametrize("sweep", [[], ["-m"]])
def test_the_command_line_refuses_an_old_name_in_one_line(tmp_path, monkeypatch, capsys, sweep):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    monkeypatch.setattr(sys, "argv", ["grounding", *sweep, "step=train", "step.trunk_rate=0.1"])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    printed = capsys.readouterr().err
    assert re.fullmatch(r"grounding: step\.trunk_rate was renamed: use step\.trunk_lr\n", printed)
    assert not list(tmp_path.iterdir())
