"""Image files as people have them: read at their value and the right way up, or refused in words."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.images import encoded, png
from zskt_dist.data.decoding import ImagesError, decode, open_image

RNG = np.random.default_rng(0)
GRAY = RNG.integers(0, 256, (5, 7), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8)


def _read(content: bytes | Path | None) -> tuple[str, np.ndarray]:
    image = decode(open_image(content))
    return image.mode, np.asarray(image)


def _refused(content: bytes | Path | None) -> str:
    with pytest.raises(ImagesError) as caught:
        _read(content)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png_of(width: int, height: int, *chunks: bytes) -> bytes:
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + _chunk(b"IEND", b"")


WIDE = GRAY.astype(np.uint16) * 257  # 255 is 65535
SAME_GRAY = {
    "16-bit PNG": png(WIDE),
    "16-bit TIFF": encoded(Image.fromarray(WIDE), "TIFF"),
    "16-bit TIFF, big-endian": encoded(Image.fromarray(WIDE.astype(">u2")), "TIFF"),
    "32-bit TIFF": encoded(Image.fromarray(WIDE.astype(np.int32)), "TIFF"),
    "float TIFF": encoded(Image.fromarray(GRAY.astype(np.float32) / 255), "TIFF"),
    "gray with opaque alpha": png(np.dstack([GRAY, np.full_like(GRAY, 255)])),
    "palette of grays": png(GRAY, "P"),
    "GIF": encoded(Image.fromarray(GRAY), "GIF"),
    "PGM": encoded(Image.fromarray(GRAY), "PPM"),
    "PNG": png(GRAY),
}


@pytest.mark.parametrize("kind", SAME_GRAY)
def test_gray_in_any_mode_is_read_at_its_value(kind: str) -> None:
    mode, pixels = _read(SAME_GRAY[kind])
    assert (mode, pixels.dtype) == ("L", np.uint8)
    assert np.array_equal(pixels, GRAY)


def test_16_bits_are_rounded_to_the_nearest_of_8() -> None:
    _, pixels = _read(png(np.array([[0, 128, 129, 385, 386, 65406, 65407, 65535]], dtype=np.uint16)))
    assert pixels.tolist() == [[0, 0, 1, 1, 2, 254, 255, 255]]


def test_one_bit_is_black_and_white() -> None:
    mode, pixels = _read(encoded(Image.fromarray(GRAY > 100)))
    assert mode == "L"
    assert np.array_equal(pixels, np.where(GRAY > 100, 255, 0))


def test_colours_stay() -> None:
    for content in (png(COLOUR), png(COLOUR, "RGBA"), encoded(Image.fromarray(COLOUR), "WEBP", lossless=True)):
        mode, pixels = _read(content)
        assert mode == "RGB"
        assert np.array_equal(pixels, COLOUR)
    few = np.zeros((4, 4, 3), dtype=np.uint8)
    few[1, 2] = (255, 0, 51)  # a colour of the web palette
    mode, pixels = _read(png(few, "P"))
    assert mode == "RGB"
    assert np.array_equal(pixels, few)


# By orientation, the upright pixels of stored ones: from the Exif standard's table of the 0th row and column.
UPRIGHT = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.T,
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: stored[::-1, ::-1].T,
    8: lambda stored: np.rot90(stored),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_the_way_up_that_the_camera_noted(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x112] = orientation
    upright = UPRIGHT[orientation](GRAY)
    assert np.array_equal(_read(encoded(Image.fromarray(GRAY), exif=exif.tobytes()))[1], upright)
    assert np.array_equal(_read(encoded(Image.fromarray(WIDE), exif=exif.tobytes()))[1], upright), "16 bits"
    smooth = np.repeat(np.repeat(GRAY[:2, :2], 16, 0), 16, 1)
    _, pixels = _read(encoded(Image.fromarray(smooth), "JPEG", quality=100, exif=exif.tobytes()))
    assert np.abs(pixels.astype(int) - UPRIGHT[orientation](smooth)).max() <= 3


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (GRAY.astype(np.float32), "floats from "),
        (GRAY.astype(np.float32) / 127.5 - 1, "floats from -"),
        (np.full((2, 2), np.nan, dtype=np.float32), "floats from nan to nan"),
        (GRAY.astype(np.int32) * 1000, "integers from "),
        (np.full((2, 2), -3, dtype=np.int32), "integers from -3 to -3"),
    ],
    ids=["255 is white", "-1 to 1", "no number", "over 16 bits", "negative"],
)
def test_values_of_unknown_range_are_refused(values: np.ndarray, kind: str) -> None:
    words = _refused(encoded(Image.fromarray(values), "TIFF"))
    assert words.startswith(f"its pixels are {kind}")
    assert words.endswith(
        ", read are 0 to 1; save it with 8 bits" if "float" in kind else "0 to 65535; save it with 8 bits"
    )


def _with_hole(mode: str) -> Image.Image:
    image = Image.fromarray(GRAY).convert(mode)
    image.putalpha(Image.fromarray(np.where(GRAY[2, 3] == GRAY, 254, 255).astype(np.uint8)))
    return image


TRANSPARENT = {
    "LA": encoded(_with_hole("L")),
    "RGBA": encoded(_with_hole("RGB")),
    "palette": encoded(Image.fromarray(GRAY).convert("P"), transparency=int(GRAY[2, 3])),
    "a gray": encoded(Image.fromarray(GRAY), transparency=int(GRAY[2, 3])),
    "a colour": encoded(Image.fromarray(COLOUR), transparency=tuple(COLOUR[2, 3].tolist())),
}


@pytest.mark.parametrize("kind", TRANSPARENT)
def test_transparent_pixels_are_refused(kind: str) -> None:
    """Nobody says on which background the teacher saw them."""
    assert _refused(TRANSPARENT[kind]).startswith("it has transparent pixels; save it without alpha, on the background")


def test_a_transparent_colour_that_no_pixel_has_is_no_matter() -> None:
    unused = next(level for level in range(256) if level not in GRAY)
    mode, pixels = _read(encoded(Image.fromarray(GRAY), transparency=unused))
    assert mode == "L"
    assert np.array_equal(pixels, GRAY)


def test_damaged_files() -> None:
    assert _refused(png(GRAY)[:50]) == "OSError: image file is truncated"
    halves = zlib.compress(b"".join(b"\0" + row.tobytes() for row in GRAY))
    garbled = _chunk(b"IDAT", halves[:5]) + struct.pack(">I", 4) + b"\xa9\x8a\xbc\x07" + halves[5:]
    assert "broken PNG file" in _refused(_png_of(7, 5, garbled))
    assert _refused(b"no image") == _refused(b"") == "it is no image that Pillow reads"
    assert "`git lfs pull`" in _refused(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    assert _refused(None) == "there is no image: neither bytes nor a path"
    notes = _chunk(b"zTXt", b"notes\0\0" + zlib.compress(bytes(10**7)))  # a bomb beside the pixels
    assert "too large" in _refused(_png_of(7, 5, notes, _chunk(b"IDAT", halves)))


def test_an_image_that_would_fill_the_memory_is_not_decoded() -> None:
    bomb = _png_of(40_000, 40_000, _chunk(b"IDAT", zlib.compress(bytes(100))))
    with pytest.raises(ImagesError, match="1600000000 pixels"):
        open_image(bomb)


def test_files_are_read_where_they_lie(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(GRAY))
    assert np.array_equal(_read(tmp_path / "a.png")[1], GRAY)
    assert _refused(tmp_path / "b.png") == f"there is no file {tmp_path / 'b.png'}"
    assert _refused(tmp_path) == f"there is no file {tmp_path}"


AS_DATASETS = {
    **{kind: png(COLOUR, kind) for kind in ("RGB", "RGBA", "P")},
    **{kind: png(GRAY, kind) for kind in ("L", "LA", "1")},
    "JPEG": encoded(Image.fromarray(COLOUR), "JPEG"),
    "CMYK": encoded(Image.fromarray(COLOUR).convert("CMYK"), "JPEG"),
    "GIF": encoded(Image.fromarray(COLOUR), "GIF"),
    "BMP": encoded(Image.fromarray(COLOUR), "BMP"),
}


@pytest.mark.parametrize("kind", AS_DATASETS)
@pytest.mark.parametrize("orientation", [1, 6])
def test_as_the_library_datasets_reads_it(kind: str, orientation: int) -> None:
    """Both brought to RGB: it leaves modes as they are."""
    feature = pytest.importorskip("datasets").Image()
    image = Image.open(io.BytesIO(AS_DATASETS[kind]))
    exif = Image.Exif()
    exif[0x112] = orientation
    kinds = {} if image.format in ("GIF", "BMP") else {"exif": exif.tobytes()}
    content = encoded(image, image.format or "", **kinds)
    theirs = feature.decode_example({"bytes": content, "path": None}).convert("RGB")
    assert np.array_equal(np.asarray(decode(open_image(content)).convert("RGB")), np.asarray(theirs))


def test_an_image_of_more_pixels_than_any_network_takes() -> None:
    with pytest.raises(ImagesError, match="it has 9000x9000 pixels, more than 67,108,864; make it smaller"):
        open_image(_png_of(9000, 9000))
    assert open_image(_png_of(8192, 8192)).size == (8192, 8192)


def test_a_file_that_would_run_a_program_is_no_image() -> None:
    """Pillow hands EPS to Ghostscript where that is installed."""
    with pytest.raises(ImagesError, match="it is no image that Pillow reads"):
        open_image(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n")
