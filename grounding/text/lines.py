"""Reads the lines of text files that other programs and people wrote."""

import codecs
from pathlib import Path

from proposals.errors import InputError

MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",  # before UTF-16, whose mark begins with the same bytes
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}


def read_lines(path: Path) -> list[str]:
    """Reads a text as UTF-8, with or without a byte order mark.

    A line ends with a line feed, or a carriage return and a line feed. Other characters that some programs take for the
    end of a line, such as U+2028, are part of the text.

    Args:
        path: the file.

    Returns:
        The lines, without their ends.

    Raises:
        InputError: the file cannot be read, or is not UTF-8.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error})") from error
    lines = decode(data, path).replace("\r\n", "\n").split("\n")
    return lines[:-1] if lines[-1] == "" else lines


def decode(data: bytes, where: str | Path) -> str:
    """Decodes UTF-8, with or without a byte order mark.

    Args:
        data: the bytes.
        where: the file, for the error message.

    Returns:
        The text, without the mark.

    Raises:
        InputError: it is not UTF-8. The message has the encoding, if it can be told, and the first wrong line.
    """
    for mark, name in MARKS.items():
        if data.startswith(mark):
            raise InputError(f"{where} is {name}: save it as UTF-8")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(f"{where}:{line}: not UTF-8 (byte {data[error.start]:#x}): save it as UTF-8") from error
