"""Checks the URLs that requests name, before anything is started."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends

from sevenfold.adapters.outbound.addresses import UnsafeUrlError
from sevenfold.adapters.outbound.urls import check_url
from sevenfold.api.dependencies import component
from sevenfold.api.http.problems import invalid_field


@dataclass(frozen=True)
class UrlPolicy:
    """Which URLs the gateway may call. `allow_loopback` permits this machine, for development."""

    allow_loopback: bool

    def check(self, url: str, pointer: str) -> str:
        """Returns the URL's host. Raises 422 at `pointer` if the gateway must not call it."""
        try:
            return check_url(url, allow_loopback=self.allow_loopback).host
        except UnsafeUrlError as error:
            raise invalid_field(pointer, str(error)) from None


UrlPolicyDep = Annotated[UrlPolicy, Depends(component("url_policy"))]
