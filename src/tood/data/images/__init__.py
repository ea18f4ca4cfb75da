"""Image files: what their headers say, and their pixels as RGB."""

from tood.data.images.decoded import DecodedImage
from tood.data.images.decoding import (
    FileFacts,
    decode_image,
    file_facts,
    image_damage,
    image_header,
    image_size,
    read_image,
    reduced_shape,
)
from tood.data.images.depth import from_sixteen_bits
from tood.data.images.headers import ImageHeader
from tood.data.images.limit import MAX_PIXELS, MAX_PIXELS_VARIABLE, pixel_limit
from tood.data.images.orientation import file_orientation, orientation, turn_boxes, turned_size, upright
from tood.data.images.pillow import decode_picture, picture_pixels

__all__ = [
    "MAX_PIXELS",
    "MAX_PIXELS_VARIABLE",
    "DecodedImage",
    "FileFacts",
    "ImageHeader",
    "decode_image",
    "decode_picture",
    "file_facts",
    "file_orientation",
    "from_sixteen_bits",
    "image_damage",
    "image_header",
    "image_size",
    "orientation",
    "picture_pixels",
    "pixel_limit",
    "read_image",
    "reduced_shape",
    "turn_boxes",
    "turned_size",
    "upright",
]
