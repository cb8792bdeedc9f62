"""What a merge did, in numbers and pictures."""
