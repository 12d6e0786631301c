"""A training that has ended, whole, as its trial on a server is told of it.

It lies in a file beside the model until the server knows: who was killed before, or has waited too
long for a server that was away, tells it on resuming, where the trial has not been ended meanwhile.
"""

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.errors import RunError
from nas.run_folder import read_json, write_json

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial, Trial

ARTIFACT = "model"  # trial attribute: the trained model's name in the artifact store
SUFFIX = ".untold"


@dataclass(frozen=True)
class Delivery:
    """See the module.

    Attributes:
        model: the trained model's file.
        study: name of the trial's study.
        trial: number of the trial,
        begun: and when it began, so that it is no other one of a database that was made anew.
        attributes: what the trial is given beside the model's name in the artifact store.
        values: of the study's objectives.
        constraints: name -> value, feasible at 0 or less.
    """

    model: Path
    study: str
    trial: int
    begun: str
    attributes: Mapping[str, Any]
    values: list[float]
    constraints: Mapping[str, float]

    @property
    def file(self) -> Path:
        """Where it lies."""
        return self.model.with_suffix(SUFFIX)

    def keep(self) -> None:
        """Writes the file; RunError when the disk refuses."""
        held = {key: value for key, value in vars(self).items() if key != "model"}
        write_json(self.file, held)

    def forget(self) -> None:
        """Removes the file."""
        self.file.unlink(missing_ok=True)


def kept_deliveries(folder: Path, study: str) -> list[Delivery]:
    """What earlier sessions have left for a study in the folder of their models.

    Raises:
        RunError: a file cannot be read.
    """
    found = []
    for file in sorted(folder.glob("*" + SUFFIX)):
        try:
            given = Delivery(file.with_suffix(".npz"), **read_json(file))
        except TypeError:
            raise RunError(f"{file}: holds no ended training; remove it and try again") from None
        if not given.model.exists():
            given.forget()
        elif given.study == study:
            found.append(given)
    return found


def begun(trial: "Trial | FrozenTrial") -> str:
    """When a trial began, in any time zone the same; empty of one that has not."""
    began = trial.datetime_start
    return "" if began is None else began.astimezone(datetime.UTC).isoformat()
