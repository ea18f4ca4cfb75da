"""Colours of classes, told apart by colour-blind people too."""

from __future__ import annotations

RGB = tuple[int, int, int]

# Okabe and Ito's eight less black and grey, then Paul Tol's "muted": both made for all kinds of colour vision.
PALETTE: tuple[RGB, ...] = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
    (136, 204, 238),
    (68, 170, 153),
    (153, 153, 51),
    (221, 204, 119),
    (204, 102, 119),
    (170, 68, 153),
    (51, 34, 136),
    (17, 119, 51),
    (136, 34, 85),
)


def class_colour(label: int) -> RGB:
    """The colour of a class, the same in every picture; the palette starts anew after 16 classes."""
    return PALETTE[label % len(PALETTE)]


def text_colour(background: RGB) -> RGB:
    """Black or white, whichever is easier to read on a colour."""
    red, green, blue = background
    # Weights of perceived brightness (ITU-R BT.601); white carries further than its share.
    return (0, 0, 0) if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else (255, 255, 255)
