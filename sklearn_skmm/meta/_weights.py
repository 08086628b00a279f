"""How sample weights get into an estimator: its own parameter, that of a step, or by routing."""

from inspect import Parameter, signature
from typing import Any

from sklearn.pipeline import Pipeline
from sklearn.utils.metadata_routing import MetadataRouter, get_routing_for_object
from sklearn.utils.validation import has_fit_parameter

from sklearn_skmm.utils._sklearn import _routing_enabled


def weight_parameter(estimator: Any) -> str:
    """Return the name under which `fit` of the estimator takes sample weights.

    Without metadata routing, the weights of a Pipeline are those of its last step. With routing,
    they reach all steps that request them.

    Parameters
    ----------
    estimator : estimator
        An estimator, Pipeline or search, nested in each other in any way.

    Returns
    -------
    name : str
        Such as ``"sample_weight"`` or ``"logisticregression__sample_weight"``.

    Raises
    ------
    TypeError
        If nothing takes weights.

    Examples
    --------
    >>> from sklearn.linear_model import Ridge
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> weight_parameter(make_pipeline(StandardScaler(), Ridge()))
    'ridge__sample_weight'
    """
    if has_fit_parameter(estimator, "sample_weight"):
        return "sample_weight"
    if _routing_enabled():
        routing = get_routing_for_object(estimator)
        if isinstance(routing, MetadataRouter):
            if routing.consumes("fit", ["sample_weight"]):
                return "sample_weight"
            _refuse(
                f"no part of {type(estimator).__name__} requests it. Call "
                "set_fit_request(sample_weight=True) on those that should get it"
            )
    *prefix, last = _path(estimator)
    # Ensembles of several estimators ask each of them themselves.
    asks = isinstance(getattr(last, "estimators", None), list) and _takes_any(last)
    if not has_fit_parameter(last, "sample_weight") and not asks:
        within = f", the last step of {type(estimator).__name__}," if prefix else ""
        _refuse(f"{type(last).__name__}{within} does not")
    return "".join(f"{name}__" for name in prefix) + "sample_weight"


def _path(estimator: Any) -> list:
    """Return the names of the last steps, and the estimator that is in the innermost."""
    if isinstance(estimator, Pipeline):
        name, last = estimator.steps[-1]
        return [name, *_path(last)]
    if not has_fit_parameter(estimator, "sample_weight") and _takes_any(estimator):
        # A search, for instance, passes what it is given to the estimator that it searches over.
        inner = getattr(estimator, "estimator", getattr(estimator, "regressor", None))
        if hasattr(inner, "fit"):
            return _path(inner)
    return [estimator]


def _takes_any(estimator: Any) -> bool:
    """Whether `fit` takes parameters of any name."""
    fit = getattr(estimator, "fit", None)  # "passthrough" has none
    parameters = signature(fit).parameters.values() if fit else ()
    return any(parameter.kind is Parameter.VAR_KEYWORD for parameter in parameters)


def _refuse(reason: str) -> None:
    raise TypeError(
        "CoresetEstimator with use_sample_weight=True needs an estimator whose fit accepts "
        f"sample_weight, but {reason}. Use another estimator or use_sample_weight=False."
    )
