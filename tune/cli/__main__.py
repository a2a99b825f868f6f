"""`python -m tune.cli`."""

from tune.cli.commands import main

main()
