"""Which version of this package is installed."""

from importlib.metadata import PackageNotFoundError, version


def own_version() -> str:
    """The installed package's version; "0+unknown" where only its files are there."""
    try:
        return version("tood")
    except PackageNotFoundError:
        return "0+unknown"
