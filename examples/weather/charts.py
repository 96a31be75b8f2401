"""The report's charts: each says in its title what it shows, and names its lines where they are.

The colours are Okabe and Ito's, which people with any kind of colour vision can tell apart.
"""

from __future__ import annotations

import datetime
import io
import threading
from collections import defaultdict
from collections.abc import Sequence
from statistics import mean
from typing import TYPE_CHECKING, Any, Literal, get_args

from readings import Day

if TYPE_CHECKING:  # matplotlib takes half a second to import: a run with nothing to draw does without
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Name = Literal["temperature", "precipitation", "cities"]
Days = dict[str, list[Day]]

BLUE, SKY, RED = "#0072B2", "#56B4E9", "#D55E00"
INK, GREY, PALE = "#222222", "#6b6b6b", "#d9d9d9"
MONTHS = "JFMAMJJASOND"

_matplotlib = threading.Lock()  # it is not made for several threads: one chart at a time


def draw(name: Name, days: Days) -> dict[str, bytes]:
    """The chart called `name` as the content of a PNG and of an SVG file."""
    with _matplotlib:
        import matplotlib

        # The same picture gives the same bytes: no random ids here, and no date below.
        with matplotlib.rc_context({"font.size": 11, "text.color": INK, "svg.hashsalt": "weather"}):
            figure = {"temperature": _temperature, "precipitation": _precipitation, "cities": _cities}[name](days)
            return {"png": _save(figure, "png", {}), "svg": _save(figure, "svg", {"Date": None})}


def _temperature(days: Days) -> Figure:
    seattle = [day for day in days["seattle"] if day.precipitation is not None]
    hottest = max(seattle, key=lambda day: day.temp_max)
    coldest = min(seattle, key=lambda day: day.temp_min)
    figure = _figure(
        f"Seattle, {_years(seattle)}: from {_celsius(coldest.temp_min)} to {_celsius(hottest.temp_max)}",
        "Each bar is one day, from its low to its high, in °C; the lines are averages over 31 days",
        "Data: NOAA via vega_datasets",
    )
    axes = _axes(figure.add_axes((0.075, 0.11, 0.815, 0.70)))
    dates = [_number(day.date) for day in seattle]
    axes.vlines(dates, [d.temp_min for d in seattle], [d.temp_max for d in seattle], color=PALE, linewidth=0.7)
    for name, colour, values in (
        ("average\nhigh", RED, [day.temp_max for day in seattle]),
        ("average\nlow", BLUE, [day.temp_min for day in seattle]),
    ):
        smooth = _smooth(values, 31)
        axes.plot(dates, smooth, color=colour, linewidth=2)
        offset = 6 if colour == RED else -6
        axes.annotate(
            name,
            (dates[-1], smooth[-1]),
            (8, offset),
            textcoords="offset points",
            color=colour,
            va="center",
            weight="bold",
        )
    for day, value, colour, align, shift in (
        (hottest, hottest.temp_max, RED, "center", (0, 12)),
        (coldest, coldest.temp_min, BLUE, "left", (9, 0)),
    ):
        place = (_number(day.date), value)
        label = f"{_celsius(value)}, {day.date.day} {day.date:%B %Y}"
        axes.plot(*place, "o", color=colour, markersize=5)
        axes.annotate(
            label, place, shift, textcoords="offset points", color=colour, ha=align, va="center", weight="bold"
        )
    years = sorted({day.date.year for day in seattle})
    axes.set_xlim(dates[0], dates[-1])
    axes.set_xticks([_number(datetime.date(year, 1, 1)) for year in years], [""] * len(years))
    axes.set_xticks([_number(datetime.date(year, 7, 2)) for year in years], [str(y) for y in years], minor=True)
    axes.tick_params(axis="x", which="minor", length=0)
    axes.set_ylim(-13, 40)
    axes.set_yticks(range(-10, 41, 10), [_celsius(value, 0) for value in range(-10, 41, 10)])
    axes.axhline(0, color=GREY, linewidth=0.8)
    return figure


