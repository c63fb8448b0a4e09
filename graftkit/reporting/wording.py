"""How counts, metric values, shapes and names are written wherever people read them."""

from __future__ import annotations

import math

from graftkit.core.records import DendriteRecord, SiteRecord

ELLIPSIS = "…"


def is_accuracy(metric: str) -> bool:
    """Whether the metric is a share of right answers, spoken of in percent and points."""
    return metric == "accuracy"


def compact(count: int) -> str:
    """A count in at most four figures and a unit: 950, 1.2k, 25.6M, 4.1G."""
    value, units = float(count), iter(("k", "M", "G", "T", "P"))
    unit = ""
    # 999,960 would round to "1000.0k", so what counts is the rounded value.
    while abs(round(value, 1)) >= 1000 and (larger := next(units, None)):
        value, unit = value / 1000, larger
    return f"{value:.1f}".removesuffix(".0") + unit


def metric_value(metric: str, value: float | None) -> str:
    """A metric's value; accuracy in percent, a missing one as a dash."""
    if value is None:
        return "-"
    return f"{100 * value:.2f}%" if is_accuracy(metric) else f"{value:.4f}"


def metric_difference(metric: str, difference: float, spread: float | None = None) -> str:
    """A difference with its sign: "+0.83 points" for accuracy, "+0.0083" for other metrics; "± 0.20" if given."""
    scale, digits, unit = (100, 2, " points") if is_accuracy(metric) else (1, 4, "")
    around = "" if spread is None else f" ± {scale * spread:.{digits}f}"
    return f"{_unsigned_zero(scale * difference, digits):+.{digits}f}{around}{unit}"


def metric_spread(metric: str, mean: float, spread: float) -> str:
    """A mean with its sample standard deviation: "92.10 ± 0.42%"."""
    if is_accuracy(metric):
        return f"{100 * mean:.2f} ± {100 * spread:.2f}%"
    return f"{mean:.4f} ± {spread:.4f}"


def gain_words(gain: float | None) -> str:
    """What a site's dendrites bring to the metric, in the metric's own unit; a dash where not measured."""
    return "-" if gain is None else f"{_unsigned_zero(gain, 4):+.4f}"


def amount(unit: str, value: float, *, unit_too: bool = True) -> str:
    """What something costs, with its unit: "1,234 parameters", "12.3 us"; multiply-adds are shortened, "1.2M"."""
    number = compact(round(value)) if unit == "multiply-adds" else f"{value:,.{1 if unit == 'us' else 0}f}"
    return f"{number} {unit}" if unit_too else number


def growth(count: float, base: float) -> str:
    """How much larger than the baseline, "+6.5%"; empty where there is nothing to compare with."""
    return "" if not base or count == base else f"{100 * (count / base - 1):+.1f}%"


def channels(site: SiteRecord) -> str:
    """What a site reads and writes: "64→128", in channels for Conv and in features for Linear."""
    dim = -1 if site.operator == "linear" or len(site.input_shape) < 2 else 1
    ends = [str(shape[dim]) if len(shape) > max(dim, 0) else "?" for shape in (site.input_shape, site.output_shape)]
    return "→".join(ends)


def kernel(site: SiteRecord) -> str:
    """The kernel as "3×3"; empty for Linear."""
    return "×".join(map(str, site.kernel))


def shape(site: SiteRecord) -> str:
    """Channels and kernel together: "64→128 3×3"."""
    return f"{channels(site)} {kernel(site)}".strip()


def strength(value: float) -> str:
    """A mean strength, short: "0.12"; small ones keep a figure that is not zero."""
    return f"{value:.2f}" if value >= 0.01 or value == 0 or math.isnan(value) else f"{value:.1g}"


def neurons(site: SiteRecord, dendrite: DendriteRecord) -> str:
    """How many of the site's neurons are served: "16/16 neurons"."""
    written = channels(site).rpartition("→")[2]
    return f"{dendrite.neurons}/{written} neurons"


def dendrite_words(site: SiteRecord, dendrite: DendriteRecord) -> str:
    """One kind of dendrites at a site: "context ×1 · 16/16 neurons · strength 0.12"."""
    return f"{dendrite.kind} ×{dendrite.count} · {neurons(site, dendrite)} · strength {strength(dendrite.strength)}"


def options_words(dendrite: DendriteRecord) -> str:
    """A dendrite's options as "units=2, gate=True"."""
    return ", ".join(f"{name}={value}" for name, value in dendrite.options)


def elide(text: str, most: int) -> str:
    """The text, with its middle left out where it is longer than `most` characters."""
    if len(text) <= most:
        return text
    tail = max(most * 2 // 3, 1)
    return text[: max(most - tail - 1, 0)] + ELLIPSIS + text[-tail:]


def _unsigned_zero(value: float, digits: int) -> float:
    # "-0.00" would read as a loss.
    return 0.0 if round(value, digits) == 0 else value
