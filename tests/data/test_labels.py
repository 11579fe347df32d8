"""Labels as people write them: one numbering, said in words, or refused in words."""

import random

import pytest

from zskt_dist.data.decoding import ImagesError
from zskt_dist.data.labels import Labels, number_labels

LETTERS = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"]
FASHION = [
    "T - shirt / top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
]


def _number(
    test: list[object],
    train: list[object] | None = None,
    named: list[str] | None = None,
    num_classes: int | None = None,
) -> Labels:
    return number_labels(train or [], test, named, num_classes)


def _refused(*splits: list[object], named: list[str] | None = None, num_classes: int | None = None) -> str:
    with pytest.raises(ImagesError) as caught:
        _number(*splits, named=named, num_classes=num_classes)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_integers_from_0_are_taken_as_they_are_and_may_lack_classes() -> None:
    assert _number([0, 2, 5]) == Labels({0: 0, 2: 2, 5: 5}, 6, None, counted=True)
    assert _number([0, 2], [5, None, -1], num_classes=9).num_classes == 6


@pytest.mark.parametrize("labels", [["3", "0", "10"], ["03", "00", "10"], [3.0, 0.0, 10.0], ["3.0", "0", "10"]])
def test_numbers_in_another_guise(labels: list[object]) -> None:
    found = _number(labels)
    assert found.numbers == {labels[0]: 3, labels[1]: 0, labels[2]: 10}
    assert (found.num_classes, found.names, found.counted) == (11, None, True)
    assert found.said
    assert found.said.startswith(f"{labels[1]} is 0, {labels[0]} is 3, {labels[2]} is 10 (by number")
    assert (", not as text" in found.said) == (labels[0] in ("3", "3.0")), "text has 10 before 3"


def test_truth_values_are_two_classes() -> None:
    found = _number([True])
    assert (found.numbers[True], found.num_classes, found.counted) == (1, 2, False)
    assert _number([False, True]).said == "False is 0, True is 1 (by number)"


@pytest.mark.parametrize("label", [None, float("nan"), "", -1, "-1", -1.0])
def test_missing_labels_have_no_number(label: object) -> None:
    assert label not in _number([label, 0, 1]).numbers
    assert _refused([label]).startswith("has no labels; if others have")


def test_names_of_other_classes_than_the_networks_tell_apart() -> None:
    assert "data.class_names=[…], or make an empty folder for each class" in _refused(LETTERS[:9], num_classes=10)
    assert "take out the images of others" in _refused(LETTERS[:9], num_classes=8)


@pytest.mark.parametrize("guise", [int, float, str])
@pytest.mark.parametrize("num_classes", [None, 4])
def test_labels_from_1(guise: type, num_classes: int | None) -> None:
    found = _number([guise(2), guise(4)], [guise(1), guise(3)], num_classes=num_classes)
    assert [found.numbers[guise(label)] for label in (1, 2, 3, 4)] == [0, 1, 2, 3]
    assert found.num_classes == 4
    assert found.said
    assert "(from 1, and none is 0" in found.said
    assert ("data.num_classes=5 takes them as they are" in found.said) == (num_classes is None)


def test_labels_from_1_need_not_all_occur_where_the_classes_are_known() -> None:
    assert _number([1, 4], num_classes=4).numbers == {1: 0, 4: 3}
    assert _number([1, 4], named=LETTERS[:4]).numbers == {1: 0, 4: 3}


@pytest.mark.parametrize(
    ("labels", "num_classes"), [([1, 2, 3], 4), ([1, 2, 4], None), ([1], None), ([2, 3, 4], 4), ([0, 1, 2], 2)]
)
def test_labels_that_may_well_count_from_0(labels: list[object], num_classes: int | None) -> None:
    found = _number(labels, num_classes=num_classes)
    assert found.numbers == {label: label for label in labels}
    assert bool(found.said and "(as they are, and none is 0)" in found.said) == (labels[0] != 0)


@pytest.mark.parametrize("labels", [["cat", "Ape", "bee"], ["digit_1", "digit_0"], ["n02", "n10", "n01"]])
def test_names_are_numbered_as_image_folder_numbers_them(labels: list[str]) -> None:
    found = _number([*labels, None])
    assert [found.numbers[name] for name in sorted(labels)] == list(range(len(labels)))
    assert (found.names, found.num_classes, found.counted) == (sorted(labels), len(labels), False)
    assert found.said
    assert "in alphabetical order" in found.said


def test_what_is_said_of_many_classes() -> None:
    said = _number(list(LETTERS)).said
    assert said
    assert said.startswith("a is 0, b is 1, c is 2, …, l is 11 (")


