"""What surrounds a run: checkpoints, locks, signals, processes, downloads, errors."""
