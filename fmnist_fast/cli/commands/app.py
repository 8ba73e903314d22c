"""Options of the command `app`."""

import click

from ..lazy import deferred


@click.command()
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    help="Port to listen on.  [default: 8501, or the next free one]",
)
@click.option("--address", help="Address to listen on; 0.0.0.0 for all.  [default: 127.0.0.1]")
@click.option(
    "--browser/--no-browser",
    default=None,
    help="Open a browser.  [default: where there is a display]",
)
@deferred("app:app")
def app() -> None:
    """Run the app: classify, train, benchmark, explore.

    It needs no network, and only this machine can reach it unless --address says otherwise: then
    anybody who can reach the address may use it, and train on this machine.

      \b
      fmnist-fast app
      fmnist-fast app --port 8600 --no-browser
    """
