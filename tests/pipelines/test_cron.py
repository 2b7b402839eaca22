"""Which time tables are taken: those that robfig/cron, which both schedulers use, reads without an error."""

import pytest

from pipelines.cron import check_cron


@pytest.mark.parametrize(
    "cron",
    ["0 3 * * 6", "*/15 0-23/2 1,15 jan-Mar ?", "5/10 3 31 12 SUN,mon-fri", "59  23 1 1 0", "0 0 ?/2 * *"],
)
def test_a_time_table_is_taken(cron: str) -> None:
    assert check_cron(cron) == cron


@pytest.mark.parametrize(
    ("cron", "words"),
    [
        ("", "needs five fields"),
        ("0 3 * *", "needs five fields"),
        ("0 0 3 * * 1", "needs five fields"),
        ("@weekly", "needs five fields"),
        ("60 3 * * 1", "'60' is no minute; use 0 to 59"),
        ("-1 3 * * 1", "'-1' is no minute"),
        ("0 24 * * 1", "'24' is no hour"),
        ("0 3 0 * 1", "'0' is no day; use 1 to 31"),
        ("0 3 * 13 1", "'13' is no month; use 1 to 12, or jan to dec"),
        ("0 3 * * 7", "'7' is no weekday; use 0 to 6, or sun to sat"),
        ("0 3 mon * *", "'mon' is no day"),
        ("0 3 * * fri-mon", "'fri-mon' is no weekday"),
        ("0 5-3 * * *", "'5-3' is no hour"),
        ("*/0 * * * *", r"'\*/0' is no minute"),
        ("0, 3 * * *", "'' is no minute"),
        ("0 3 L * *", "'L' is no day"),
        ("0 3 * * 1#2", "'1#2' is no weekday"),
        ("\u0663 3 * * *", "is no minute"),
    ],
)
def test_nonsense_is_named_with_the_field_it_stands_in(cron: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        check_cron(cron)
