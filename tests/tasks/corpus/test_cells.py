"""A cell of a spreadsheet becomes the text that people see in it."""

from __future__ import annotations

from datetime import date, datetime, time
from types import SimpleNamespace
from typing import Any

import pytest

from tasks.corpus.cells import ErrorCell, displayed


def shown(value: Any, form: str, kind: str = "n") -> str:
    return displayed(SimpleNamespace(value=value, number_format=form, data_type=kind))


@pytest.mark.parametrize(
    "value, form, text",
    [
        (0.075, "0.0%", "7.5%"),
        (0.5, "0%", "50%"),
        (120.30000000000001, "General", "120.3"),
        (46701234567, "General", "46701234567"),
        (5.0, "General", "5"),
        (0.005, "0.00", "0.01"),
        (2.5, "0.##", "2.5"),
        (7, "00000", "00007"),
        (1234567.891, "#,##0.00", "1,234,567.89"),
        (1500000, '0.0,,"M"', "1.5M"),
        (1234.5, '#,##0.00\\ "kr"', "1,234.50 kr"),
        (1234.5, "[$€-407]#,##0.00", "€1,234.50"),
        (1234, '"$"#,##0_);("$"#,##0)', "$1,234"),
        (-5, "#,##0;(#,##0)", "(5)"),
        (-5.5, "0.00;[Red]-0.00", "-5.50"),
        (-5.5, "0.0", "-5.5"),
        (1.5, "# ?/?", "1.5"),
        (3, "@", "3"),
        ("0046", "General", "0046"),
        (True, "General", "TRUE"),
        (None, "0.00", ""),
    ],
)
def test_numbers_are_shown_in_their_form(value: Any, form: str, text: str) -> None:
    assert shown(value, form) == text


@pytest.mark.parametrize(
    "value, form, text",
    [
        (datetime(2024, 4, 13), "yyyy-mm-dd", "2024-04-13"),
        (datetime(2024, 4, 3), "d/m/yyyy", "3/4/2024"),
        (datetime(2024, 4, 13, 9, 5), "dd.mm.yyyy hh:mm", "13.04.2024 09:05"),
        (datetime(2024, 4, 3), "[$-409]d mmmm yyyy", "3 April 2024"),
        (datetime(2024, 4, 3), 'yyyy"年"m"月"d"日"', "2024年4月3日"),
        (time(9, 5), "h:mm", "9:05"),
        (date(2024, 4, 13), "mm-dd-yy", "2024-04-13"),  # the built-in form, which every country shows in its own way
        (datetime(2024, 4, 3, 8, 30), "yyyy-mm-dd h:mm AM/PM", "2024-04-03 08:30:00"),
    ],
)
def test_dates_and_times_are_shown_in_their_form_or_as_iso(value: Any, form: str, text: str) -> None:
    assert shown(value, form) == text


def test_an_error_is_no_text() -> None:
    assert isinstance(shown("#N/A", "General", "e"), ErrorCell)
    assert not isinstance(shown("#N/A", "General", "s"), ErrorCell)
