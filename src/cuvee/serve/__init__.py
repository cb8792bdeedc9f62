"""A released model at work: commands, Modelfile, chat, and how fast it answers."""
