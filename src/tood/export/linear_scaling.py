"""OpenCV's linear interpolation of bytes (`cv2.resize`), in whole numbers: what graphs that scale pictures repeat.

Each scaled pixel is computed from two rows of two columns. Weights have 11 bits. What the columns give is shifted, the
rows' weights are multiplied with it, and both products are shifted before they are added: so two rows of one picture's
border, whose weights add up to 1, give less than that row alone. Columns beyond the border have a weight of 0 instead.
"""

WEIGHT_BITS = 11
# Of what two columns give together; of each row's product; of their sum, which is rounded.
FIRST_SHIFT, SECOND_SHIFT, LAST_SHIFT = 4, 16, 2
