"""The command line: parse, call, print. No logic."""

from edgekd.cli import train_commands  # isort: skip - the order of the commands in --help
from edgekd.cli import catalogue_commands, device_commands, file_commands
from edgekd.cli.app import main

__all__ = ["catalogue_commands", "device_commands", "file_commands", "main", "train_commands"]
