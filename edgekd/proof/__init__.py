"""Exported files read back and held against what was trained."""
