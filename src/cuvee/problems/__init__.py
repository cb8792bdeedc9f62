"""Where problems come from, and which are left out."""
