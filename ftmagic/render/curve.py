"""The loss curve: one inline SVG of under 4 kB, readable in light and in dark themes.

Text and axes take the page's own colour; the two lines keep theirs, which stand out on both.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

Points = Sequence[tuple[float, float]]
"""(step, loss), by step."""

TRAIN_COLOUR = "#3b82f6"
VALID_COLOUR = "#e07b24"

_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 14, 26, 34
_MOST_TRAIN_POINTS = 110
_MOST_VALID_POINTS = 36


class _Scale(NamedTuple):
    """From values to pixels, with the ticks on the way."""

    low: float
    high: float
    start: float
    end: float
    ticks: tuple[float, ...]

    def at(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def loss_curve(
    train: Points,
    valid: Points = (),
    *,
    width: int = 520,
    height: int = 190,
    total_steps: int | None = None,
) -> str:
    """Draw training and validation loss over steps.

    Args:
        train: Training loss; values that are not finite are left out.
        valid: Validation loss, likewise.
        width: Pixels; it shrinks with its place.
        height: Pixels.
        total_steps: Steps in all, so that the curve grows to the right; None fits the axis.

    Returns:
        An `<svg>` element; '' when there is nothing to draw.
    """
    train = _thinned(_finite(train), _MOST_TRAIN_POINTS)
    valid = _thinned(_finite(valid), _MOST_VALID_POINTS)
    if not train and not valid:
        return ""
    steps = [step for step, _ in (*train, *valid)]
    losses = [loss for _, loss in (*train, *valid)]
    x = _steps_scale(max(*steps, total_steps or 0, 2), _LEFT, width - _RIGHT)
    y = _scale(min(losses), max(losses), height - _BOTTOM, _TOP)
    inside = (
        _axes(x, y, width, height)
        + _line(train, x, y, TRAIN_COLOUR)
        + _line(valid, x, y, VALID_COLOUR)
        + _dots(valid, x, y)
        + _legend(train, valid, width)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{_label(train, valid)}"'
        f' viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
        ' style="max-width:100%;height:auto;display:block;overflow:visible" fill="currentColor"'
        f' font-family="system-ui,sans-serif" font-size="11">{inside}</svg>'
    )


def _finite(points: Points) -> list[tuple[float, float]]:
    return [(step, loss) for step, loss in points if math.isfinite(step) and math.isfinite(loss)]


def _thinned(points: Points, most: int) -> Points:
    """Average neighbours so that at most so many points are left; the last one stays as it is."""
    if len(points) <= most:
        return points
    body, last = points[:-1], points[-1]
    size = math.ceil(len(body) / (most - 1))
    groups = [body[start : start + size] for start in range(0, len(body), size)]
    means = [
        (sum(step for step, _ in group) / len(group), sum(loss for _, loss in group) / len(group))
        for group in groups
    ]
    return [*means, last]


def _scale(low: float, high: float, start: float, end: float) -> _Scale:
    """A scale with about four round ticks, which reaches a little past the values."""
    spread = (high - low) or abs(high) or 1.0
    unit = _round_unit(spread / 4)
    first, last = math.floor(low / unit), math.ceil(high / unit)
    if first == last:
        last += 1
    ticks = tuple(number * unit for number in range(first, last + 1))
    return _Scale(first * unit, last * unit, start, end, ticks)


def _steps_scale(last: float, start: float, end: float) -> _Scale:
    unit = max(1.0, _round_unit(last / 5))
    ticks = tuple(number * unit for number in range(int(last / unit) + 1))
    return _Scale(0.0, last, start, end, ticks)


def _round_unit(size: float) -> float:
    """The next of 1, 2, 5, 10, ... times a power of ten."""
    power: float = 10.0 ** math.floor(math.log10(size))
    return next(each * power for each in (1, 2, 5, 10) if each * power >= size * 0.999)


def _axes(x: _Scale, y: _Scale, width: int, height: int) -> str:
    lines = "".join(f"M{_LEFT} {y.at(tick):.1f}H{width - _RIGHT}" for tick in y.ticks)
    digits = max(0, -math.floor(math.log10(y.ticks[1] - y.ticks[0]) + 1e-9))
    labels = "".join(
        f'<text x="{_LEFT - 7}" y="{y.at(tick) + 4:.1f}" text-anchor="end">{tick:.{digits}f}</text>'
        for tick in y.ticks
    )
    labels += "".join(
        f'<text x="{x.at(tick):.1f}" y="{height - _BOTTOM + 15}" text-anchor="middle">'
        f"{tick:g}</text>"
        for tick in x.ticks
    )
    middle = (_LEFT + width - _RIGHT) / 2
    labels += f'<text x="{middle:.0f}" y="{height - 4}" text-anchor="middle">step</text>'
    labels += f'<text x="{_LEFT - 7}" y="11" text-anchor="end">loss</text>'
    return (
        f'<path d="{lines}" fill="none" stroke="currentColor" stroke-opacity=".16"/>'
        f'<g opacity=".72">{labels}</g>'
    )


def _line(points: Points, x: _Scale, y: _Scale, colour: str) -> str:
    if not points:
        return ""
    drawn = " ".join(f"{x.at(step):.1f},{y.at(loss):.1f}" for step, loss in points)
    return (
        f'<polyline points="{drawn}" fill="none" stroke="{colour}" stroke-width="2"'
        ' stroke-linejoin="round" stroke-linecap="round"/>'
    )


def _dots(points: Points, x: _Scale, y: _Scale) -> str:
    drawn = "".join(f"M{x.at(step):.1f} {y.at(loss):.1f}h0" for step, loss in points)
    if not drawn:
        return ""
    return f'<path d="{drawn}" stroke="{VALID_COLOUR}" stroke-width="6" stroke-linecap="round"/>'


def _legend(train: Points, valid: Points, width: int) -> str:
    """Name the lines with their last values, from the right."""
    parts, right = [], width - _RIGHT
    for name, points, colour in (
        ("validation", valid, VALID_COLOUR),
        ("training", train, TRAIN_COLOUR),
    ):
        if points:
            label = f"{name} {points[-1][1]:.3g}"
            parts.append(
                f'<text x="{right}" y="11" text-anchor="end">{label}</text>'
                f'<path d="M{right - 5.8 * len(label) - 20:.0f} 7h14" stroke="{colour}"'
                ' stroke-width="3" stroke-linecap="round"/>'
            )
            right -= round(5.8 * len(label)) + 40
    return "".join(parts)


def _label(train: Points, valid: Points) -> str:
    parts = []
    for name, points in (("training", train), ("validation", valid)):
        if points:
            (first, start), (last, end) = points[0], points[-1]
            parts.append(f"{name} loss {start:.3g} at step {first:g}, {end:.3g} at step {last:g}")
    return "; ".join(parts)
