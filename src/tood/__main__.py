"""`python -m tood` is `tood`."""

from tood.cli import main

if __name__ == "__main__":
    main()
