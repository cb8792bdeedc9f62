"""One specialist per domain, trained on its examples."""
