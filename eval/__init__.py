"""Judges groundings: readers of datasets, measures, and the step that prints the tables."""
