"""`FuncNetClassifier` and `FuncNetRegressor`, in place of scikit-learn's MLPs."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Unpack

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted, validate_data

from funcnet import checks
from funcnet.committee import join_models
from funcnet.layer import Layer
from funcnet.losses import gives_probabilities
from funcnet.model import predict_proba, predict_scores
from funcnet.signature import complete, takes
from funcnet.sklearn.data import (
    Labelled,
    as_table,
    check_two_classes,
    class_weight_of,
    dataset_of,
    inputs_of,
    labelled,
)
from funcnet.sklearn.parameters import (
    FIRST,
    ClassifierParameters,
    Parameters,
    check_parameters,
    check_picklable,
    documented,
)
from funcnet.sklearn.plans import OUT, PARAMETER_OF, loss_of, net_of, net_options, options_of
from funcnet.sklearn.runs import Course, Trained, run, run_ensemble, run_epoch


class FuncNet(BaseEstimator):
    """What both estimators do."""

    task: str
    t_: int
    models_: tuple[Any, ...]
    _last: Any

    def _set(self, parameters: dict[str, Any]) -> None:
        for name, value in parameters.items():
            setattr(self, name, value)

    def fit(self, X: Any, y: Any, sample_weight: Any = None, eval_set: Any = None) -> "FuncNet":
        """Train on examples.

        Args:
          X: [N, D] numbers, which may be NaN; or a frame of pandas, Polars or Arrow with columns
            of any kind: words and categories become one-hot, dates numbers, and what is missing
            the median or no category, with an indicator.
          y: the targets, see the class.
          sample_weight: [N], 0 or more: how much each example counts, in loss and scores. None is
            1 each.
          eval_set: (X, y) or (X, y, sample_weight) to score in each epoch, in place of those that
            early_stopping holds out.
        Returns:
          The estimator. If something is wrong it stays what it was.
        Raises:
          ValueError, TypeError: an argument or a parameter is wrong. FloatingPointError: the loss
            was not finite.
        """
        given = self._checked()
        with self._all_or_nothing():
            goes_on = bool(self.warm_start) and self._can_go_on()
            data = self._labelled(X, y, sample_weight, goes_on=goes_on)
            random = check_random_state(self.random_state)
            train, val = self._split(data, eval_set, random)
            seeds = random.randint(2**31 - 1, size=int(self.n_ensemble)).tolist()
            encoding = self.models_[0].encoding if goes_on else None
            dataset = dataset_of(train, val, encoding)
            weights = class_weight_of(given.get("class_weight"), train)
            plan = given, self._net_options(given, dataset, goes_on), dataset
            options = options_of(given, dataset, weights)
            if self.n_ensemble > 1:
                trained = run_ensemble(*plan, options, seeds=seeds)
            else:
                start = (self.models_[0], self._last) if goes_on else None
                before = self._course if goes_on else None
                trained = run(*plan, options, seed=seeds[0], start=start, before=before)
            self._keep(train, trained, plan[1], goes_on)
        course = trained.course
        if course.epochs == self.max_iter and not (course.over or course.ended):
            warnings.warn(
                f"max_iter = {self.max_iter} epochs are done, and the training has not come to "
                "rest: give it more, or a larger tol",
                ConvergenceWarning,
                stacklevel=2,
            )
        return self

    def _fit_part(self, X: Any, y: Any, sample_weight: Any, classes: Any) -> "FuncNet":
        """An epoch over a part of the data."""
        given = self._checked()
        for name, off in (("early_stopping", False), ("n_ensemble", 1)):
            if given[name] != off:
                raise ValueError(f"partial_fit goes without {name}: it must be {off}")
        with self._all_or_nothing():
            goes_on = self._can_go_on()
            data = self._labelled(X, y, sample_weight, goes_on=goes_on, classes=classes)
            seed = int(check_random_state(self.random_state).randint(2**31 - 1))
            dataset = dataset_of(data, None, self.models_[0].encoding if goes_on else None)
            weights = class_weight_of(given.get("class_weight"), data)
            plan = given, self._net_options(given, dataset, goes_on), dataset
            start = (self.models_[0], self._last) if goes_on else None
            options, before = options_of(given, dataset, weights), self._course if goes_on else None
            trained = run_epoch(*plan, options, seed=seed, start=start, before=before)
            self._keep(data, trained, plan[1], goes_on)
        return self

    def _checked(self) -> dict[str, Any]:
        """The parameters by name, checked."""
        given = self.get_params(deep=False)
        check_parameters(given)
        return given

    def _can_go_on(self) -> bool:
        """Whether there is a net to go on with."""
        if not hasattr(self, "models_"):
            return False
        if len(self.models_) > 1:
            raise ValueError(
                f"there are {len(self.models_)} nets from n_ensemble, which cannot go on: a clone, "
                "or warm_start=False, begins anew"
            )
        return True

    @contextmanager
    def _all_or_nothing(self) -> Iterator[None]:
        """Whatever is raised within it leaves the estimator as it was."""
        before = dict(self.__dict__)
        try:
            yield
        except BaseException:
            self.__dict__ = before
            raise

    def _labelled(
        self, X: Any, y: Any, sample_weight: Any, *, goes_on: bool, classes: Any = None
    ) -> Labelled:
        """The examples, checked, against those of before if there were any."""
        validate_data(self, X, y, reset=not goes_on, skip_check_array=True)
        if goes_on:
            classes = getattr(self, "classes_", None)
        data = labelled(self, X, y, sample_weight, self.task, classes)
        if goes_on and data.task != self.models_[0].targets.task:
            raise ValueError(f"y is {data.task}, and was {self.models_[0].targets.task} before")
        if goes_on and data.task == "regression":
            targets = self.models_[0].targets
            shape = () if targets.flat else (len(targets.scale),)
            checks.targets(data.y, num_examples=len(data.y), width=shape)
        check_two_classes(data)
        return data

    def _split(
        self, data: Labelled, eval_set: Any, random: Any
    ) -> tuple[Labelled, Labelled | None]:
        """The examples to train, and those to validate: given, held out, or none."""
        if eval_set is not None:
            return data, self._eval_set(eval_set, data)
        if not self.early_stopping:
            return data, None
        classes = data.task == "classification"
        train, val = train_test_split(
            np.arange(len(data.y)),
            test_size=self.validation_fraction,
            random_state=random,
            stratify=data.y if classes else None,
        )
        if len(val) < 2:
            raise ValueError(
                f"validation_fraction {self.validation_fraction} holds out {len(val)} of "
                f"{checks.plural(len(data.y), 'example')}, and 2 are needed: raise it"
            )
        return data.rows(train), data.rows(val)

    def _eval_set(self, eval_set: Any, data: Labelled) -> Labelled:
        if isinstance(eval_set, list) and len(eval_set) == 1:
            eval_set = eval_set[0]
        if not isinstance(eval_set, tuple | list) or len(eval_set) not in (2, 3):
            raise ValueError("eval_set must be (X, y) or (X, y, sample_weight)")
        X, y, weight = (*eval_set, None)[:3]
        validate_data(self, X, y, reset=False, skip_check_array=True)
        return labelled(self, X, y, weight, self.task, data.classes)

    def _net_options(self, given: Any, dataset: Any, goes_on: bool) -> dict[str, Any]:
        """What the net is made of: that of before, if the training goes on."""
        options = net_options(given, dataset)
        if goes_on and options != self._net:
            differ = [name for name, value in options.items() if value != self._net[name]]
            names = [PARAMETER_OF.get(name, name) for name in differ]
            raise ValueError(
                f"the net of before has other {', '.join(names)}: warm_start=False, or a clone, "
                "begins anew"
            )
        return options

    def _keep(self, train: Labelled, trained: Trained, net: dict[str, Any], goes_on: bool) -> None:
        """The attributes of a training."""
        course, targets = trained.course, trained.models[0].targets
        if train.classes is not None:
            self.classes_ = train.classes
        self.models_, self._net, self._last = trained.models, net, trained.last
        self._together = _together(trained.models)
        self._course: Course = course
        self.loss_curve_, self.loss_ = course.losses, course.losses[-1]
        self.validation_scores_ = course.scores or None
        self.best_validation_score_ = max(course.scores) if course.scores else None
        self.best_loss_ = None if self.early_stopping else course.best_loss
        self.n_iter_, self.n_layers_ = course.epochs, len(net["hidden_dims"]) + 2
        self.n_outputs_ = net["num_classes"]
        self.out_activation_ = OUT.get(targets.link, "identity")
        seen = course.epochs * len(train.y)
        self.t_ = self.t_ + seen if goes_on else seen

    @property
    def model_(self) -> Any:
        """The Model, of several nets that of all: for `predict`, `save_model` and so on."""
        model = vars(self).get("_together")
        if model is None:
            raise AttributeError(f"this {type(self).__name__} is not fitted yet: call fit first")
        return model

    @property
    def coefs_(self) -> list[np.ndarray]:
        """The weights [fan in, fan out] of each affine layer, of several nets of the first."""
        return [self._affine(number)["w"] for number in range(1, self._num_affine + 1)]

    @property
    def intercepts_(self) -> list[np.ndarray]:
        """The biases of each affine layer, of several nets of the first."""
        return [self._affine(number)["b"] for number in range(1, self._num_affine + 1)]

    @property
    def _num_affine(self) -> int:
        return sum(name.startswith("affine") for name in self._first.params)

    def _affine(self, number: int) -> Any:
        return self._first.params[f"affine{number}"]

    @property
    def _first(self) -> Any:
        return self.models_[0] if hasattr(self, "models_") else self.model_

    def _inputs(self, X: Any) -> np.ndarray:
        """What the nets take of examples."""
        check_is_fitted(self, "models_")
        table = as_table(X, self)
        validate_data(self, X, reset=False, skip_check_array=True)
        return inputs_of(table, self.models_[0].encoding)

    def __sklearn_tags__(self) -> Any:
        """What scikit-learn wants to know."""
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags

    def __getstate__(self) -> dict[str, Any]:
        """What is pickled: parameters, arrays and plain data; nets are made again.

        Raises:
          TypeError: a parameter cannot be pickled; it is named.
        """
        check_picklable(self.get_params(deep=False))
        state = dict(super().__getstate__())
        if "models_" in state:
            state["models_"] = tuple(replace(model, net=None) for model in self.models_)
            del state["_together"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Make of it what was pickled."""
        super().__setstate__(state)
        if "models_" in state:
            net = net_of(state["_net"])
            self.models_ = tuple(replace(model, net=net) for model in state["models_"])
            self._together = _together(self.models_)


