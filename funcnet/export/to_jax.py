"""StableHLO: what a model gives for raw inputs as a compiled program's source, for JAX alone."""

import os
from functools import partial

import jax
from jax import export

from funcnet import checks
from funcnet.export.graph import BATCH
from funcnet.export.scoring import Inputs, outputs, traceable
from funcnet.files import write_atomically
from funcnet.model import Model

PLATFORMS = ("cpu", "cuda", "tpu")


def write_jax(path: str | os.PathLike[str], model: Model, inputs: Inputs) -> None:
    """Write a model as what `jax.export.deserialize` reads, parameters inside, for all `PLATFORMS`.

        exported = jax.export.deserialize(bytearray(open(path, "rb").read()))
        exported.call(x)["prediction"]      # x [N, ...] of any N, raw inputs of the dtype exported

    Predictions of regression are float32, as everything in JAX; where inputs are float64, float64,
    and `call` wants x64 enabled. JAX reads such files for six months at least after the version
    that wrote them.

    Raises:
      ImportError: flatbuffers, which JAX writes and reads such files with, is not installed.
      OSError: the file cannot be written.
    """
    checks.installed("flatbuffers", "to write StableHLO, and to read it", "stablehlo")
    ready = traceable(model, inputs)
    with jax.enable_x64(inputs.is_wide or jax.config.read("jax_enable_x64")):
        (batch,) = export.symbolic_shape(BATCH)
        x = jax.ShapeDtypeStruct((batch, *inputs.shape), inputs.dtype)
        exported = export.export(jax.jit(partial(outputs, ready)), platforms=PLATFORMS)(x)
        data = exported.serialize()
    write_atomically(path, bytes(data))
