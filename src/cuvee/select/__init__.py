"""Which verified traces become examples to train on."""
