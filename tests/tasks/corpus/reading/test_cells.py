"""A cell of a spreadsheet becomes the text that people see in it."""

from __future__ import annotations

from datetime import date, datetime, time, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from tasks.corpus.reading.cells import ErrorCell, displayed


def shown(value: Any, form: str, kind: str = "n") -> str:
    return displayed(SimpleNamespace(value=value, number_format=form, data_type=kind))


@pytest.mark.parametrize(
    "value, form, text",
    [
        # numbers
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
        ("One_x000D_\nTwo_x0009__x005F_x000D_", "General", "One\nTwo\t_x000D_"),
        (True, "General", "TRUE"),
        (None, "0.00", ""),
        # dates and times, in their form or as ISO
        (datetime(2024, 4, 13), "yyyy-mm-dd", "2024-04-13"),
        (datetime(2024, 4, 3), "d/m/yyyy", "3/4/2024"),
        (datetime(2024, 4, 13, 9, 5), "dd.mm.yyyy hh:mm", "13.04.2024 09:05"),
        (datetime(2024, 4, 3), "[$-409]d mmmm yyyy", "3 April 2024"),
        (datetime(2024, 4, 3), 'yyyy"年"m"月"d"日"', "2024年4月3日"),
        (time(9, 5), "h:mm", "9:05"),
        (date(2024, 4, 13), "mm-dd-yy", "2024-04-13"),  # the built-in form, which every country shows in its own way
        (datetime(2024, 4, 3, 8, 30), "yyyy-mm-dd h:mm AM/PM", "2024-04-03 08:30:00"),
        # digits fill the places of their form from the right, or stand plain
        (1234, '#\\ ##0\\ "kr"', "1 234 kr"),
        (46, '#\\ ##0\\ "kr"', "46 kr"),
        (1234567.5, "# ##0.00", "1234 567.50"),  # a space is one space, not one for each thousand
        (5566778899, "000000-0000", "556677-8899"),
        (501011234, "000000-0000", "050101-1234"),
        (12345, "000\\ 00", "123 45"),
        (701234567, "000\\-000\\ 00\\ 00", "070-123 45 67"),
        (5551234, "[<=9999999]###-####;(###) ###-####", "555-1234"),
        (8015551234, "[<=9999999]###-####;(###) ###-####", "(801) 555-1234"),
        (0.5, ".00", ".50"),
        (-1234, '"$"#,##0', "-$1,234"),
        (123, "###-####", "123"),  # Excel shows -123, which is another number
        (12, "0.0.0", "12"),
        (1234567, "#,##0\\-000", "1234567"),
        # the section of a form is that of the sign or the condition
        (0, '0;-0;"free"', "free"),
        (0, '#,##0;-#,##0;"0; or less"', "0; or less"),
        (0, '_-* #,##0.00_-;\\-* #,##0.00_-;_-* "-"??_-;_-@_-', "-"),
        (1, '"Yes";"Yes";"No"', "Yes"),
        (-7, "0.0;", ""),
        (5, '[<10]"few";[<100]"some";"many"', "few"),
        (100, '[<10]"few";[<100]"some";"many"', "many"),
        (-5, '[<10]"few";"many"', "-5"),
        (5, '[<1]"none";[<3]0.0', "5"),
        # m is minutes beside hours or seconds; durations count beyond a day
        (time(0, 5, 9), "mm:ss", "05:09"),
        (time(14, 30), 'hh"h"mm', "14h30"),
        (datetime(2024, 4, 3, 14, 5), 'd/m "Kl." h.mm', "3/4 Kl. 14.05"),
        (timedelta(hours=30), "[h]:mm", "30:00"),
        (timedelta(hours=30, minutes=5, seconds=9), "[hh]:mm:ss", "30:05:09"),
        (timedelta(minutes=75), "[mm]:ss", "75:00"),
        (-timedelta(minutes=75), "[h]:mm", "-1:15"),
        (timedelta(hours=30), "[h]:mm:ss.0", "30:00:00"),
        (datetime(2024, 4, 3, 9, 5, 7), "mm:ss.0", "2024-04-03 09:05:07"),
    ],
)
def test_a_value_is_shown_in_its_form(value: Any, form: str, text: str) -> None:
    assert shown(value, form) == text


def test_an_error_is_no_text() -> None:
    assert isinstance(shown("#N/A", "General", "e"), ErrorCell)
    assert not isinstance(shown("#N/A", "General", "s"), ErrorCell)
