"""The storage that the workers of a sweep share: opened, joined, and what is asked of it, by Optuna."""

from __future__ import annotations

import json
import re
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftkit.core.errors import RunError, RuntimeMissingError

if TYPE_CHECKING:
    from optuna import Study
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial

BEAT, DEAD = 15, 60  # seconds: how often a worker says that it lives, and when it is taken for dead
_ASKED = "asked"
SETTINGS, TROUBLE = "settings", "trouble"  # what a trial is tried with, and why it failed
_BEFORE = "before"  # the numbers under which a trial was stopped, the first one first
_STOPS = 5  # so often a trial may be stopped
_TRIES = 10  # two workers that begin at once may both want to make the tables


def opened(url: str, name: str, asked: Mapping[str, Any]) -> Study:
    """The study of this name, made if it is not there yet.

    Args:
        url: of a database, as SQLAlchemy takes it.
        asked: what the sweep is about; a study that is there has to be about the same.

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
    return study


def sqlite(path: Path) -> str:
    """The URL of a database in a file."""
    _optuna()
    from sqlalchemy import URL

    return URL.create("sqlite", database=str(path)).render_as_string()


def sampler(seed: int) -> BaseSampler:
    """What says which settings to try."""
    found: BaseSampler = _optuna().samplers.TPESampler(seed=seed, multivariate=False)
    return found


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
    """Put a trial that was stopped back into the queue, unless that was done; whoever takes it goes on with it.

    One that was stopped too often is dropped: it may be what kills its workers.
    """
    optuna = _optuna()
    before = [*earlier_numbers(trial), trial.number]
    taken = any(trial.number in earlier_numbers(other) for other in study.get_trials(deepcopy=False))
    if taken or len(before) > _STOPS or TROUBLE in trial.user_attrs:
        return
    study.add_trial(
        optuna.create_trial(
            state=optuna.trial.TrialState.WAITING,
            params=trial.params,
            distributions=trial.distributions,
            system_attrs={_BEFORE: before},
        )
    )


def earlier_numbers(trial: FrozenTrial) -> list[int]:
    """The numbers under which it was begun and stopped before, the first one first."""
    return list(trial.system_attrs.get(_BEFORE, ()))


def first_number(trial: FrozenTrial) -> int:
    """The number of the trial that this one goes on with; its own where it is no such one."""
    return [*earlier_numbers(trial), trial.number][0]


def take_from_the_dead(study: Study) -> None:
    """Put what workers that died were at back into the queue."""
    optuna = _optuna()
    optuna.storages.fail_stale_trials(study)
    for trial in study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
        begun = trial.datetime_start
        never = SETTINGS not in trial.user_attrs  # it died before it could say that it lives
        if never and begun is not None and (datetime.now() - begun).total_seconds() > 2 * DEAD:
            with suppress(ValueError, optuna.exceptions.UpdateFinishedTrialError):
                again(study, study.tell(trial.number, state=optuna.trial.TrialState.FAIL))


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
                heartbeat_interval=BEAT,
                grace_period=DEAD,
                heartbeat_stale_trial_callback=again,
            )
        except ImportError as error:
            raise RuntimeMissingError(
                f"the driver of {shown_url(url)} is not installed: {error.__cause__ or error}"
            ) from error
        except sqlalchemy.exc.DatabaseError as error:
            if left == 0 or not re.search("already exists|unique", str(error), re.IGNORECASE):
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
