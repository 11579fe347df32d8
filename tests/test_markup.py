"""Names that somebody else has given do nothing in a page."""

import pytest

from zskt_dist.markup import code, plain


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("<script>&", r"\<script>\&"),
        ("a_b _c_ *d* `e`", r"a_b \_c\_ \*d\* \`e\`"),
        ("![x](y)\n# z", r"!\[x\](y) # z"),
        ("see https://x.example or www.x.example", r"see https\://x.example or www\.x.example"),
        ("file:x, 10:30, a.b", "file:x, 10:30, a.b"),
    ],
)
def test_plain_text_shows_itself(text: str, shown: str) -> None:
    assert plain(text) == shown


def test_code_has_more_backticks_outside_than_inside() -> None:
    assert code("a``b\nc") == "``` a``b c ```"
    assert code("a") == "`a`"
