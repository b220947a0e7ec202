"""Answers about photos in WebDataset tars: any number of shards, shared by any number of processes and machines."""
