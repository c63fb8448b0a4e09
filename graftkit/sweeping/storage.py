"""The storage that the workers of a sweep share: opened, joined, and what is asked of it, by Optuna."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from graftkit.core.errors import RunError, RuntimeMissingError

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

_BEAT, _DEAD = 15, 60  # seconds: how often a worker says that it lives, and when it is taken for dead
_ASKED = "asked"
_TRIES = 10  # two workers that begin at once may both want to make the tables


def opened(url: str, name: str, asked: Mapping[str, Any], seed: int) -> Study:
    """The study of this name, made if it is not there yet.

    Args:
        url: of a database, as SQLAlchemy takes it.
        asked: what the sweep is about; a study that is there has to be about the same.
        seed: of the sampler, which goes on from the trials that are there.

    Raises:
        RuntimeMissingError: Optuna or the database's driver is not installed.
        RunError: there is no such database, or the study is about something else.
    """
    optuna = _optuna()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with told(url):
        storage = _storage(optuna, url)
        study: Study = optuna.create_study(
            storage=storage,
            study_name=name,
            directions=["maximize", "minimize"],
            load_if_exists=True,
        )
        there = study.user_attrs.get(_ASKED)
        if there is None:
            study.set_user_attr(_ASKED, json.dumps(asked))
        elif differs := _differences(json.loads(there), asked):
            raise RunError(
                f"the sweep {name} in {shown_url(url)} was begun otherwise ({differs}); give the same, or another --out"
            )
        study.sampler = optuna.samplers.TPESampler(seed=seed + len(study.get_trials(deepcopy=False)))
    return study


@contextmanager
def told(url: str) -> Iterator[None]:
    """A context in which an error of the database is a RunError, and what Optuna calls experimental is not told."""
    import sqlalchemy.exc
    from optuna.exceptions import ExperimentalWarning, OptunaError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            yield
    except (sqlalchemy.exc.SQLAlchemyError, OptunaError) as error:
        cause = error.__cause__ or error
        why = str(getattr(cause, "orig", None) or cause).splitlines()[0]
        raise RunError(f"the storage {shown_url(url)} cannot be used: {why}") from error


def again(study: Study, trial: FrozenTrial) -> None:
    """Put a trial that was stopped back into the queue; whoever takes it goes on with it."""
    _optuna().storages.RetryHeartbeatStaleTrialCallback()(study, trial)


def first_number(trial: FrozenTrial) -> int:
    """The number of the trial that this one goes on with; its own where it is no such one."""
    number = _optuna().storages.RetryHeartbeatStaleTrialCallback.retried_trial_number(trial)
    return trial.number if number is None else int(number)


def shown_url(url: str) -> str:
    """The storage's address without its password."""
    import sqlalchemy.exc

    try:
        return sqlalchemy.engine.make_url(url).render_as_string(hide_password=True)
    except sqlalchemy.exc.ArgumentError:
        return "given with --storage"  # who knows what is in it


def _storage(optuna: Any, url: str) -> Any:
    import sqlalchemy.exc

    waits = {"connect_args": {"timeout": 60}} if url.startswith("sqlite") else {}
    for left in reversed(range(_TRIES)):
        try:
            return optuna.storages.RDBStorage(
                url,
                engine_kwargs=waits,
                heartbeat_interval=_BEAT,
                grace_period=_DEAD,
                heartbeat_stale_trial_callback=optuna.storages.RetryHeartbeatStaleTrialCallback(),
            )
        except ImportError as error:
            raise RuntimeMissingError(
                f"the driver of {shown_url(url)} is not installed: {error.__cause__ or error}"
            ) from error
        except sqlalchemy.exc.DatabaseError as error:
            if left == 0 or ("already exists" not in str(error) and "UNIQUE" not in str(error)):
                raise
            time.sleep(0.3)
    raise AssertionError("unreachable")


def _differences(there: Mapping[str, Any], here: Mapping[str, Any], most: int = 3) -> str:
    found = [
        f"{name} {there.get(name)!r} there, {here.get(name)!r} here"
        for name in sorted({*there, *here})
        if there.get(name) != here.get(name)
    ]
    return "; ".join(found[:most]) + "; ..." * (len(found) > most)


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise RuntimeMissingError("a sweep needs Optuna: pip install 'graftkit[sweep]'") from error
    return optuna
