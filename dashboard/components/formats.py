"""Numbers as people read them. Whatever is missing is a dash, because a zero would be a claim."""

from __future__ import annotations

import re

DASH = "–"

_DECIMAL_STEPS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
_COUNT_STEPS = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K"))
_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>#|~$:])")


def format_seconds(value_s: float | None) -> str:
    """A duration at three digits: `245 ms`, `1.26 s`, `2 min 5 s`, `3 h 20 min`, `2 d 4 h`."""
    if value_s is None:
        return DASH
    if value_s < 0:
        return f"-{format_seconds(-value_s)}"
    if value_s < 0.9995:
        return _format_milliseconds(value_s * 1e3)
    if value_s < 59.95:
        return f"{value_s:.2f} s" if value_s < 9.995 else f"{value_s:.1f} s"
    return format_whole_seconds(value_s)


def _format_milliseconds(value_ms: float) -> str:
    if value_ms == 0:
        return "0 ms"
    if value_ms < 0.01:
        return "<0.01 ms"
    decimals = 2 if value_ms < 9.995 else 1 if value_ms < 99.95 else 0
    return f"{value_ms:.{decimals}f} ms"


def format_whole_seconds(value_s: float) -> str:
    """A time that ticks: `7 s`, and two units at most from a minute on."""
    seconds = round(value_s)
    for size, unit, smaller, smaller_unit in ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "min"), (60, "min", 1, "s")):
        if seconds >= size:
            rest = seconds % size // smaller
            return f"{seconds // size} {unit}" + (f" {rest} {smaller_unit}" if rest else "")
    return f"{seconds} s"


def format_bytes(value_bytes: float | None) -> str:
    """Decimal units, as the environment report has them: `271.3 MB`."""
    if value_bytes is None:
        return DASH
    for size, unit in _DECIMAL_STEPS:
        if value_bytes >= size * 0.99995:
            return f"{value_bytes / size:.1f} {unit}B"
    return f"{value_bytes:.0f} B"


def format_bytes_rate(value_bytes_per_s: float | None) -> str:
    """`1.2 MB/s`."""
    return DASH if value_bytes_per_s is None else f"{format_bytes(value_bytes_per_s)}/s"


def format_large(count: int | None) -> str:
    """A large count in short: `134.5 M`, `9.4 B`."""
    if count is None:
        return DASH
    for size, unit in _COUNT_STEPS:
        if count >= size * 0.99995:
            return f"{count / size:.1f} {unit}"
    return str(count)


def format_count(count: int | None) -> str:
    """Every digit, in groups: `12,345`."""
    return DASH if count is None else f"{count:,}"


def format_ratio(ratio: float | None) -> str:
    """A share of one in percent: `43 %`."""
    return DASH if ratio is None else f"{ratio * 100:.0f} %"


def format_rate(per_s: float | None) -> str:
    """Tokens a second, a decimal below a hundred: `23.4`."""
    if per_s is None:
        return DASH
    return f"{per_s:.1f}" if per_s < 99.95 else f"{per_s:,.0f}"


def format_with_unit(value: float | None, unit: str) -> str:
    """A whole number with its unit: `412 W`."""
    return DASH if value is None else f"{value:,.0f} {unit}"


def plural(count: int, noun: str) -> str:
    """`1 request`, `2 requests`, `12,000 requests`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def unbroken(text: str) -> str:
    """The text for a narrow cell: number and unit stay on one line."""
    return text.replace(" ", "\N{NO-BREAK SPACE}")


def plain(text: str) -> str:
    """`text` so that Markdown shows it letter by letter: a path or a name is not ours to be formatted."""
    return _MARKDOWN.sub(r"\\\1", text)
