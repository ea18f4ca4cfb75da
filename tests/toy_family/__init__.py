"""A family with nothing but what a family needs, as `CONTRIBUTING.md` tells it.

It stands here as it would in `src/tood/models/toy/`: `tests/test_adding_a_family.py` copies the house, lays it there,
adds its line to `models/families.py`, and tries all that the house promises of every family.
"""

from tood.models.toy.config import Toy, ToyConfig

__all__ = ["Toy", "ToyConfig"]
