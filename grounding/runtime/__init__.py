"""What any program needs to run: files, devices, ranks, worker processes, timing."""
