"""What a recipe will cost, before it runs and while it does."""
