"""The configuration of a sweep: what is searched, over which values, and how it is run."""
