"""The `Prefer` header (RFC 7240): whether and how long a client waits."""

import re
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Header

DEFAULT_WAIT = 30.0
MAX_WAIT = 60.0

# Preferences are separated by commas outside of quotes.
_PREFERENCE = re.compile(r'(?:[^,"]|"[^"]*"?)+')
_NUMBER = re.compile(r"[0-9]{1,6}(?:\.[0-9]{1,6})?")


@dataclass(frozen=True)
class WaitPreference:
    """How many seconds to wait for an answer. `applied` is the value of `Preference-Applied`, if it is sent."""

    seconds: float = DEFAULT_WAIT
    applied: str | None = None

    def headers(self) -> dict[str, str]:
        """Returns the header that confirms the preference."""
        return {"Preference-Applied": self.applied} if self.applied else {}


def parse_prefer(header: str | None) -> WaitPreference:
    """Parses the header. The first of each preference counts; unknown ones are ignored (RFC 7240).

    `respond-async` alone waits 0 s; together with `wait` it waits that long.
    """
    seconds: float | None = None
    is_async = False
    for preference in _PREFERENCE.findall(header or ""):
        name, _, value = preference.partition(";")[0].strip().partition("=")
        name, value = name.strip().lower(), value.strip().strip('"')
        is_async = is_async or name == "respond-async"
        if name == "wait" and seconds is None and _NUMBER.fullmatch(value):
            seconds = min(float(value), MAX_WAIT)
    applied = [f"wait={seconds:g}"] if seconds is not None else []
    if is_async:
        applied.insert(0, "respond-async")
    if not applied:
        return WaitPreference()
    return WaitPreference(0.0 if seconds is None else seconds, ", ".join(applied))


async def _wait_preference(
    prefer: Annotated[
        str | None,
        Header(
            description="`wait=N` (seconds, 60 at most; 30 if absent), `respond-async`, or both.",
            examples=["wait=10", "respond-async"],
        ),
    ] = None,
) -> WaitPreference:
    return parse_prefer(prefer)


WaitPreferenceDep = Annotated[WaitPreference, Depends(_wait_preference)]
