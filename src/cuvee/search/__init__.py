"""Ways to merge, tried on a validation split and ranked."""
