"""Data sets as tools write them, one file a format."""
