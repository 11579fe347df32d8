"""Answers are read as people write them, and refused with what would do."""

import pytest

from zskt_dist.errors import UserError
from zskt_dist.init.answers import read_count, read_mean, read_shape, read_std, write_numbers


@pytest.mark.parametrize(
    "text", ["3,32,24", "[3, 32, 24]", "(3,32,24)", "3x32x24", " 3 32 24 ", "3×32×24", "3, 32; 24"]
)
def test_a_shape_however_it_is_written(text: str) -> None:
    assert read_shape(text) == (3, 32, 24)


def test_channels_that_are_known_need_not_be_repeated() -> None:
    assert read_shape("28", channels=1) == (1, 28, 28)
    assert read_shape("28x20", channels=1) == (1, 28, 20)
    assert read_shape("3,28,20", channels=1) == (3, 28, 20), "and may be contradicted"


@pytest.mark.parametrize(
    "text", ["", "32", "32,32", "3,32,0", "3,32,-1", "3,32,32,1", "3,32.5,32", "big", "3,9999999,3"]
)
def test_what_is_no_shape(text: str) -> None:
    with pytest.raises(UserError, match="write channels,height,width, for example 3,32,32"):
        read_shape(text)


@pytest.mark.parametrize("text", ["0.1,0.2,0.3", "[0.1, 0.2, 0.3]", "(.1, .2, 3e-1)", "0.1 0.2 0.3"])
def test_numbers_however_they_are_written(text: str) -> None:
    assert read_mean(text, 3) == (0.1, 0.2, 0.3)
    assert read_std(text, 3) == (0.1, 0.2, 0.3)


def test_one_number_stands_for_all_channels() -> None:
    assert read_mean("0.5", 3) == (0.5, 0.5, 0.5)
    assert read_std("1", 1) == (1.0,)
    assert read_mean("0.5") == (0.5,), "where nobody knows yet how many there are"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0.5,0.5", "'0.5,0.5' has 2 numbers, and images of 3 channels need 3, or one for all"),
        ("nan", "'nan' is no list of numbers; write one per channel, for example 0.485,0.456,0.406"),
        ("", "'' is no list of numbers"),
        ("imagenet", "'imagenet' is no list of numbers"),
        ("51,102,127.5", "is of pixels from 0 to 255; for pixels in [0, 1] it is 0.2,0.4,0.5"),
    ],
)
def test_what_is_no_mean(text: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        read_mean(text, 3)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0", "a standard deviation is larger than 0; where nothing was divided it is 1"),
        ("-0.5", "a standard deviation is larger than 0"),
        ("51", "is of pixels from 0 to 255; for pixels in [0, 1] it is 0.2"),
        ("x", "for example 0.5"),
    ],
)
def test_what_is_no_standard_deviation(text: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        read_std(text, 1)
    assert message in str(caught.value)


@pytest.mark.parametrize("numbers", [(0.4914, 0.4822, 0.4465), (1 / 3,), (1 / 255,), (0.0, 1.0)])
def test_numbers_are_read_as_they_are_written(numbers: tuple[float, ...]) -> None:
    assert read_mean(write_numbers(numbers)) == pytest.approx(numbers, rel=1e-11, abs=0)


@pytest.mark.parametrize("text", ["1", "0", "-3", "ten", "2.5", "", "10000000000"])
def test_what_is_no_number_of_classes(text: str) -> None:
    with pytest.raises(UserError, match="write a whole number from 2 on"):
        read_count(text)
    assert read_count("2") == 2
