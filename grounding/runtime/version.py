"""The version of this software, which files record beside their contents."""

VERSION = "0.2.0"
