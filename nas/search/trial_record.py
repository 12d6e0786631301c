"""What a trial of the study says of itself, in its one user attribute."""

import json
from collections.abc import Mapping
from typing import Any

from nas.run_folder import TrialRecord

RECORD = "record"  # the attribute: a TrialRecord as JSON


def record_of(attributes: Mapping[str, Any]) -> TrialRecord | None:
    """From a trial's user attributes; None of a trial that was not priced yet."""
    text = attributes.get(RECORD)
    return None if text is None else TrialRecord.from_json(json.loads(text))
