"""Images that a user has: from image files and Parquet, brought to one shape, and refused in one line."""

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from zskt_dist.data.images import sha256_of_pixels
from zskt_dist.data.unlabelled import count_unlabelled, read_unlabelled
from zskt_dist.errors import ConfigError
from zskt_dist.models import ImageShape

KEY = "inversion.seed_images"
GRAY, COLOUR = ImageShape(1, 4, 4), ImageShape(3, 4, 4)


def _png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def test_files_of_a_folder_and_of_those_in_it_come_in_the_order_of_their_names(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    for name, value in (("b/2.PNG", 20), ("a.png", 10), ("b/1.jpg", 15)):
        Image.fromarray(np.full((4, 4), value, dtype=np.uint8)).save(tmp_path / name, quality=100)
    (tmp_path / "notes.txt").write_text("no image")
    images = read_unlabelled(KEY, str(tmp_path), GRAY)
    assert images.shape == (3, 1, 4, 4)
    assert images[:, 0, 0, 0].tolist() == [10, 15, 20]
    assert torch.equal(images, read_unlabelled(KEY, str(tmp_path), GRAY))


def test_they_are_decoded_as_test_images_are(tmp_path: Path) -> None:
    """16 bits and floats at their value, a camera held upright is heard, transparency is refused."""
    pixels = np.zeros((4, 4), dtype=np.uint8)
    pixels[:2] = 200
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    Image.fromarray(pixels[::-1]).save(tmp_path / "a.png", exif=exif)
    Image.fromarray(pixels.astype(np.uint16) * 257).save(tmp_path / "b.png")
    Image.fromarray(pixels.astype(np.float32) / 255).save(tmp_path / "c.tif")
    for image in read_unlabelled(KEY, str(tmp_path), GRAY):
        assert np.array_equal(image[0].numpy(), pixels)
    Image.fromarray(np.dstack([pixels, pixels])).save(tmp_path / "d.png")
    with pytest.raises(ConfigError, match=r"d\.png cannot be read \(it has transparent pixels; save it without alpha"):
        read_unlabelled(KEY, str(tmp_path), GRAY)


def test_rows_of_a_parquet_file_may_be_paths_and_are_named_where_damaged(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "0.png").write_bytes(_png(np.full((4, 4), 7, np.uint8)))
    rows = [{"bytes": None, "path": f"pictures/{number}.png"} for number in (0, 1)]
    pq.write_table(pa.table({"image": rows[:1]}), tmp_path / "a.parquet")
    assert read_unlabelled(KEY, str(tmp_path / "a.parquet"), GRAY).unique().tolist() == [7]
    pq.write_table(pa.table({"image": rows}), tmp_path / "a.parquet")
    with pytest.raises(ConfigError, match=r"a\.parquet cannot be read \(row 1: there is no file .*1\.png"):
        read_unlabelled(KEY, str(tmp_path / "a.parquet"), GRAY)


def test_images_are_counted_without_reading_them_and_damage_is_left_to_whoever_does(tmp_path: Path) -> None:
    for name in ("a.png", "b.JPG", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    pq.write_table(pa.table({"image": [b""] * 5}), tmp_path / "c.PARQUET")
    assert count_unlabelled(str(tmp_path)) == 7
    (tmp_path / "d.parquet").write_bytes(b"no Parquet")
    assert count_unlabelled(str(tmp_path)) == 2
    with pytest.raises(ConfigError, match="cannot be read"):
        read_unlabelled(KEY, str(tmp_path / "d.parquet"), GRAY)


def test_the_middle_of_the_right_proportions_is_taken_and_resized(tmp_path: Path) -> None:
    pixels = np.zeros((8, 16, 3), dtype=np.uint8)
    pixels[:, 4:12] = (200, 100, 50)  # the middle square
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    colour = read_unlabelled(KEY, str(tmp_path / "wide.png"), COLOUR)
    assert colour.shape == (1, 3, 4, 4)
    assert colour[0, :, 1, 1].tolist() == [200, 100, 50]
    assert (colour[0, 0, :, 1:3] == 200).all()
    gray = read_unlabelled(KEY, str(tmp_path), GRAY)
    assert gray[0, 0, 2, 2].item() == round(0.299 * 200 + 0.587 * 100 + 0.114 * 50)


@pytest.mark.parametrize("wrapped", [True, False])
def test_parquet_without_labels(tmp_path: Path, wrapped: bool) -> None:
    encoded = [_png(np.full((4, 4), value, dtype=np.uint8)) for value in (1, 2, 3)]
    column = pa.array([{"bytes": each, "path": None} for each in encoded]) if wrapped else pa.array(encoded)
    pq.write_table(pa.table({"img": column}), tmp_path / "any.parquet")
    assert read_unlabelled(KEY, str(tmp_path), GRAY)[:, 0, 0, 0].tolist() == [1, 2, 3]


def test_the_digest_tells_images_apart() -> None:
    images = torch.arange(32, dtype=torch.uint8).view(2, 1, 4, 4)
    assert sha256_of_pixels(images) == sha256_of_pixels(images.clone())
    assert sha256_of_pixels(images) != sha256_of_pixels(images.flip(0))


def test_what_is_no_image_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"inversion\.seed_images=.*nowhere'.*no such file or folder"):
        read_unlabelled(KEY, str(tmp_path / "nowhere"), GRAY)
    with pytest.raises(ConfigError, match=r"has no images: no Parquet file, and no \.bmp"):
        read_unlabelled(KEY, str(tmp_path), GRAY)
    (tmp_path / "half.png").write_bytes(_png(np.zeros((4, 4), dtype=np.uint8))[:40])
    with pytest.raises(ConfigError, match=r"half\.png cannot be read"):
        read_unlabelled(KEY, str(tmp_path), GRAY)
    (tmp_path / "half.png").unlink()
    pq.write_table(pa.table({"pixels": [1]}), tmp_path / "x.parquet")
    with pytest.raises(
        ConfigError, match=r"x\.parquet cannot be read \(no column named image or img; there are: pixels"
    ):
        read_unlabelled(KEY, str(tmp_path), GRAY)
    (tmp_path / "x.parquet").write_bytes(b"no parquet")
    with pytest.raises(ConfigError, match=r"x\.parquet cannot be read"):
        read_unlabelled(KEY, str(tmp_path), GRAY)
    with pytest.raises(ConfigError, match="image files have 1 or 3 channels, the networks take 4"):
        read_unlabelled(KEY, str(tmp_path), ImageShape(4, 4, 4))
