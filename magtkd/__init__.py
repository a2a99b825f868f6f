"""magtkd: the core trainer of MAGTKD (arXiv 2506.18716). Runs alone, without the search."""

__version__ = "0.1.0"
