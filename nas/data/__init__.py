"""What a search works on: data files and named tasks, strictly checked."""
