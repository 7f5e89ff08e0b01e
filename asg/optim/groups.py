"""Which parameters share which options, as PyTorch's parameter groups."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from asg.errors import GraphError
from asg.tensor import Tensor

Selector = Callable[[str, Tensor], bool]
Named = Mapping[int, str]  # name of each parameter object, by its id


@dataclass(frozen=True)
class Group:
    """Names of parameters, and their options."""

    names: tuple[str, ...]
    options: Mapping[str, Any]


def decay_groups(model: Any, weight_decay: float) -> list[dict[str, Any]]:
    """Return groups that decay the matrices of `model` and spare vectors (biases, norms)."""
    shapes = {name: item.shape for name, item in model.named_parameters() if item.requires_grad}
    return [
        {"params": [name for name in shapes if len(shapes[name]) >= 2],
         "weight_decay": weight_decay},
        {"params": [name for name in shapes if len(shapes[name]) < 2], "weight_decay": 0.0},
    ]  # fmt: skip


def resolve(
    groups: Sequence[Mapping[str, Any]] | None,
    defaults: Mapping[str, Any],
    params: Mapping[str, Tensor],
    named: Named,
) -> list[Group]:
    """Return the groups that `params` fall into, in the order given; empty ones are left out.

    Raises:
        GraphError: a parameter is in no group or in two, or a name or an option is unknown.
    """
    if groups is None:
        return [Group(tuple(params), _hashable(defaults))] if params else []
    found: list[Group] = []
    owner: dict[str, int] = {}
    for position, group in enumerate(groups):
        options = {key: value for key, value in group.items() if key != "params"}
        unknown = [key for key in options if key not in defaults]
        if unknown or "params" not in group:
            what = f"no option {unknown[0]!r}" if unknown else "no 'params'"
            known = ", ".join(defaults)
            raise GraphError(f"parameter group {position} has {what}; options: {known}")
        names = _select(group["params"], params, named, position)
        for name in names:
            if name in owner:
                raise GraphError(f"parameter {name!r} is in group {owner[name]} and {position}")
            owner[name] = position
        if names:
            found.append(Group(tuple(names), _hashable({**defaults, **options})))
    left = [name for name in params if name not in owner]
    if left:
        raise GraphError(
            f"in no parameter group: {', '.join(left)}\n"
            "  fix: add a group, or set requires_grad = False to leave them as they are"
        )
    return found


def _hashable(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options with tuples for lists, so that they can be compared."""
    return {
        key: tuple(value) if isinstance(value, list) else value for key, value in options.items()
    }


def _select(selector: Any, params: Mapping[str, Tensor], named: Named, position: int) -> list[str]:
    """Return names in the order of `params`."""
    if callable(selector):
        return [name for name, tensor in params.items() if selector(name, tensor)]
    items: Iterable[Any] = [selector] if isinstance(selector, str) else selector
    wanted: set[str] = set()
    known = set(named.values())
    for item in items:
        name = item if isinstance(item, str) else named.get(id(item), "")
        if name not in params and name in known:
            continue  # frozen, or no part of the loss
        if name not in params:
            label = repr(name or item)
            raise GraphError(
                f"parameter group {position} names {label}, which is not trained; "
                f"parameters: {', '.join(params)}"
            )
        wanted.add(name)
    return [name for name in params if name in wanted]
