"""The card of pseudo-data, where the one that `synthesize` writes does not show it."""

from typing import Any

import pytest
import yaml

from zskt_dist.data.dataset_card import dataset_card

RESULT: dict[str, Any] = {
    "teacher": {"arch": "lenet", "sha256": "0"},
    "image_shape": [1, 8, 8],
    "num_classes": 2,
    "classes": [1, 1],
    "generators": {"4": "0"},
    "version": "0.1.0",
    "mean": None,
    "std": None,
    "seed": 0,
}


@pytest.mark.parametrize(
    ("images", "category"),
    [
        (999, "n<1K"),
        (10**3, "1K<n<10K"),
        (10**7, "10M<n<100M"),
        (5 * 10**8, "100M<n<1B"),
        (5 * 10**11, "100B<n<1T"),
        (10**12, "n>1T"),
    ],
)
def test_the_category_of_size_is_one_of_hugging_face(images: int, category: str) -> None:
    _, front, _ = dataset_card(RESULT | {"images": images}).split("---\n", 2)
    assert yaml.safe_load(front)["size_categories"] == [category]


def test_the_card_says_what_the_images_were_made_from() -> None:
    drawn = dataset_card(RESULT | {"images": 2})  # of an earlier version, without a method
    assert "no real image was read.\nThey do not look like" in drawn
    assert "pseudo_data=FOLDER loss.beta=0 student" in drawn
    made = dataset_card(RESULT | {"images": 2, "method": "inversion", "seed_images": None})
    assert "no real image was read.\nTheir classes are" in made
    assert "pseudo_data=FOLDER loss.beta=0 method=belief_matching student" in made
    given = dataset_card(RESULT | {"images": 2, "method": "inversion", "seed_images": {"images": 1200, "sha256": "0"}})
    assert "the run was given 1,200 images without labels, which are not among these." in given
    assert "real image" not in given
    assert ["zero-shot" in card for card in (drawn, made, given)] == [True, True, False]
