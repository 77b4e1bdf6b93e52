"""Names that nothing answers to."""

import pytest

from mmsa_lib.errors import unknown_name

KNOWN = ("self_mm", "text_only", "mosi", "SIMS")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("self_m", "did you mean self_mm?"),
        ("SELF-MM", "did you mean self_mm?"),
        ("Mosi", "did you mean mosi"),
        ("sims", "did you mean SIMS"),
        ("zzz", "known: SIMS, mosi, self_mm, text_only"),
    ],
)
def test_the_nearest_known_names_are_named_whatever_their_case(name, hint):
    assert f"unknown thing {name!r}; {hint}" in str(unknown_name("thing", name, KNOWN))
