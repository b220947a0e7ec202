"""The steps of the command line that belong to grounding."""
