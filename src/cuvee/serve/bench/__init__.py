"""The speed and memory of served models, side by side: `cuvee bench`."""
