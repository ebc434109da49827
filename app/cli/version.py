"""`stepwell version`: what is installed."""

import platform
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed

import click


def product_version() -> str:
    """Give the version of the installed product; a bare checkout says so."""
    try:
        return installed("stepwell-server")
    except PackageNotFoundError:
        return "0 (not installed)"


@click.command()
def version() -> None:
    """Print the version of Stepwell and of Python."""
    click.echo(f"stepwell {product_version()} (Python {platform.python_version()}, {platform.system().lower()})")