def _together(models: tuple[Any, ...]) -> Any:
    """Nets as one Model."""
    return models[0] if len(models) == 1 else join_models(models)


def _is_probable(estimator: Any) -> bool:
    """Whether the scores of a classifier make probabilities; else the error says what does."""
    task = "classification" if estimator.loss != "sigmoid" else "multilabel"
    if not gives_probabilities(loss_of(estimator.get_params(deep=False), task)):
        raise AttributeError(
            f"loss {estimator.loss!r} gives no probabilities: loss=None does, and predict goes "
            "without"
        )
    return True


@documented(ClassifierParameters)
class FuncNetClassifier(ClassifierMixin, FuncNet):
    """A fully connected network of funcnet, trained as scikit-learn's MLPClassifier is.

    y are labels of any kind, numbers, words or bools, two or more; or [N, K] of 0 and 1, whether
    each of K labels holds. Parameters, attributes and their defaults are those of MLPClassifier,
    of which `FuncNetClassifier` can take the place, but:

    - numbers are standardized (preprocess=None does not), in float32, and frames may hold words;
    - two classes have two scores and softmax, not one and a logistic function, so that of a
      binary problem the penalty on the last layer is half as strong, for the same function;
    - alpha is divided by batch_size in all steps, the last and shorter one of an epoch too;
    - initial weights are normal, of the variance of MLPClassifier's, and biases 0;
    - `partial_fit` takes classes before sample_weight: better give them by name;
    - there is no "lbfgs", and shuffle=False is for batches of all examples alone.

    Files for long are those of `save_model(path, estimator.model_)`; pickle and joblib, which run
    code, hold parameters and arrays.

    Parameters:
      {parameters}

    Attributes:
      classes_: the labels of the classes, or 0 to K - 1 of several labels.
      n_features_in_, feature_names_in_: how many columns X had, and their names, if it had some:
        as everywhere in scikit-learn, those of `predict` must have the same in the same order.
      coefs_, intercepts_: weights [fan in, fan out] and biases of each affine layer: of what is
        made of the columns, see `model_.encoding.names`, standardized.
      loss_, loss_curve_, best_loss_: the loss of the last epoch, of each one, the least, L2
        included.
      validation_scores_, best_validation_score_: accuracy after each epoch, and the best; None
        without early_stopping and eval_set.
      n_iter_, t_: epochs of the last fit, examples seen in all.
      n_layers_, n_outputs_, out_activation_: the layers, input and output among them; the scores;
        "softmax", or "logistic" of several labels.
      model_, models_: the `Model` of funcnet, of several nets that of all; those of n_ensemble.
    """

    task = "classification"

    @takes(ClassifierParameters)
    def __init__(
        self,
        hidden_layer_sizes: Any = FIRST["hidden_layer_sizes"][0],
        activation: str | Layer = FIRST["activation"][0],
        **parameters: Unpack[ClassifierParameters],
    ) -> None:
        self.hidden_layer_sizes, self.activation = hidden_layer_sizes, activation
        self._set(complete(ClassifierParameters, parameters, type(self).__name__))

    def partial_fit(
        self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None
    ) -> "FuncNetClassifier":
        """Train for one epoch on a part of the data.

        What is made of columns, and their standardization, is learned from the first part.

        Args:
          X, y, sample_weight: as for `fit`.
          classes: all labels that there are; needed in the first call, unless y is [N, K].
        """
        if not hasattr(self, "models_") and classes is None and np.ndim(y) != 2:
            raise ValueError("classes must be passed on the first call to partial_fit: all labels")
        if classes is not None:
            classes = np.unique(classes)
            known = getattr(self, "classes_", classes)
            if not np.array_equal(known, classes):
                raise ValueError(f"classes must be those of before, {known.tolist()}")
        return self._fit_part(X, y, sample_weight, classes)

    def predict(self, X: Any) -> np.ndarray:
        """The label of each example, [N]; of several labels [N, K] of 0 and 1.

        Args:
          X: as for `fit`.
        """
        values, targets = self._values(X), self.model_.targets
        if targets.task == "multilabel":
            return (values > (0.5 if targets.gives_probabilities else 0)).astype(int)
        return self.classes_[values.argmax(axis=1)]

    @available_if(_is_probable)
    def predict_proba(self, X: Any) -> np.ndarray:
        """The probability of each class, [N, C], or of each label, [N, K].

        Args:
          X: as for `fit`.
        """
        return self._values(X)

    @available_if(_is_probable)
    def predict_log_proba(self, X: Any) -> np.ndarray:
        """The logarithms of `predict_proba`.

        Args:
          X: as for `fit`.
        """
        with np.errstate(divide="ignore"):
            return np.log(self._values(X))

    def _values(self, X: Any) -> np.ndarray:
        """The mean over the nets of probabilities, or of scores that make none."""
        x = self._inputs(X)
        of = predict_proba if self.model_.targets.gives_probabilities else predict_scores
        return of(self.model_, x)

    def __sklearn_tags__(self) -> Any:
        """What scikit-learn wants to know."""
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


