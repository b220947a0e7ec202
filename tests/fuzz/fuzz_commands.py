"""Command lines, read as ``grounding`` reads them, without running a step."""

from typing import Any, cast

from hydra import compose as hydra_compose
from hydra import initialize_config_module
from omegaconf import OmegaConf

from grounding.__main__ import _message as message_of
from grounding.runtime.front_door import CommandLine, read
from grounding.runtime.setting_types import check_types
from proposals.errors import InputError


def read_command(data: bytes) -> CommandLine:
    """Reads a command line, one word on each line.

    Args:
        data: the words.

    Returns:
        What it asks for; the types of its settings are checked.

    Raises:
        InputError: it is refused.
    """
    asked = read(data.decode("utf-8", "surrogateescape").split("\n"))
    if asked.config is not None:
        check_types(asked.config, asked.chosen)
    return asked


def compose(data: bytes) -> None:
    """Reads a command line, and composes with Hydra what needs Hydra.

    Args:
        data: the words, one on each line.

    Raises:
        InputError: it is refused, by Hydra too.
    """
    overrides = [word for word in read_command(data).hydra if not word.startswith("-")]
    try:
        # not once for all: a process in which Hydra is initialised runs no step
        with initialize_config_module("conf", version_base="1.3"):
            config = hydra_compose("config", overrides, return_hydra_config=True)
        choices = OmegaConf.to_container(config.hydra.runtime.choices)
        del config._content["hydra"]
        check_types(cast(dict[str, Any], OmegaConf.to_container(config, resolve=False)), cast(dict[str, str], choices))
    except Exception as error:
        if (line := message_of(error)) is None:
            raise
        raise InputError(line) from error
