"""What a run hands out: the report, the card, GGUF files."""
