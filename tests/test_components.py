"""Every dependency of a handler names a component, and has its type."""

import importlib
import pkgutil
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import sevenfold.api
from sevenfold.api.components import Components


def dependencies() -> dict[str, tuple[str, Any]]:
    """By the alias's name: the component that it reads, and the type that handlers see."""
    found = {}
    for module in pkgutil.walk_packages(sevenfold.api.__path__, "sevenfold.api."):
        for name, alias in vars(importlib.import_module(module.name)).items():
            if get_origin(alias) is not Annotated:
                continue
            kind, *extras = get_args(alias)
            reader = getattr(extras[0], "dependency", None)
            component = getattr(reader, "component", None)
            if component is not None:
                found[name] = (component, kind)
    return found


def test_every_dependency_has_the_type_of_its_component() -> None:
    types = get_type_hints(Components)
    found = dependencies()
    assert len(found) > 20
    assert {name: kind for name, (component, kind) in found.items() if types.get(component) != kind} == {}


def test_every_component_is_used() -> None:
    """By a handler, or by what stands around all of them."""
    around = {
        "access",
        "authenticator",
        "rate_quotas",
        "run_tokens",
        "stream_hubs",
        "cluster_sampler",
        "sns_verifier",
    }
    used = {component for component, _ in dependencies().values()} | around
    assert set(get_type_hints(Components)) - used == set()
