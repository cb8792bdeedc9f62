"""Is an answer right? Math by symbolic comparison, code by running tests in a sandbox."""
