"""Checks programs against tests: `cuvee.verify.code.check`."""
