"""The Protocols of the actors' handles name what the actors have."""

from __future__ import annotations

import inspect

import pytest

from tune.engine import handles
from tune.engine.engine import Engine
from tune.engine.handles import EngineHandle, WorkerHandle
from tune.engine.worker import Worker


def public(cls: type) -> set[str]:
    return {name for name, _ in inspect.getmembers(cls, callable) if not name.startswith("_")}


def declared(handle: type) -> set[str]:
    return {name for name, member in vars(handle).items() if isinstance(member, property)}


@pytest.mark.parametrize(("actor", "handle"), [(Engine, EngineHandle), (Worker, WorkerHandle)])
def test_a_handle_has_the_methods_of_its_actor(actor: type, handle: type) -> None:
    assert declared(handle) == public(actor)


@pytest.mark.parametrize(("actor", "handle"), [(Engine, EngineHandle), (Worker, WorkerHandle)])
def test_a_method_takes_as_many_arguments_as_its_handle_says(actor: type, handle: type) -> None:
    for name in declared(handle):
        method = vars(handle)[name].fget.__annotations__["return"]
        parameters = list(inspect.signature(getattr(actor, name)).parameters)[1:]
        own = [one for one in parameters if not one.startswith("_ray")]  # which Ray adds
        if method.startswith("Method["):
            inside = method.removeprefix("Method[[").split("]")[0]
            required = [part for part in inside.split(",") if part.strip()]
            assert len(required) == len(own), name
        else:
            remote = inspect.signature(getattr(handles, method).remote)
            assert list(remote.parameters)[1:] == own, name
