"""What any program needs to run here: files, devices, ranks, workers, clocks."""