def test_captions_are_no_classes_and_fit_on_a_line() -> None:
    captions: list[object] = [f"A dog\nnumber {number} runs over a {'very ' * 50}large field" for number in range(30)]
    words = _refused(captions, num_classes=10)
    assert words.startswith("has 30 class names (A dog number 0 runs over a very very ver…, A dog number 1 runs")
    assert len(words) < 500


def test_names_of_the_files_go_first() -> None:
    found = _number(["cat", "owl"], named=["owl", "ape", "cat"])
    assert (found.numbers, found.names) == ({"owl": 0, "ape": 1, "cat": 2}, ["owl", "ape", "cat"])
    assert found.said == "owl is 0, ape is 1, cat is 2 (as the files name them)"
    assert _number(["1", "7"], named=["7", "1"]).numbers == {"7": 0, "1": 1}, "numerals may be names"
    assert _number([0, 1], named=["owl", "cat"]) == Labels({0: 0, 1: 1}, 2, ["owl", "cat"])
    assert "has the label dog, which is none of ape, cat" in _refused(["dog"], named=["cat", "ape"])


def test_names_of_a_known_data_set_keep_its_order() -> None:
    shuffled: list[object] = random.Random(0).sample(FASHION, 10)
    found = _number(shuffled)
    assert found.names == FASHION
    assert found.said
    assert found.said.endswith("(as in fashion_mnist)")
    assert _number(["bird", "cat"]).numbers == {"bird": 0, "cat": 1}, "two of its classes are another data set"


def test_a_series_of_names_has_two_orders() -> None:
    """As text class_10 comes before class_2; ImageFolder goes by that, people by the number."""
    words = _refused([f"class_{number}" for number in range(12)])
    assert "class_10 comes before class_2 as text, and after it by number" in words
    assert words.endswith("name the classes by their numbers alone, 0 to 11")
    assert _number(["DC-10", "DC-3", "Spitfire"]).names == ["DC-10", "DC-3", "Spitfire"], "no series"


def test_as_many_names_as_the_networks_tell_classes_apart() -> None:
    """Without bee, cat is class 1 of three, and class 2 of four."""
    words = _refused(["ape", "cat", "dog"], num_classes=4)
    assert words.startswith("has 3 class names (ape, cat, dog), and the networks tell 4 classes apart")
    assert _number(["ape", "cat", "dog"], ["ape", "bee", "cat", "dog"], num_classes=4).numbers["cat"] == 2


def test_what_may_mean_two_things_is_refused() -> None:
    assert "the labels 'Cat' and 'cat', which may be the same class" in _refused(["Cat", "cat", "dog"])
    assert "the labels '01' and '1', which may be the same class" in _refused(["01", "1", "2"])
    assert "has the label 0.5 beside numbers" in _refused([0.0, 0.5, 1.0])
    assert "has the label cat beside numbers" in _refused([0, 1, "cat"])
    assert "has the label inf beside numbers" in _refused([0.0, float("inf")])


def test_splits_share_one_numbering_or_are_refused() -> None:
    assert _number(["owl"], ["ape", "owl"]).numbers == {"ape": 0, "owl": 1}
    assert _number(["1", "2"], [0, 1, 2]).numbers == {"1": 1, "2": 2, 0: 0, 1: 1, 2: 2}
    assert "has the label images, which is none of ape, owl" in _refused(["images"], ["ape", "owl"])
    assert "has train labels 1 to 3 and test labels 0 to 2" in _refused([0, 1, 2], [1, 2, 3])
    assert "has train labels 0 to 2 and test labels 1 to 3" in _refused(["1", "3"], ["0", "2"])


def test_the_order_that_the_user_states() -> None:
    found = number_labels((), {"two", "one", "zero"}, ["zero", "one", "two"], 3, "as data.class_names has them")
    assert found.numbers == {"zero": 0, "one": 1, "two": 2}
    assert found.names == ["zero", "one", "two"]
    assert found.said == "zero is 0, one is 1, two is 2 (as data.class_names has them)"
    with pytest.raises(ImagesError, match="has the label three, which is none of one, zero"):
        number_labels((), {"three", "one"}, ["zero", "one"], 2)


@pytest.mark.parametrize("label", [2**70, 2.0**70, 10**6, "99999999"])
def test_more_classes_than_any_network_has(label: object) -> None:
    with pytest.raises(ImagesError, match=r"has the label .*, and 1,000,000 classes are the most; number them from 0"):
        number_labels([], [0, label], None, None)
