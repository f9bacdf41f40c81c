"""The `Prefer` header (RFC 7240): how long a client waits, and whether it waits at all."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Header

DEFAULT_WAIT = 30.0
LONGEST_WAIT = 60.0


@dataclass(frozen=True)
class Patience:
    """How many seconds to wait for an answer; `applied` is what `Preference-Applied` tells, if anything."""

    seconds: float = DEFAULT_WAIT
    applied: str | None = None

    def headers(self) -> dict[str, str]:
        """The header that confirms the preference."""
        return {"Preference-Applied": self.applied} if self.applied else {}


def read_preference(header: str | None) -> Patience:
    """The first preference that we know; what is not understood is ignored, as RFC 7240 wants it."""
    for preference in (header or "").split(","):
        name, _, value = preference.partition(";")[0].strip().partition("=")
        name, value = name.strip().lower(), value.strip().strip('"')
        if name == "respond-async":
            return Patience(0.0, "respond-async")
        if name == "wait" and value.isascii() and value.isdigit() and len(value) <= 6:
            seconds = min(float(value), LONGEST_WAIT)
            return Patience(seconds, f"wait={seconds:.0f}")
    return Patience()


async def _patience(
    prefer: Annotated[
        str | None,
        Header(
            description="`wait=N` (seconds, 60 at most; 30 if absent) or `respond-async`.",
            examples=["wait=10", "respond-async"],
        ),
    ] = None,
) -> Patience:
    return read_preference(prefer)


PatienceDep = Annotated[Patience, Depends(_patience)]
