"""The steps of the command line: ``ground``, ``layers`` and ``propose``."""