def _precipitation(days: Days) -> Figure:
    months: dict[tuple[int, int], float] = defaultdict(float)
    for day in days["seattle"]:
        if day.precipitation is not None:
            months[day.date.year, day.date.month] += day.precipitation
    years = sorted({year for year, _ in months})
    wettest = max(months, key=lambda month: months[month])
    usual = [mean(months[year, month] for year in years) for month in range(1, 13)]
    figure = _figure(
        f"{datetime.date(*wettest, 1):%B %Y} brought Seattle {months[wettest]:.1f} mm, "
        f"the most of {12 * len(years)} months",
        f"Precipitation by month, in mm; the line is the average of the {len(years)} years for that month",
        "Data: NOAA via vega_datasets. Snow counts as the water it melts to",
    )
    for index, year in enumerate(years):
        width = 0.92 / len(years)
        axes = _axes(figure.add_axes((0.075 + index * width, 0.11, width * 0.92, 0.62)))
        values = [months[year, month] for month in range(1, 13)]
        colours = [BLUE if (year, month) == wettest else SKY for month in range(1, 13)]
        axes.bar(range(1, 13), values, color=colours, width=0.8)
        axes.step([0.5, *range(1, 13), 12.5], [usual[0], *usual, usual[-1]], where="mid", color=INK, linewidth=1.2)
        axes.set_title(f"{year}", loc="left", weight="bold", fontsize=12, pad=20)
        axes.text(0.5, 316, f"{sum(values):,.0f} mm in all", color=GREY, va="center")
        axes.set_ylim(0, 305)
        axes.set_xlim(0.4, 12.6)
        axes.set_yticks(range(0, 301, 100), ["0", "100", "200", "300 mm"] if index == 0 else [""] * 4)
        axes.set_xticks(range(1, 13), list(MONTHS), fontsize=9)
        axes.tick_params(axis="x", length=0)
        if year == wettest[0]:
            axes.text(
                wettest[1] + 0.5, months[wettest] + 5, f"{months[wettest]:.1f}", color=BLUE, ha="right", weight="bold"
            )
        if index == 0:
            axes.annotate(
                "average", (8, usual[7]), (0, 42), textcoords="offset points", ha="center", fontsize=9,
                arrowprops={"arrowstyle": "-"},
            )  # fmt: skip
    return figure


def _cities(days: Days) -> Figure:
    names = {"seattle": "Seattle", "san-francisco": "San Francisco"}
    lines = {city: [day for day in days[city] if day.temp_mean is not None] for city in names}
    swing = {city: _swing(year) for city, year in lines.items()}
    figure = _figure(
        f"Between winter and summer, Seattle swings by {swing['seattle']:.0f} °C, "
        f"San Francisco by {swing['san-francisco']:.0f}",
        "Temperature in an average year, in °C: the mean of each day, and the band from its low to its high",
        "Data: NOAA hourly climate normals 1981-2010 via vega_datasets. Swing: between the means of the warmest and "
        "the coldest month",
    )
    axes = _axes(figure.add_axes((0.06, 0.11, 0.90, 0.70)))
    for (city, year), colour in zip(lines.items(), (BLUE, RED), strict=True):
        dates = [_number(day.date) for day in year]
        means = [day.temp_mean or 0.0 for day in year]
        axes.fill_between(
            dates, [d.temp_min for d in year], [d.temp_max for d in year], color=colour, alpha=0.15, linewidth=0
        )
        axes.plot(dates, means, color=colour, linewidth=2.2)
        place, offset = (205, 66) if city == "seattle" else (40, 46)
        axes.annotate(
            names[city], (dates[place], means[place]), (0, offset), textcoords="offset points", color=colour,
            ha="center", weight="bold", arrowprops={"arrowstyle": "-", "color": colour},
        )  # fmt: skip
    first = lines["seattle"][0].date.year
    axes.set_xlim(_number(datetime.date(first, 1, 1)), _number(datetime.date(first, 12, 31)))
    axes.set_xticks([_number(datetime.date(first, month, 1)) for month in range(1, 13)], [""] * 12)
    middles = [datetime.date(first, month, 15) for month in range(1, 13)]
    axes.set_xticks([_number(day) for day in middles], [f"{day:%b}" for day in middles], minor=True)
    axes.tick_params(axis="x", which="minor", length=0)
    axes.set_ylim(0, 30)
    axes.set_yticks(range(0, 31, 10), [_celsius(value, 0) for value in range(0, 31, 10)])
    return figure


def _swing(year: Sequence[Day]) -> float:
    months: dict[int, list[float]] = defaultdict(list)
    for day in year:
        months[day.date.month].append(day.temp_mean or 0.0)
    means = [mean(temps) for temps in months.values()]
    return max(means) - min(means)


# What the charts share ------------------------------------------------------------------------------------


def _figure(title: str, subtitle: str, source: str) -> Figure:
    # The class, not pyplot: no window system, no list of open figures, and so nothing shared between threads.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 5.6), dpi=150, facecolor="white")
    figure.text(0.02, 0.955, title, fontsize=16, weight="bold", va="center")
    figure.text(0.02, 0.895, subtitle, color=GREY, va="center")
    figure.text(0.02, 0.025, source, fontsize=8.5, color=GREY, va="center")
    return figure


def _axes(axes: Axes) -> Axes:
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(GREY)
    axes.grid(axis="y", color=PALE, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", length=0, labelcolor=GREY)
    axes.tick_params(axis="x", color=GREY, labelcolor=INK)
    return axes


def _save(figure: Figure, kind: str, metadata: dict[str, Any]) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format=kind, metadata=metadata)
    return file.getvalue()


def _number(date: datetime.date) -> float:
    return float(date.toordinal())


def _smooth(values: Sequence[float], width: int) -> list[float]:
    half = width // 2
    return [mean(values[max(0, i - half) : i + half + 1]) for i in range(len(values))]


def _years(days: Sequence[Day]) -> str:
    return f"{days[0].date.year}\N{EN DASH}{days[-1].date.year}"


def _celsius(value: float, digits: int = 1) -> str:
    return f"{value:.{digits}f} °C".replace("-", "\N{MINUS SIGN}")


CHARTS: tuple[Name, ...] = get_args(Name)
