"""Fully connected networks in JAX with hand-written gradients.

import jax
import funcnet as fn

digits = fn.load_digits()
net = fn.mlp([100, 100], num_classes=10)
result = fn.fit(net, fn.adam(1e-3), digits, key=jax.random.key(0), epochs=20, batch_size=50)
fn.evaluate(result.best, digits.x_test, digits.y_test)
"""

import sys as _sys
from importlib import import_module as _import_module
from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

if _TYPE_CHECKING:
    from funcnet.activations import *
    from funcnet.augment import *
    from funcnet.calibration import *
    from funcnet.checkpoint import *
    from funcnet.committee import *
    from funcnet.config import *
    from funcnet.datasets import *
    from funcnet.defaults import *
    from funcnet.embeddings import *
    from funcnet.ensembles import *
    from funcnet.evaluation import *
    from funcnet.export.exported import *
    from funcnet.gradcheck import *
    from funcnet.history import *
    from funcnet.layer import *
    from funcnet.layers import *
    from funcnet.logs import *
    from funcnet.losses import *
    from funcnet.members import *
    from funcnet.metrics import *
    from funcnet.model import *
    from funcnet.net import *
    from funcnet.nonfinite import *
    from funcnet.objective import *
    from funcnet.optim import *
    from funcnet.optimizer import *
    from funcnet.parallel import *
    from funcnet.piecewise import *
    from funcnet.plots import *
    from funcnet.preprocess import *
    from funcnet.processes import *
    from funcnet.recipes import *
    from funcnet.rectifiers import *
    from funcnet.regression import *
    from funcnet.report.write import *
    from funcnet.runs import *
    from funcnet.schedules import *
    from funcnet.shards import *
    from funcnet.step import *
    from funcnet.sweeps.cross import *
    from funcnet.sweeps.guided import *
    from funcnet.sweeps.importance import *
    from funcnet.sweeps.objectives import *
    from funcnet.sweeps.search import *
    from funcnet.sweeps.sweep import *
    from funcnet.sweeps.table import *
    from funcnet.tabular import *
    from funcnet.targets import *
    from funcnet.train import *
    from funcnet.tree import *
    from funcnet.weights import *
    from funcnet.wrappers import *

__version__ = "0.2.0"

# The public names of each module, its __all__: a module, and JAX with it, is imported when one of
# them is first used.
_NAMES = {
    "activations": """
        gelu gelu_backward gelu_forward gelu_tanh_backward gelu_tanh_forward logistic
        logistic_backward logistic_forward mish mish_backward mish_forward parametric
        parametric_backward parametric_forward selu selu_backward selu_forward tanh tanh_backward
        tanh_forward
    """,
    "rectifiers": """
        affine_relu_backward affine_relu_forward leaky_relu leaky_relu_backward leaky_relu_forward
        prelu prelu_backward prelu_forward relu relu_backward relu_forward
    """,
    "augment": "cutout flips_and_shifts mixup random_flip random_resized_crop random_shift",
    "calibration": "calibrate",
    "checkpoint": "load_model load_state save_model save_state",
    "nonfinite": "NonFiniteError Trouble",
    "committee": "join_models select_models",
    "config": "Config",
    "datasets": """
        DataWarning Dataset Encoding Feature Stored check_dataset convert_dataset download_cifar10
        find_cifar10 load_arrays load_cifar10 load_dataset load_digits load_images load_table
        read_inputs
    """,
    "defaults": "complete_config",
    "embeddings": """
        column_affine column_affine_backward column_affine_forward pbld pbld_backward pbld_forward
        periodic periodic_backward periodic_forward
    """,
    "piecewise": "piecewise_linear piecewise_linear_backward piecewise_linear_forward",
    "ensembles": "ensemble stacked tabm",
    "gradcheck": "GradientCheck check_gradients numerical_gradient relative_error scaled_error",
    "layer": "Layer make_layer make_stateful_layer",
    "layers": """
        affine_backward affine_forward batchnorm_backward batchnorm_forward dropout_backward
        dropout_forward flatten_backward flatten_forward layernorm_backward layernorm_forward
        with_custom_vjp
    """,
    "evaluation": "Evaluation MultilabelEvaluation RegressionEvaluation evaluate",
    "export.exported": "export_model",
    "history": "History",
    "logs": "callbacks log_csv log_jsonl log_row log_tensorboard read_log",
    "losses": """
        l2_penalty sigmoid_loss smooth_binary_labels smooth_labels softmax_loss svm_loss
    """,
    "members": """
        batch_ensemble_affine batch_ensemble_affine_backward batch_ensemble_affine_forward
        member_affine member_affine_backward member_affine_forward member_scale
        member_scale_backward member_scale_forward shared_affine shared_affine_backward
        shared_affine_forward
    """,
    "metrics": """
        accuracy balanced_accuracy calibration_error confusion_matrix log_loss macro_f1 mae micro_f1
        r2 recall rmse
    """,
    "model": "BestModel Model predict predict_proba predict_scores",
    "net": "affine batchnorm dropout flatten layernorm mlp residual serial",
    "objective": "loss loss_and_grads",
    "optim": "adagrad adam adamw lion muon nesterov rmsprop sgd sgd_momentum",
    "wrappers": "averaged_params clip_by_global_norm global_norm with_average",
    "optimizer": "Optimizer apply_updates",
    "parallel": "device_mesh",
    "plots.curves": "plot_histories plot_history plot_learning_rates",
    "plots.predictions": "plot_reliability",
    "plots.sweeps": "plot_heat_map plot_lines plot_parallel plot_scatter plot_sweep",
    "preprocess": """
        Preprocess chain no_preprocess normalize_contrast quantile_edges quantile_transform
        shuffle_features standardize standardize_numbers subtract_mean whiten
    """,
    "processes": "join_processes",
    "recipes": "Experiment Recipe experiment list_recipes load_recipe",
    "regression": "absolute_loss huber_loss pinball_loss poisson_loss squared_loss",
    "report.write": "write_report",
    "runs": "load_run",
    "schedules": """
        complement constant coslog4 cosine_decay exponential_decay flat_cosine one_cycle step_decay
        warmup
    """,
    "shards": "BATCH_AXIS batch_mean batch_sum",
    "step": "TrainState init_train_state make_train_step",
    "sweeps.cross": "CrossValidation Fold cross_validate",
    "sweeps.guided": "search",
    "sweeps.importance": "importance",
    "sweeps.objectives": "pareto_front",
    "sweeps.search": "grid integers log_uniform member_key random_search uniform",
    "sweeps.sweep": "SweepResult sweep",
    "sweeps.table": "Member mean_over_seeds sweep_table",
    "tabular": """
        column_scale column_scale_backward column_scale_forward embed_categories
        embed_categories_backward embed_categories_forward ntk_affine ntk_affine_backward
        ntk_affine_forward on_columns
    """,
    "targets": "Targets",
    "train": "FitResult fit",
    "tree": "FrozenDict freeze unfreeze",
    "weights": "class_weights",
}
_WHERE = {name: module for module, names in _NAMES.items() for name in names.split()}
__all__ = sorted(_WHERE)


def __getattr__(name: str) -> _Any:
    if name in {module.split(".")[0] for module in _NAMES}:
        return _import_module(f"{__name__}.{name}")
    if name not in _WHERE:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message, name=name, obj=_sys.modules[__name__])
    value = getattr(_import_module(f"{__name__}.{_WHERE[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_WHERE})
