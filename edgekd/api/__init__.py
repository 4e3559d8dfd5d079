"""EdgeKD from Python: what the commands do, as functions that return records.

Every function raises `edgekd.EdgeKDError` (`edgekd.core.errors` draws the tree) where the command
would end with exit code 2, 3 or 4; the message is the one that the command prints.
"""
