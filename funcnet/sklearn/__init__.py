"""Estimators for scikit-learn: funcnet behind the interface of its MLPClassifier and MLPRegressor.

    from funcnet.sklearn import FuncNetClassifier

    FuncNetClassifier(random_state=0).fit(X_train, y_train).score(X_test, y_test)

It is the only part of funcnet that imports scikit-learn, the extra `sklearn`.
"""

from funcnet import checks

checks.installed("sklearn", "for the estimators (scikit-learn)", extra="sklearn")

from funcnet.sklearn.estimators import FuncNetClassifier, FuncNetRegressor  # noqa: E402

__all__ = ["FuncNetClassifier", "FuncNetRegressor"]
