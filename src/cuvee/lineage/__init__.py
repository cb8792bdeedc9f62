"""Lineage: from any id of a run back to its source and on to its training set; the data card."""
