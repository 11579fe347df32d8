"""Image files as upright 8-bit pixels: one decoder for test images and for images without labels (docs/images.md)."""

import io
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from zskt_dist.errors import one_line

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}
"""Names of image files end so, in small letters or capitals."""
Encoded = bytes | Path | None
"""An image as it is found: the content of its file, where that lies, or nothing."""
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "AVIF", "JPEG2000", "TGA", "ICO", "PCX", "SGI")
"""What is read, of all that Pillow knows: EPS would run a program, and others are no pictures of things."""
_MOST_PIXELS = 2**26
"""Of an image: a network takes far fewer, and a few bytes can stand for more than the memory holds."""
_LFS_POINTER = b"version https://git-lfs"


class ImagesError(ValueError):
    """Images or labels that cannot be read: what is wrong and what would work.

    It names no key: whoever knows which key they belong to makes a `ConfigError` of it.
    """


def open_image(encoded: Encoded) -> Image.Image:
    """An image of which the size and mode are known and no pixel is decoded yet.

    Raises:
        ImagesError: there is none, or none of a kind and size that Pillow reads.
    """
    if encoded is None:
        raise ImagesError("there is no image: neither bytes nor a path")
    if isinstance(encoded, Path):
        if not encoded.is_file():  # a pipe would be waited for
            raise ImagesError(f"there is no file {encoded}")
        encoded = encoded.read_bytes()
    try:
        image = Image.open(io.BytesIO(encoded), formats=_FORMATS)
    except UnidentifiedImageError:  # whose message names a place in memory
        raise ImagesError(f"it is no image that Pillow reads{lfs_hint(encoded)}") from None
    except Exception as error:  # decoders raise whatever a damaged file leads them to
        raise ImagesError(one_line(error)) from None
    if image.width * image.height > _MOST_PIXELS:
        raise ImagesError(f"it has {image.width}x{image.height} pixels, more than {_MOST_PIXELS:,}; make it smaller")
    return image


def decode(image: Image.Image) -> Image.Image:
    """The pixels of an opened image, the way up that its camera has noted, as 8-bit `L` (gray) or `RGB`.

    Gray are 1 bit, 16 bits, floats, and a palette of grays. Opaque alpha is dropped.

    Raises:
        ImagesError: it is damaged, has transparent pixels, or values beyond 16 bits or floats in [0, 1].
    """
    try:
        if image.getexif().get(ExifTags.Base.Orientation):
            image = ImageOps.exif_transpose(image)
        return _in_8_bits(image) if is_deep(image) else _plain(image)
    except ImagesError:
        raise
    except Exception as error:  # as above; not only OSError: a broken PNG is a SyntaxError
        raise ImagesError(one_line(error)) from None


def is_deep(image: Image.Image) -> bool:
    """True for gray images of 16-bit, 32-bit or float values."""
    return image.mode.startswith(("I", "F"))


def _in_8_bits(image: Image.Image) -> Image.Image:
    """65535, or 1 in floats, is white."""
    values = np.asarray(image).astype(np.float64)
    low, high = values.min(), values.max()
    kind, most = ("floats", 1) if image.mode == "F" else ("integers", 65535)
    if not (low >= 0 and high <= most):  # nor is it a number
        raise ImagesError(f"its pixels are {kind} from {low:g} to {high:g}, read are 0 to {most}; save it with 8 bits")
    return Image.fromarray(np.rint(values * (255 / most)).astype(np.uint8))


def _plain(image: Image.Image) -> Image.Image:
    if image.has_transparency_data and np.asarray(image.convert("RGBA"))[:, :, 3].min() < 255:
        raise ImagesError(
            "it has transparent pixels; save it without alpha, on the background that the teacher was trained with"
        )
    if image.mode in ("L", "RGB"):
        image.load()
        return image
    if image.mode in ("1", "LA"):
        return image.convert("L")
    colours = image.convert("RGB")
    return colours.convert("L") if image.mode in ("P", "PA") and is_gray(colours) else colours


def lfs_hint(content: bytes) -> str:
    """How to fetch a file that a clone without Git LFS has not; nothing for other content."""
    return ", but a pointer of Git LFS: `git lfs pull` fetches it" if content.startswith(_LFS_POINTER) else ""


def is_gray(image: Image.Image) -> bool:
    """True for an `L` image, and for an `RGB` one of grays only."""
    pixels = np.asarray(image)
    return image.mode == "L" or bool((pixels == pixels[:, :, :1]).all())
