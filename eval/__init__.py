"""Evaluation: readers of data sets, metrics with intervals, reports and benchmarks."""
