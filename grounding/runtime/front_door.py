"""The front door: the words of a command line without Hydra's quoting.

grounding photo.jpg "a woman's hat" "her dog"
grounding one.jpg two.jpg -- "a cat"
grounding evaluate data.split=val
"""

import difflib
import glob
import re
import shlex
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

from grounding.runtime.renamed import refuse_renamed
from grounding.runtime.setting_names import check_settings
from grounding.runtime.settings import (
    OnlyHydraError,
    Setting,
    Text,
    assign,
    choices,
    chosen_step,
    plain_value,
    read_setting,
)
from grounding.runtime.terminal import no_such_file
from grounding.runtime.version import VERSION
from proposals.errors import InputError

HELP = """\
grounding finds in a photo what phrases name.

  grounding photo.jpg "a woman's hat" "her dog"    boxes, scores and pictures, in runs/ground
  grounding one.jpg two.jpg -- "a cat"             several photos; -- ends them
  grounding holiday/ phrases.txt format=csv        a folder, and a file with one phrase per line
  cat photo.jpg | grounding - "a cat"              a photo from the standard input
  grounding serve                                  a page on http://127.0.0.1:8000
  grounding evaluate data.root=FOLDER data.split=val

Settings follow as NAME=VALUE:  gamma=0.3  experiment=paper  step.pictures=svg  name=first
Several values with -m run a sweep:  grounding -m photo.jpg "a cat" gamma=0.25,0.5

  grounding STEP --help   the settings of a step: {steps}
  grounding --version     the version
  grounding --hydra-help  the options of Hydra, which reads the settings

docs/get-started.md begins with a photo; docs/reference/settings.md lists the settings."""
SWEEP = ("-m", "--multirun")
VALUED = ("--cfg", "-c", "--package", "-p", "--config-path", "-cp", "--config-name", "-cn", "--config-dir", "-cd",
          "--experimental-rerun")  # fmt: skip
OPTIONAL = ("--info", "-i", "--shell-completion", "-sc")  # options whose value may be left out
INFO = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")
SHOWN_BY = dict.fromkeys(("--cfg", "-c"), ("job", "hydra", "all")) | dict.fromkeys(("--info", "-i"), INFO)
FLAGS = ("--help", "-h", "--version", *SWEEP, *VALUED, "--hydra-help", "--resolve", "--run", "-r", "--info", "-i",
         "--shell-completion", "-sc")  # fmt: skip
SPACED = re.compile(r"([A-Za-z_][\w.]*)(?: +=| *= +) *(\S*)")  # gamma = 0.3
ASKING = ("ground", "layers", "methods")  # the steps that take a photo and phrases
LIGHT = ("ground", "serve")  # the steps that need neither Hydra's folder .hydra nor its log file


class CommandLine(NamedTuple):
    """A command line that was read.

    Attributes:
        text: what to print instead of running a step; None to run one.
        hydra: the arguments for Hydra.
        config: the composed settings, if the step can run without Hydra.
        step: the step's name.
        chosen: the choices of groups, with ``config``.
    """

    text: str | None = None
    hydra: tuple[str, ...] = ()
    config: dict[str, Any] | None = None
    step: str = "ground"
    chosen: Mapping[str, str] = {}


class _Words(NamedTuple):
    """A command line by kinds. ``ends`` is the number of words before ``--``, if there is one."""

    flags: list[str]
    settings: list[Setting]
    words: list[str]
    ends: int | None


def read(arguments: Sequence[str]) -> CommandLine:
    """Reads a command line.

    Args:
        arguments: the words after the program's name.

    Returns:
        What it asks for.

    Raises:
        InputError: it cannot be used.
    """
    refuse_renamed(arguments)
    flags, settings, words, ends = _sort(arguments)
    step = words.pop(0) if words and ends is None and words[0] in choices()["step"] else None
    if step is None and words and ends is None and words[0].lower() in choices()["step"] and not _exists(words[0]):
        raise InputError(f"there is no photo and no step {words[0]!r}; did you mean grounding {words[0].lower()}?")
    if "--version" in flags or arguments == ["version"]:
        return CommandLine(text=f"grounding {VERSION}")
    if not arguments or {"--help", "-h"} & {*flags}:
        return CommandLine(text=_help(step or next((s.value for s in settings if s.key == "step"), None)))
    if words[:1] == ["help"] and ends is None and not _exists("help"):
        return CommandLine(text=_help(words[1] if words[1:] else None))
    if step is not None:
        settings.insert(0, Setting("", "step", step))
    sweep = any(flag in SWEEP for flag in flags)
    if words or sweep:
        _checked(settings, sweep=True)
    asked = _asked(settings, words, ends) if words else {}
    if sweep or {*flags} - {*SWEEP, "--run", "-r"}:
        overrides = [*map(str, settings), *(f"{key}={quoted(value)}" for key, value in asked.items())]
        return CommandLine(hydra=(*flags, *overrides))
    return _plain([*map(_lenient, settings)], asked)


