"""Merge methods: pure functions from a stack of tensors to the rule that merges them."""
