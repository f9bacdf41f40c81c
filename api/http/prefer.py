"""The `Prefer` header (RFC 7240): how long a client waits, and whether it waits at all."""

import re
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Header

DEFAULT_WAIT = 30.0
MAX_WAIT = 60.0

# Preferences are separated by commas, but not by those in quotes.
_PREFERENCE = re.compile(r'(?:[^,"]|"[^"]*"?)+')
_NUMBER = re.compile(r"[0-9]{1,6}(?:\.[0-9]{1,6})?")


@dataclass(frozen=True)
class WaitPreference:
    """How many seconds to wait for an answer; `applied` is what `Preference-Applied` tells, if anything."""

    seconds: float = DEFAULT_WAIT
    applied: str | None = None

    def headers(self) -> dict[str, str]:
        """The header that confirms the preference."""
        return {"Preference-Applied": self.applied} if self.applied else {}


def parse_prefer(header: str | None) -> WaitPreference:
    """What the client prefers, the first of each preference; what is not understood is ignored (RFC 7240).

    `respond-async` alone is answered at once; together with `wait` it is after that time.
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