def quoted(value: str | Sequence[str]) -> str:
    """Writes a text, or a list of texts, in Hydra's grammar, so that Hydra reads exactly this text.

    Args:
        value: the text; any characters.
    """
    if not isinstance(value, str):
        return f"[{','.join(map(quoted, value))}]"
    text = re.sub(r"(\\*)\$\{", r"\1\1\\${", value)
    text = re.sub(r'(\\*)"', r'\1\1\\"', text)
    text = re.sub(r"(\\+)\Z", r"\1\1", text)
    return f'"{text}"'


def _sort(arguments: Sequence[str]) -> _Words:
    """Sorts the words of a command line into options, settings, and others."""
    found, rest = _Words([], [], [], None), list(arguments)
    while rest:
        word = rest.pop(0)
        setting = read_setting(word)
        if found.ends is None:
            _check_spaces(word, setting)
        if found.ends is None and word == "--":
            found = found._replace(ends=len(found.words))
        elif found.ends is None and len(word) > 1 and word.startswith("-") and not word[1].isdigit():
            found.flags.append(_flag(word))
            if word in VALUED or (word in OPTIONAL and rest):
                found.flags.append(_value_of(word, rest))
        elif re.fullmatch(r"~[a-z][\w.@/]*", word) and _is_key(word[1:]):
            found.settings.append(Setting("~", word[1:], ""))
        elif setting and (setting.mark or _is_key(setting.key) or not (found.ends is not None or _exists(word))):
            found.settings.append(setting)
        else:
            found.words.append(word)
    return found


def _check_spaces(word: str, setting: Setting | None) -> None:
    """Refuses a setting with spaces around ``=``, and a photo whose name looks like a setting."""
    if word == "=":
        raise InputError("write a setting without spaces around =, as in gamma=0.3")
    if (spaced := SPACED.fullmatch(word)) and _is_key(spaced[1]):
        raise InputError(f"write {spaced[1]}={spaced[2]} without spaces; a phrase with = in it comes after --")
    if setting and setting.key != "image" and _is_key(setting.key) and _is_photo(word):
        raise InputError(f"{word} looks like a setting: write ./{word} for the photo of this name")


def _value_of(flag: str, rest: list[str]) -> str:
    """Takes the value of an option from the words that follow."""
    known = SHOWN_BY.get(flag)
    if not rest or (known and rest[0] not in known):
        raise InputError(f"{flag} needs a value" + (f": write {flag} {' or '.join(known)}" if known else " after it"))
    return rest.pop(0)


def _flag(word: str) -> str:
    name = word.partition("=")[0]
    if name in FLAGS:
        return word
    if _exists(word):
        raise InputError(f"{word} begins like an option: write ./{word} for the file of this name")
    if _is_key(key := name.lstrip("-").replace("-", "_")):
        raise InputError(f"there is no option {name}: write {key}={word.partition('=')[2] or 'VALUE'}, without dashes")
    near = difflib.get_close_matches(name, FLAGS, 1, 0.6)
    cure = f"did you mean {near[0]}?" if near else "grounding --help lists them."
    raise InputError(f"there is no option {name}; {cure} Photos and phrases that begin with - come after --")


def _is_key(key: str) -> bool:
    """Whether a key begins with the name of a setting or of a group."""
    return key.partition(".")[0].partition("@")[0].partition("/")[0] in _roots()


def _roots() -> set[str]:
    return {*check_settings([]), *choices(), "hydra"}


def _exists(word: str) -> bool:
    try:
        return Path(word).expanduser().exists()
    except (OSError, ValueError, RuntimeError):  # too long for a path, or with a character that no path has
        return False


