"""Fully connected networks in JAX with hand-written gradients.

import jax
import funcnet as fn

digits = fn.load_digits()
net = fn.mlp([100, 100], num_classes=10)
result = fn.fit(net, fn.adam(1e-3), digits, key=jax.random.key(0), epochs=20, batch_size=50)
fn.evaluate(result.best, digits.x_test, digits.y_test)
"""

# What is public each module says itself, in its __all__.
from types import ModuleType as _ModuleType

from funcnet.augment import *
from funcnet.checkpoint import *
from funcnet.config import *
from funcnet.datasets import *
from funcnet.defaults import *
from funcnet.gradcheck import *
from funcnet.layer import *
from funcnet.layers import *
from funcnet.losses import *
from funcnet.metrics import *
from funcnet.model import *
from funcnet.net import *
from funcnet.optim import *
from funcnet.optimizer import *
from funcnet.plots import *
from funcnet.preprocess import *
from funcnet.recipes import *
from funcnet.schedules import *
from funcnet.step import *
from funcnet.sweeps.search import *
from funcnet.sweeps.sweep import *
from funcnet.sweeps.table import *
from funcnet.train import *
from funcnet.tree import *

__version__ = "0.2.0"
__all__ = sorted(
    name
    for name, value in list(globals().items())
    if not name.startswith("_") and not isinstance(value, _ModuleType)
)
