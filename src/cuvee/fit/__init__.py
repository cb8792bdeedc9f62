"""What a model takes on a machine: file, memory, speed; from its sizes alone."""
