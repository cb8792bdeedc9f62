"""Whatever opens or serves a model: checkpoints, templates, tokens, GGUF, engines."""
