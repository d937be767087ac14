#!/usr/bin/env python3
"""Writes a copy of Prometheus rules with shorter durations: every `for:`, every range in brackets and every offset is
divided by a factor, and nothing else is changed.

    .ci/compress.py FACTOR RULES NEW_RULES

Before it writes, it checks its result: both files are the same except for these durations, and multiplied by the factor
these are the old ones.
"""

import re
import sys
from pathlib import Path

UNITS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000, "y": 31_536_000_000}
DURATION = r"(?:\d+(?:ms|[smhdwy]))+"
# Durations in rules: after `for:`, in brackets, after `offset`.
PLACES = re.compile(rf"(?m)(?P<before>^\s+(?:keep_firing_)?for: *|\[|(?<=\]):|\boffset +-?|(?<=[0-9smhdwy]):(?={DURATION}\]))(?P<time>{DURATION})")


def milliseconds(duration):
    return sum(int(count) * UNITS[unit] for count, unit in re.findall(r"(\d+)(ms|[smhdwy])", duration))


def compress(text, factor):
    return PLACES.sub(lambda found: f"{found['before']}{max(1, milliseconds(found['time']) // factor)}ms", text)


def durations(text):
    return [milliseconds(found["time"]) for found in PLACES.finditer(text)]


def check(old, new, factor):
    """Asserts that only durations differ, each by the factor, and that none was missed."""
    masked = [PLACES.sub(lambda found: found["before"] + "T", text) for text in (old, new)]
    if masked[0] != masked[1]:
        sys.exit("error: more than durations would change")
    if [time // factor for time in durations(old)] != durations(new):
        sys.exit("error: the durations are not what they were, divided")
    # Durations after `for:` or in brackets, found by another pattern.
    count = sum(len(re.findall(r"\d[smhdwy]\b", part)) for part in re.findall(r"\[([^\]\n\"|]*)\]", old))
    count += len(re.findall(r"(?m)^\s+(?:keep_firing_)?for:", old)) + len(re.findall(r"\boffset\b", code(old)))
    if count != len(durations(old)):
        sys.exit(f"error: {count} durations are there, {len(durations(old))} were found")


def code(text):
    return "\n".join(line.split(" #")[0] for line in text.splitlines() if not line.lstrip().startswith("#"))


def example():
    """Tests the transformation with an example of everything that it must and must not change."""
    old = (
        "      - record: gateway:calls_bad:rate5m\n        expr: sum(rate(a{b=\"5m\"}[5m])) > 300 offset 10m\n"
        "        for: 1h30m\n        keep_firing_for: 2m\n        annotations: {summary: \"in 5m and 2 minutes\"}\n"
        "        expr: max_over_time(x[1h:30s]) < 14 * 86400\n"
    )
    new = (
        "      - record: gateway:calls_bad:rate5m\n        expr: sum(rate(a{b=\"5m\"}[10000ms])) > 300 offset 20000ms\n"
        "        for: 180000ms\n        keep_firing_for: 4000ms\n        annotations: {summary: \"in 5m and 2 minutes\"}\n"
        "        expr: max_over_time(x[120000ms:1000ms]) < 14 * 86400\n"
    )
    found = compress(old, 30)
    if found != new:
        sys.exit(f"error: the example became\n{found}")


def main(arguments):
    if len(arguments) != 3 or not arguments[0].isdigit() or int(arguments[0]) < 1:
        sys.exit(__doc__)
    factor, old = int(arguments[0]), Path(arguments[1]).read_text()
    example()
    new = compress(old, factor)
    check(old, new, factor)
    Path(arguments[2]).write_text(new)
    print(f"{len(durations(old))} durations divided by {factor}, nothing else changed")


if __name__ == "__main__":
    main(sys.argv[1:])
