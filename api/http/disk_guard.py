"""Refuses new work while the disk is full."""

from typing import Annotated

from fastapi import Depends

from sevenfold.adapters.temporal.disk_space import DiskSpace
from sevenfold.api.dependencies import component
from sevenfold.api.http.problems import ProblemError, ProblemType

DiskSpaceDep = Annotated[DiskSpace, Depends(component("disk"))]


def check_storage(disk: DiskSpace) -> None:
    """Raises 507 if the disk is full: the gateway must keep whatever it accepts."""
    if disk.is_low:
        raise ProblemError(
            ProblemType.STORAGE_FULL,
            "The gateway's disk is full, so it accepts no new work. Send the request again later.",
            retry_after=10,
        )
