"""What stands in the JSON files of a run folder, and whether what is read is such a thing."""

from typing import Any

from jaxdna.data.dataset import Dataset
from jaxdna.storage.places import input_place
from jaxdna.tasks.kinds import task_of


def is_summary(value: Any) -> bool:
    """Whether `value` has what is shown of the summary of a finished run."""
    if not isinstance(value, dict):
        return False
    kinds = {
        "params_sha256": str,
        "best_epoch": int,
        "epochs": int,
        "stopped_early": bool,
        "left_plateau": bool,
        "test": dict,
        "ceiling": dict | None,
        "samples_per_second": int | None,
        "seconds": dict,
    }
    seconds = ("total", "compile", "train", "eval", "checkpoint")
    number = float | int | None
    return (
        all(isinstance(value.get(key, ...), kind) for key, kind in kinds.items())
        and "loss" in value["test"]
        and all(isinstance(score, number) for score in value["test"].values())
        and all(isinstance(value["seconds"].get(name, ...), number) for name in seconds)
    )


def is_data(value: Any) -> bool:
    """Whether `value` has what is read of data.json."""
    if not isinstance(value, dict) or not isinstance(value.get("inputs"), list):
        return False
    shape = value.get("example_shape")
    return (
        _tells_a_task(value)
        and isinstance(shape, list)
        and shape != []
        and all(type(size) is int and 0 < size < 2**31 for size in shape)
        and all(
            isinstance(source, dict)
            and isinstance(source.get("path"), str)
            and isinstance(source.get("sha256"), str)
            and isinstance(source.get("absolute", ""), str)
            for source in value["inputs"]
        )
    )


def _tells_a_task(value: dict[str, Any]) -> bool:
    if "task" not in value:  # of an earlier version
        return type(value.get("classes")) is int and 2 <= value["classes"] < 2**20
    try:
        task_of(value)
    except ValueError:
        return False
    return True


def data_record(dataset: Dataset) -> dict[str, Any]:
    """Returns what data.json holds: what the data are, their files' digests among it."""
    return {
        "describe": dataset.describe,
        "example_shape": list(dataset.example_shape),
        "task": dataset.task.record(),
        "splits": {name: dataset.most(name) for name in dataset.splits},
        "inputs": [
            source._asdict() | {"absolute": str(input_place(source.path).absolute())}
            for source in dataset.inputs
        ],
        "notes": list(dataset.notes),
    }
