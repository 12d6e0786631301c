"""What a front member becomes: files for runtimes, and the proof that they compute the same."""
