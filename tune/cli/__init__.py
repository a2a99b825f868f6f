"""The command line of the search."""
