"""What is exported: what a model gives for raw inputs, as one function, and of which inputs."""

from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from funcnet import checks
from funcnet.layer import Layer
from funcnet.model import Model, inputs_for, scores
from funcnet.objective import as_input
from funcnet.preprocess import fitted_shape
from funcnet.tree import Tree

OUTPUTS = ("scores", "prediction", "probabilities")


class Inputs(NamedTuple):
    """What a model takes: examples as they are before preprocessing.

    Attributes:
      shape: of one example.
      dtype: of its numbers.
    """

    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def is_wide(self) -> bool:
        """Whether they are preprocessed in float64, as float32 may round them."""
        return checks.is_wide(np.empty(0, self.dtype))

    def __str__(self) -> str:
        return f"{self.dtype.name} [N, {', '.join(map(str, self.shape))}]"


def inputs_of_model(model: Model, example: Any = None) -> Inputs:
    """The inputs that a model takes.

    Args:
      model: the model.
      example: [N, ...], inputs such as it was trained on, or a table; None finds the shape in the
        encoding, the preprocessing or else the parameters, and takes float32, or float64 where a
        table's encoding has it.
    Raises:
      ValueError: nothing says how large an example is, or the net does not take the example.
    """
    if example is not None:
        x = inputs_for(model, example)
        inputs = Inputs(tuple(x.shape[1:]), np.dtype(x.dtype))
        _check(model, inputs)
        return inputs
    wide = model.encoding is not None and model.encoding.wide
    dtype = np.dtype(np.float64 if wide else np.float32)
    if model.encoding is not None:
        return Inputs((len(model.encoding.names),), dtype)
    shape = fitted_shape(model.preprocess)
    if shape is not None:
        return Inputs(shape, dtype)
    return Inputs((_features(model.net, model),), dtype)


def _check(model: Model, inputs: Inputs) -> None:
    """Raise a ValueError unless the model takes them."""
    ready = traceable(model, inputs)
    with jax.enable_x64(inputs.is_wide or jax.config.read("jax_enable_x64")):
        jax.eval_shape(scores, ready, jax.ShapeDtypeStruct((2, *inputs.shape), inputs.dtype))


def _features(net: Layer, model: Model) -> int:
    """D of the flat examples that a net takes, the one size among its parameters' that it does."""
    sizes = {size for leaf in jax.tree.leaves(model.params) for size in np.shape(leaf)}
    fitting = [size for size in sorted(sizes) if _takes(net, model.params, model.state, size)]
    if len(fitting) != 1:
        raise ValueError(
            "neither preprocessing nor parameters say of which shape an example is: give one, "
            "example=x_train[:1] (--input-shape D, or C H W)"
        )
    return fitting[0]


def _takes(net: Layer, params: Tree, state: Tree, size: int) -> bool:
    def given(x: Any) -> Any:
        return net.forward(params, state, as_input(x, params), key=None, train=False)[0]

    try:
        jax.eval_shape(given, jax.ShapeDtypeStruct((2, size), np.float32))
    except (TypeError, ValueError):
        return False
    return True


def traceable(model: Model, inputs: Inputs) -> Model:
    """The model with what `scores` takes traced inputs by: of wide ones, statistics of float64."""
    preprocess = model.preprocess if inputs.is_wide else model.on_device.preprocess
    return replace(model.on_device, preprocess=preprocess, targets=model.targets)


def outputs(model: Model, x: jax.Array) -> dict[str, jax.Array]:
    """What is to be known of traced raw inputs [N, ...], by name.

    Returns:
      scores [N, C]; prediction, what `predict` gives, in the person's units; and probabilities
      [N, C], what `predict_proba` gives, where the scores are such.
    """
    # The barrier keeps a compiler from using what scores of bfloat16 were before they were rounded.
    found, targets = jax.lax.optimization_barrier(scores(model, x)), model.targets
    wide = found.astype(jnp.promote_types(found.dtype, jnp.float32))
    if targets.task == "regression":
        wide = found.astype(jax.dtypes.canonicalize_dtype(float))
        return {"scores": found, "prediction": targets.in_units(wide)}
    if targets.task == "multilabel":
        prediction = (found > 0).astype(jnp.int32)
    else:
        prediction = found.argmax(axis=1).astype(jnp.int32)
        # Before it is divided: a product and a difference in one leave a remainder of rounding.
        wide = wide - wide.max(axis=1, keepdims=True)
    given = {"scores": found, "prediction": prediction}
    if targets.gives_probabilities:
        link = jax.nn.sigmoid if targets.task == "multilabel" else jax.nn.softmax
        given["probabilities"] = link(wide / jnp.asarray(targets.temperature, wide.dtype))
    return given
