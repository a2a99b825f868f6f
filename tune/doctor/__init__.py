"""Checks of a machine before a sweep."""
