"""A whole training step as one graph: forward, backward, clipping, update of parameters.

Roof: uses the differentiation pass.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from asg import tracing
from asg.collector import paused
from asg.errors import GraphError
from asg.graph import Graph, Value
from asg.nn.module import Module
from asg.open_graph import OpenGraph
from asg.optim.groups import Named
from asg.optim.optimizer import Optimizer, Update
from asg.optim.scaling import PREFIX, LossScaling, Scaler, as_scaling
from asg.passes.autodiff import value_and_grad
from asg.tensor import Tensor

LossFunction = Callable[[Any, Mapping[str, Tensor]], Any]
LOSS = "loss"
SCALED_LOSS = f"{PREFIX}.loss"


@paused()
def training_step(
    model: Module | Graph | OpenGraph,
    loss: LossFunction | str,
    optimizer: Optimizer,
    *,
    wrt: Sequence[str] | None = None,
    seed: int | None = None,
    name: str | None = None,
    loss_scaling: LossScaling | bool | None = None,
    **specs: object,
) -> Any:
    """Return the graph of one training step; its state is parameters, moments and random key.

    With a module, `loss(model, batch)` builds the loss f32[] from a dict of the inputs that
    `specs` describe (types, texts or arrays), while the model is in training mode; it may
    return a dict with further outputs beside `loss`. With a graph, `loss` names an output of
    it. Outputs are these, and, where the optimizer computes them, `grad_norm` and `lr`.

    Args:
        wrt: names of the parameters to train; by default all floats that require a gradient.
        seed: what the random key starts from; by default that of `nn.manual_seed`.
        loss_scaling: True, or how to scale: the gradients are those of a multiple of the loss, as
            `torch.amp.GradScaler` does it, and where one is infinite or NaN the step is skipped.
            The scale is state; the output
            `loss_scale` is what it became.

    Raises:
        GraphError: there is no such loss, or the optimizer's groups do not fit.
        GradientError: the loss is no scalar, or something on the way has no gradient.
    """
    if isinstance(model, (Graph, OpenGraph)):
        if not isinstance(loss, str):
            raise GraphError("with a graph, the loss is the name of an output")
        if specs:
            raise GraphError(f"a graph has its inputs already; not needed: {', '.join(specs)}")
        make = partial(
            _step,
            loss=loss,
            optimizer=optimizer,
            wrt=wrt,
            named={},
            name=name or model.name,
            scaling=as_scaling(loss_scaling),
        )
        return make(model) if isinstance(model, Graph) else model.map(make)
    if isinstance(loss, str):
        raise GraphError("with a model, the loss is a function of the model and a batch")
    forward = trace_loss(model, loss, specs, seed=seed, name=name or "training_step")
    named = {id(item): path for path, item in model.named_parameters()}
    trained = [path for path, item in model.named_parameters() if item.requires_grad]
    scaling = as_scaling(loss_scaling)

    def step(graph: Graph) -> Graph:
        known = graph.input_names("parameter")
        chosen = [path for path in trained if path in known] if wrt is None else list(wrt)
        return _step(graph, LOSS, optimizer, chosen, named, graph.name, scaling)

    return step(forward) if isinstance(forward, Graph) else forward.map(step)


def trace_loss(
    model: Module,
    loss: LossFunction,
    specs: Mapping[str, object],
    *,
    training: bool = True,
    seed: int | None = None,
    name: str = "loss",
) -> Graph | OpenGraph:
    """Return the graph of `loss(model, batch)`, with the model in training mode or not.

    Raises:
        GraphError: the result is neither a tensor nor a dict of tensors with `loss` among them.
    """
    types = {key: tracing.as_spec(value) for key, value in specs.items()}
    modes = [(module, module.training) for module in model.modules()]

    def run(batch: Mapping[str, Tensor]) -> Any:
        # An open graph is traced later, and again and again.
        model.train(training)
        try:
            result = loss(model, batch)
        finally:
            for module, mode in modes:
                module.training = mode
        if isinstance(result, Tensor):
            return {LOSS: result}
        if not isinstance(result, Mapping) or LOSS not in result:
            raise GraphError(
                "the loss function returns a tensor, or a dict of tensors with 'loss' among "
                f"them, not {type(result).__name__}"
            )
        return {LOSS: result[LOSS], **result}

    return tracing.trace_open(run, types, root=model, name=name, seed=seed)


def _step(
    forward: Graph,
    loss: str,
    optimizer: Optimizer,
    wrt: Sequence[str] | None,
    named: Named,
    name: str,
    scaling: LossScaling | None,
) -> Graph:
    scaler = None if scaling is None else Scaler(scaling)
    differentiated, of = forward, loss
    if scaler is not None:
        differentiated, of = _with_scaled_loss(forward, loss, scaler)
    joint = value_and_grad(differentiated, of=of, wrt=wrt)
    trained = [
        key.removesuffix(".grad") for key in joint.outputs if key not in differentiated.outputs
    ]
    params = {key: Tensor(Value(joint.input(key))) for key in trained}
    grads = {key: Tensor(joint.outputs[f"{key}.grad"]) for key in trained}
    update = optimizer.apply(params, grads, named, scaler)
    outputs = {key: Tensor(value) for key, value in forward.outputs.items()}
    for key in (key for key in update.metrics if key in outputs):
        raise GraphError(f"the loss function returns {key!r}, which the optimizer reports")
    updates = {key: Tensor(value) for key, value in joint.updates.items()}
    _check_disjoint(updates, update)
    built = tracing.graph(
        outputs | dict(update.metrics),
        updates | dict(update.updates),
        name=name,
        inputs=[Tensor(Value(node)) for node in joint.inputs],
    )
    return built.with_values({**built.values, **joint.values})


def _with_scaled_loss(forward: Graph, loss: str, scaler: Scaler) -> tuple[Graph, str]:
    """Return the graph with the scaled loss as a further output, and that output's name."""
    if loss not in forward.outputs:
        raise GraphError(
            f"the graph has no output {loss!r} to scale; outputs: {', '.join(forward.outputs)}"
        )
    if SCALED_LOSS in forward.outputs:
        raise GraphError(f"an output may not be called {SCALED_LOSS!r}")
    scaled = scaler.scaled(Tensor(forward.outputs[loss]))
    graph = Graph.build(
        {**forward.outputs, SCALED_LOSS: scaled.value},
        updates=forward.updates,
        name=forward.name,
        values=forward.values,
        inputs=(*forward.inputs, scaler.scale.node),
        interfaces=forward.interfaces,
    )
    return graph, SCALED_LOSS


def _check_disjoint(updates: Mapping[str, Tensor], update: Update) -> None:
    for key in (key for key in update.updates if key in updates):
        raise GraphError(f"{key!r} is updated by the graph already; leave it out of wrt")