@documented(Parameters)
class FuncNetRegressor(RegressorMixin, FuncNet):
    """A fully connected network of funcnet, trained as scikit-learn's MLPRegressor is.

    y are numbers, [N] or [N, K]. Parameters, attributes and their defaults are those of
    MLPRegressor, of which `FuncNetRegressor` can take the place, but:

    - numbers of X are standardized (preprocess=None does not), in float32, and frames may hold
      words; y is standardized, too, so that losses and tol are in units of its variance, and
      learning_rate_init does not depend on its units;
    - the loss is the mean over K targets, where MLPRegressor takes the gradient of the sum: alpha
      is divided by K, so that the balance of data and penalty is the same, in standardized units;
    - alpha is divided by batch_size in all steps, the last and shorter one of an epoch too;
    - initial weights are normal, of the variance of MLPRegressor's, and biases 0;
    - there is no "lbfgs", and shuffle=False is for batches of all examples alone;
    - the first parameter is hidden_layer_sizes, not loss;
    - of loss "pinball", which predicts quantiles, `predict` gives the one nearest to the median.

    Files for long are those of `save_model(path, estimator.model_)`; pickle and joblib, which run
    code, hold parameters and arrays.

    Parameters:
      {parameters}

    Attributes:
      n_features_in_, feature_names_in_: how many columns X had, and their names, if it had some:
        as everywhere in scikit-learn, those of `predict` must have the same in the same order.
      coefs_, intercepts_: weights [fan in, fan out] and biases of each affine layer: of what is
        made of the columns, see `model_.encoding.names`, standardized, for standardized y.
      loss_, loss_curve_, best_loss_: the loss of the last epoch, of each one, the least, L2
        included.
      validation_scores_, best_validation_score_: R2 after each epoch, and the best; None without
        early_stopping and eval_set.
      n_iter_, t_: epochs of the last fit, examples seen in all.
      n_layers_, n_outputs_, out_activation_: the layers, input and output among them; the scores;
        "identity", or "exp" of loss "poisson".
      model_, models_: the `Model` of funcnet, of several nets that of all; those of n_ensemble.
    """

    task = "regression"

    @takes(Parameters)
    def __init__(
        self,
        hidden_layer_sizes: Any = FIRST["hidden_layer_sizes"][0],
        activation: str | Layer = FIRST["activation"][0],
        **parameters: Unpack[Parameters],
    ) -> None:
        self.hidden_layer_sizes, self.activation = hidden_layer_sizes, activation
        self._set(complete(Parameters, parameters, type(self).__name__))

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> "FuncNetRegressor":
        """Train for one epoch on a part of the data.

        What is made of columns, and the standardization of them and of y, is learned from the
        first part.

        Args:
          X, y, sample_weight: as for `fit`.
        """
        return self._fit_part(X, y, sample_weight, None)

    def predict(self, X: Any) -> np.ndarray:
        """The predictions, [N] or [N, K] as y was, in its units.

        Args:
          X: as for `fit`.
        """
        x = self._inputs(X)
        return self.model_.targets.decode(predict_scores(self.model_, x), points=True)

    def __sklearn_tags__(self) -> Any:
        """What scikit-learn wants to know."""
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
