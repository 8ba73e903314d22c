"""`python -m fmnist_fast` is the command `fmnist-fast`."""

import sys


def main() -> int:
    """Run the command line; returns the exit code."""
    try:
        from .cli.main import main as command  # noqa: PLC0415 - Ctrl-C while loading is caught

        return command()
    except KeyboardInterrupt:  # while the modules were loading
        print("fmnist-fast: stopped", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
