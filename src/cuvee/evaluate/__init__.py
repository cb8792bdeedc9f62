"""Base, specialists and merged model, scored on held-out problems."""
