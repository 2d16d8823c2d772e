"""Chance that depends on what it is for and when, never on how often it was asked.

So a script from which an action was taken away plays the rest of it with (nearly) the same luck, and can be shrunk.
"""

from __future__ import annotations

__all__ = ["Noise"]

_MASK = (1 << 64) - 1


class Noise:
    """Numbers in [0, 1) from a seed and any integers."""

    __slots__ = ("_seed",)

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def __call__(self, *what: int) -> float:
        # The hash of a tuple of integers is the same in every process; two rounds of mixing make it even.
        x = hash((self._seed, *what)) & _MASK
        x = ((x ^ (x >> 33)) * 0xFF51AFD7ED558CCD) & _MASK
        x = ((x ^ (x >> 33)) * 0xC4CEB9FE1A85EC53) & _MASK
        return ((x ^ (x >> 33)) >> 11) / (1 << 53)
