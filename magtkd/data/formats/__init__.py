"""Releases of the field, one file a format, as tables of conversations."""
