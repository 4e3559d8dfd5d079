"""Files that are copied to boards: each is whole by itself, and older Pythons run it."""

from pathlib import Path


def standalone_file(name: str) -> Path:
    """Returns the path of ``agent.py``, ``decoder.py`` or ``replay.py``."""
    return Path(__file__).with_name(name)
