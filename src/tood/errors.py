"""The one exception that is meant for a person."""


class ToodError(Exception):
    """Something the user can mend: the message is one clear sentence saying what is wrong, where, and what to do.

    The command line prints the message alone and exits with code 2; a library user catches this class.
    """


class SharedError(ToodError):
    """An error that ends all processes of a run, whichever of them met it: one of them says it."""
