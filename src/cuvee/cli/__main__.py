"""`python -m cuvee.cli`: the command line, as the entry point `cuvee`."""

from cuvee.cli import main

main()
