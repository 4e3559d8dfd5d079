"""The command group: deliberate errors become one line and an exit code."""

from __future__ import annotations

import os
from typing import Any

import click

from edgekd import __version__
from edgekd.core.errors import EdgeKDError

# Before OpenMP is loaded: threads that wait by spinning take the CPU from those they wait for. On
# two cores, beside one busy process, training is 1.6 times as fast without, and alone no slower.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


class _Commands(click.Group):
    """Turns deliberate errors into one line and their exit code, and Ctrl-C into a promise."""

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - click's own signature
        try:
            return super().invoke(ctx)
        except EdgeKDError as error:
            click.echo(f"error: {error}", err=True)
            ctx.exit(error.exit_code)
        except BrokenPipeError:  # Who read us has gone; click ends quietly.
            raise
        except OSError as error:  # A full disk, a folder that may not be written.
            click.echo(f"error: {error}", err=True)
            ctx.exit(2)
        except KeyboardInterrupt:
            click.echo("\ninterrupted; the same command goes on from the last checkpoint", err=True)
            ctx.exit(130)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="edgekd")
def main() -> None:
    """Distil, quantize, export and prove a vision model for an edge device.

    \b
    edgekd compress --target jetson                    the whole path on the built-in demo
    edgekd compress --target raspberry-pi --data DATA  on your data set
    """  # noqa: D301 - click keeps lines after a backspace character as they are
