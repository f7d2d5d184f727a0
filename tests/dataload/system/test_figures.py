from __future__ import annotations

import pytest

from dataload.system.figures import figure, percent


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (1e-5, "0.00001"), (0.0001234, "0.000123"), (4.5, "4.5"), (99.96, "100"), (100, "100"), (12345.6, "12346")],
)
def test_a_figure_has_no_exponent(value: float, text: str) -> None:
    assert figure(value) == text


@pytest.mark.parametrize(("share", "text"), [(0, "0 %"), (1e-6, "0.0001 %"), (0.045, "4.5 %"), (0.997, "100 %"), (1, "100 %")])
def test_a_share_in_percent(share: float, text: str) -> None:
    assert percent(share) == text
