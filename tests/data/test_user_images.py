"""One shape and one number of channels for images of several modes, and what is said of it."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.support.images import encoded, png, write_parquet
from zskt_dist.data.user_images import UserImages
from zskt_dist.errors import ConfigError

RNG = np.random.default_rng(0)
GRAY = RNG.integers(0, 256, (4, 5, 7), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (4, 5, 7, 3), dtype=np.uint8)


def _images(folder: Path, *files: bytes) -> UserImages:
    write_parquet(folder / "test.parquet", files, [0] * len(files))
    return UserImages(folder)


def _refused(folder: Path, *files: bytes) -> str:
    with pytest.raises(ConfigError) as caught:
        _images(folder, *files).read("test")
    assert caught.value.key == "data.root"
    assert "\n" not in str(caught.value)
    return caught.value.problem


@pytest.mark.parametrize("odd", [0, 3])
def test_one_rgb_image_of_grays_among_gray_ones(tmp_path: Path, odd: int) -> None:
    images = _images(tmp_path, *(png(image, "RGB" if n == odd else "L") for n, image in enumerate(GRAY)))
    assert images.image_shape == (1, 5, 7)
    assert np.array_equal(images.read("test").images[:, 0].numpy(), GRAY)
    assert images.notes == (("images", "mode L, RGB is read as gray of 8 bits"),)


@pytest.mark.parametrize("odd", [0, 3])
def test_one_gray_image_among_colours(tmp_path: Path, odd: int) -> None:
    files = [png(image) for image in COLOUR]
    files[odd] = png(GRAY[odd])
    images = _images(tmp_path, *files)
    assert images.image_shape == (3, 5, 7)
    expected = COLOUR.transpose(0, 3, 1, 2).copy()
    expected[odd] = GRAY[odd]
    assert np.array_equal(images.read("test").images.numpy(), expected)
    assert images.notes == (("images", "mode L, RGB is read as RGB of 8 bits"),)


def test_images_all_of_one_plain_mode_need_no_word(tmp_path: Path) -> None:
    """RGB stays RGB, though it be of grays: so the teacher may have seen it."""
    images = _images(tmp_path, *(png(image, "RGB") for image in GRAY))
    assert (images.image_shape, images.notes) == ((3, 5, 7), ())
    images = _images(tmp_path, *(png(image) for image in GRAY))
    assert (images.image_shape, images.notes) == ((1, 5, 7), ())


@pytest.mark.parametrize(
    ("files", "mode"),
    [
        ([png(image.astype(np.uint16) * 257) for image in GRAY], "I;16"),
        ([encoded(Image.fromarray(image.astype(np.float32) / 255), "TIFF") for image in GRAY], "F"),
        ([png(GRAY[0]), *(png(image, "P") for image in GRAY[1:3]), png(GRAY[3], "LA")], "L, LA, P"),
    ],
)
def test_other_gray_modes_are_said(tmp_path: Path, files: list[bytes], mode: str) -> None:
    images = _images(tmp_path, *files)
    assert np.array_equal(images.read("test").images[:, 0].numpy(), GRAY)
    assert images.notes == (("images", f"mode {mode} is read as gray of 8 bits"),)


def test_a_colour_after_many_gray_images(tmp_path: Path) -> None:
    files = [*[png(GRAY[0])] * 100, png(COLOUR[0])]
    words = _refused(tmp_path, *files)
    assert words == "image 100 of test is in colour, the first of test are gray; save all in mode L, or all in RGB"


@pytest.mark.parametrize("most", [15, 255, 4095])
def test_16_bits_that_are_not_used(tmp_path: Path, most: int) -> None:
    """8 and 12 bits in files of 16 would be read as black."""
    deep = (GRAY.astype(int) * most // 255).astype(np.uint16)
    words = _refused(tmp_path, *(png(image) for image in deep))
    assert words.startswith(f"has test images of mode I;16 that are all but black, {round(most / 257)} of 255 at most")
    assert words.endswith("save them with 8 bits")
    bright = png(np.full((5, 7), 65535, np.uint16))
    assert _images(tmp_path, bright, *(png(image) for image in deep)).read("test").images.max() == 255


def test_a_damaged_image_is_named_by_its_row(tmp_path: Path) -> None:
    files = [*[png(GRAY[0])] * 300, png(GRAY[0])[:50], png(GRAY[0])]
    assert _refused(tmp_path, *files) == "image 300 of test cannot be decoded: OSError: image file is truncated"


def test_an_image_of_another_size_is_not_decoded(tmp_path: Path) -> None:
    """It is large, and its pixels are not there at all."""
    large = encoded(Image.new("L", (5000, 5000)))[:100]
    words = _refused(tmp_path, png(GRAY[0]), large)
    assert words == "image 1 of test is 5000x5000, the first of test is 5x7; resize the images to one size first"
    turned = Image.fromarray(GRAY[0])
    exif = Image.Exif()
    exif[0x112] = 6
    words = _refused(tmp_path, png(GRAY[0]), encoded(turned, exif=exif.tobytes()))
    assert words.startswith("image 1 of test is 7x5, the first of test is 5x7")


def test_a_small_file_of_many_equal_images_is_refused_before_they_are_decoded(tmp_path: Path) -> None:
    """Parquet keeps what is equal once: some kB that would be 2.2 GiB of pixels, and as many rows as one likes."""
    image = png(np.zeros((512, 512, 3), np.uint8))
    write_parquet(tmp_path / "test.parquet", [image] * 3_000, [0, 1] * 1_500)
    size = (tmp_path / "test.parquet").stat().st_size
    assert size < 100_000
    found = UserImages(tmp_path)
    with pytest.raises(ConfigError, match=rf"3,000 test images take 2.2 GiB in memory and {size:,} bytes in files"):
        found.read("test")
    write_parquet(tmp_path / "test.parquet", [image] * 1_000_000, [0, 1] * 500_000)
    with pytest.raises(ConfigError, match=r"test.parquet has 1,000,000 rows in [\d,]+ bytes, which cannot be images"):
        UserImages(tmp_path)


def test_one_large_value_for_all_rows_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    image = pa.DictionaryArray.from_arrays([0] * 256, pa.array([bytes(2**24)]))
    table = pa.table({"image": image, "label": [0] * 256})
    pq.write_table(table, tmp_path / "test.parquet", compression="zstd", store_schema=False)
    with pytest.raises(ConfigError, match=r"test.parquet has [\d,]+ bytes and unpacks to more than 1,073,741,824"):
        UserImages(tmp_path)
