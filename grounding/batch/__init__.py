"""Many photos: one after the other, by worker processes, or several in one pass of the network."""