def _asked(settings: Sequence[Setting], words: Sequence[str], ends: int | None) -> dict[str, Any]:
    """The settings ``image`` and ``phrases`` that words stand for."""
    chosen = {setting.key: setting.value for setting in settings if setting.key in choices()}
    step = chosen.get("step") or chosen_step({k: v for k, v in chosen.items() if v in choices()[k]})
    if step not in ASKING:
        raise InputError(
            f"{shlex.quote(words[0])} is no setting: step={step} takes settings of the form NAME=VALUE; "
            f"grounding {step} --help lists them"
        )
    given = {setting.key for setting in settings}
    if ends is None:
        ends = 0 if "image" in given else 1
    photos, phrases = list(words[:ends]), list(words[ends:])
    if "image" in given and photos:
        raise InputError(f"{photos[0]} and image= both name a photo: give one of them")
    if len(photos) > 1 and "-" in photos:
        raise InputError("- is the standard input, which holds one photo: give it alone")
    if "phrases" in given and phrases:
        raise InputError(f"{shlex.quote(phrases[0])} and phrases= both name phrases: give one of them")
    if not photos and "image" not in given:
        raise InputError(f"no photo: write it first, as in: grounding photo.jpg {shlex.join(phrases)}")
    _check_asked(photos, phrases, "phrases" in given, ends)
    asked: dict[str, Any] = {"image": photos[0] if len(photos) == 1 else photos} if photos else {}
    if phrases:
        listed = len(phrases) == 1 and phrases[0].endswith(".txt") and _exists(phrases[0])
        asked["phrases"] = phrases[0] if listed else phrases
    return asked


def _check_asked(photos: Sequence[str], phrases: Sequence[str], given: bool, ends: int) -> None:
    """Refuses words that have been mistaken: a phrase for a photo, a photo for a phrase, a step for a photo."""
    absent = photos and not _exists(photos[0]) and not glob.has_magic(photos[0])
    if absent and ends == 1 and (meant := [*filter(_is_photo, phrases)]):
        rest = [photos[0], *(phrase for phrase in phrases if phrase not in meant)]
        words = shlex.join([*meant, *(["--"] if len(meant) > 1 else []), *rest])
        raise InputError(f"the photo{'s come' if len(meant) > 1 else ' comes'} first: grounding {words}")
    if not phrases and not given:
        near = difflib.get_close_matches(photos[0], choices()["step"], 1, 0.7)
        if near and not _exists(photos[0]):
            raise InputError(f"there is no photo and no step {photos[0]!r}; did you mean grounding {near[0]}?")
        raise InputError(f"no phrase: say what to find, as in: grounding {shlex.join(photos)} 'a woman in red'")
    if undecoded := [phrase for phrase in phrases if re.search("[\ud800-\udfff]", phrase)]:
        raise InputError(f"the phrase {undecoded[0]!a} has bytes that are not UTF-8: set the terminal to UTF-8")
    if blank := [number for number, phrase in enumerate(phrases, 1) if not phrase.strip()]:
        raise InputError(f"a phrase is empty: phrase {blank[0]} of {len(phrases)} has no words")
    if listed := [phrase for phrase in phrases if re.fullmatch(r"\S+\.txt", phrase)]:
        if len(phrases) > 1:
            raise InputError(f"{listed[0]} is among other phrases: a file of phrases is given alone")
        if not _exists(listed[0]):
            raise InputError(
                f"there is no file {listed[0]}: give a text file with one phrase on each line, or a phrase"
            )
    files_among = [*filter(_is_photo, phrases)]
    if files_among and ends == 1:
        rest = [phrase for phrase in phrases if phrase not in files_among] or ["a cat"]
        raise InputError(
            f"{files_among[0]} is a photo among the phrases; write -- after the photos: grounding "
            f"{shlex.join([*photos, *files_among][:3])}{' ...' if len(files_among) > 2 else ''} -- {shlex.join(rest)}"
        )


def _is_photo(word: str) -> bool:
    return re.search(r"\.(jpe?g|png|webp|gif|tiff?|bmp)$", word, re.IGNORECASE) is not None and _exists(word)


def _lenient(setting: Setting) -> Setting:
    """Reads ``image=`` and ``phrases=`` as they were meant: without Hydra's quoting, if they are not quoted."""
    if setting.mark or setting.key not in ("image", "phrases") or setting.value.startswith(('"', "'", '["', "['")):
        return setting
    value = setting.value
    if setting.key == "image":
        if value.startswith("[") and not (value.endswith("]") or _exists(value)):
            raise InputError(f"image={value} cannot be read: close the bracket, or write the photos first, before --")
        return setting if value.startswith("[") and not _exists(value) else setting._replace(value=quoted(value))
    if value.startswith("[") != value.endswith("]"):
        example = shlex.join(part.strip() for part in value.strip("[]").split(","))
        raise InputError(f"phrases={value} cannot be read: close each bracket, or write: grounding PHOTO {example}")
    if value.startswith("["):
        if re.search(r"['\"]\s*,|,\s*['\"]", value):
            return setting  # some are quoted: Hydra reads it
        parts = value[1:-1].split(",") if value[1:-1].strip() else []
        return setting._replace(value=quoted([part.strip() for part in parts]))
    if not _exists(value):
        raise InputError(
            f"the file phrases={value} cannot be read (No such file or directory): phrases follow the photo, "
            f"as in: grounding PHOTO {shlex.quote(value)}"
        )
    return setting._replace(value=quoted(value))


