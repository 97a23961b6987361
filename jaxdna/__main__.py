"""Lets ``python -m jaxdna`` do what the ``jaxdna`` command does."""

from jaxdna.cli.main import entry

if __name__ == "__main__":
    entry()
