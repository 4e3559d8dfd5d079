"""Data sets as tools write them, one file a format; a new file in this folder joins by itself."""
