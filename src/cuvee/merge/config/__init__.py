"""Reads the config of a merge: ours or mergekit's YAML in, a `MergeConfig` out."""
