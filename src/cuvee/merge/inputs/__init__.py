"""Checkpoints and adapters that go into a merge: headers, agreement, reading rows."""
