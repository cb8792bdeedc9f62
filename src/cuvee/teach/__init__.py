"""Teachers answer problems over HTTP; every request is kept in the ledger."""