def _plain(settings: list[Setting], asked: dict[str, Any]) -> CommandLine:
    """A command line without a sweep: with the composed settings, if the step and its values need no Hydra."""
    overrides = (*map(str, settings), *(f"{key}={quoted(value)}" for key, value in asked.items()))
    try:
        config = _checked(settings, sweep=False)
        step = _step(settings)
        if step not in LIGHT or config.get("hydra", {}).get("mode") or config.get("cluster"):
            raise OnlyHydraError
        for setting in settings:
            if setting.key not in choices():
                if setting.mark or re.search("[@/]", setting.key):
                    raise OnlyHydraError
                assign(config, setting.key, _value(setting))
    except OnlyHydraError:
        return CommandLine(hydra=_encodable(overrides))
    for key, value in asked.items():
        config[key] = Text(value) if isinstance(value, str) else [Text(part) for part in value]
    if step == "ground" and isinstance(config["image"], str):
        _check_file(config["image"])
    chosen = {setting.key: setting.value for setting in settings if setting.key in choices()}
    return CommandLine(hydra=overrides, config=config, step=step, chosen=chosen)


def _check_file(image: str) -> None:
    """Refuses a missing photo now: the step itself would look for it after PyTorch is imported."""
    tars = image.startswith("pipe:") or re.search(r"\{.*\}.*\.tar$", image)  # see grounding/shards/addresses.py
    if image != "-" and not tars and not glob.has_magic(image) and "://" not in image and not _exists(image):
        raise InputError(no_such_file(image))


def _checked(settings: Sequence[Setting], sweep: bool) -> dict[str, Any]:
    try:
        return check_settings(settings, sweep)
    except OnlyHydraError:
        if sweep:
            return {}
        raise


def _step(settings: Sequence[Setting]) -> str:
    if any(setting.key in ("cluster", "hydra") or setting.key.startswith("hydra") for setting in settings):
        raise OnlyHydraError
    return chosen_step({setting.key: setting.value for setting in settings if setting.key in choices()})


def _value(setting: Setting) -> Any:
    """The value of a setting: plain, or quoted by :func:`_lenient`."""
    texts = re.findall(r'"((?:[^"\\]|\\.)*)"', setting.value) if setting.key in ("image", "phrases") else []
    if setting.key in ("image", "phrases") and quoted(unquoted := [_unquoted(text) for text in texts]) == setting.value:
        return [Text(text) for text in unquoted]
    if len(texts) == 1 and quoted(_unquoted(texts[0])) == setting.value:
        return Text(_unquoted(texts[0]))
    return plain_value(setting.value)


def _unquoted(text: str) -> str:
    """The inverse of :func:`quoted`, for the text between the quotes."""
    text = re.sub(r'(\\*)\\"', lambda match: match[1][: len(match[1]) // 2] + '"', text)
    text = re.sub(r"(\\+)\Z", lambda match: match[1][: len(match[1]) // 2], text)
    return re.sub(r"(\\*)\\\$\{", lambda match: match[1][: len(match[1]) // 2] + "${", text)


def _encodable(overrides: tuple[str, ...]) -> tuple[str, ...]:
    for override in overrides:
        try:
            override.encode("utf-8")
        except UnicodeEncodeError as error:
            raise InputError(f"{override!a} has bytes that are not UTF-8: rename the file") from error
    return overrides


def _help(step: str | None) -> str:
    steps = choices()["step"]
    if step not in steps:
        return HELP.format(steps=", ".join(steps))
    text = files("conf").joinpath("step", f"{step}.yaml").read_text("utf-8").strip()
    words = "PHOTO PHRASE [PHRASE ...] " if step in ASKING else ""
    return (
        f"grounding {step} {words}[NAME=VALUE ...]\n\n{text}\n\n"
        f"Settings under _target_ are written step.NAME=VALUE, those of other names without step.: conf/config.yaml\n"
        "and docs/reference/settings.md list them."
    )
