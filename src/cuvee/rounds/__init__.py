"""Rounds: problems that are not solved yet, or not full, are asked again."""
