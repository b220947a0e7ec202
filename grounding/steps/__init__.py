"""The steps of the command line: ``ground``, ``layers``, ``methods`` and others."""
