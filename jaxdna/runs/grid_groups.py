"""A grid over the network itself: one run for each network, and the best setting of all."""

from typing import Any

from ml_collections import ConfigDict

from jaxdna.config import flat, start_seed, validate
from jaxdna.errors import NotFiniteError
from jaxdna.member_settings import PER_MEMBER, combinations, grid_axes
from jaxdna.runs.cross_validation import TrainOne
from jaxdna.runs.run_folder import RunFolder
from jaxdna.storage.places import Place
from jaxdna.training.member_progress import setting_rank, setting_row

Groups = list[tuple[dict[str, Any], ConfigDict]]


def grid_groups(config: ConfigDict) -> Groups:
    """Returns what the members of each group have in common, with the group's configuration.

    A group can be one program: its members differ in numbers of the update, seeds and folds alone.
    Without a grid, or where one group holds all of it, there are none.

    Raises:
      UserError: a group has one network, and the configuration is for several.
    """
    axes = grid_axes(config.members.grid, config.data.name, config.model.name)
    own = {key: values for key, values in axes.items() if key in PER_MEMBER and len(values) > 1}
    if len(own) == len(axes):
        return []
    shaping = {key: values for key, values in axes.items() if key not in own}
    rest = ";".join(f"{key}={','.join(map(repr, values))}" for key, values in own.items())
    leaves = flat(config) | {"members.grid": rest}
    return [(one, validate(leaves | one)) for one in combinations(shaping)]


def group_folder(workdir: Place, group: int) -> RunFolder:
    """Returns the run folder of one group, from 0."""
    return RunFolder(workdir / f"group{group}", workdir)


def train_groups(
    groups: Groups, config: ConfigDict, whole: RunFolder, train_one: TrainOne
) -> dict[str, Any]:
    """Trains the groups one after the other.

    Args:
      groups: as `grid_groups` returns them.
      config: of the whole grid.
      whole: gets config.json, a folder for each group, and summary.json.
      train_one: trains one configuration in one run folder, or finds it finished there.

    Returns:
      The summary of the group with the best setting, whose `folder` it names; `members` and `grid`
      are those of all groups, `members` beginning with that group.

    Raises:
      NotFiniteError: no group has a network whose loss is finite.
    """
    whole.open(config)
    whole.drop_summary()
    found: list[tuple[RunFolder, dict[str, Any]]] = []
    broken: list[NotFiniteError] = []
    for number, (settings, own) in enumerate(groups):
        folder = group_folder(whole.path, number)
        try:
            summary = _of_several(train_one(own, folder), folder, own)
        except NotFiniteError as error:  # the other groups go on
            broken.append(error)
            continue
        for row in (*summary["members"], *summary["grid"]):
            row["settings"] = settings | row["settings"]
        found.append((folder, summary))
    if not found:
        raise broken[0]
    metric = config.train.early_stopping.metric

    def rank(group: tuple[RunFolder, dict[str, Any]]) -> tuple[bool, float]:
        return setting_rank(group[1]["grid"][0], metric)

    found.sort(key=rank, reverse=True)
    folder, best = found[0]
    members: list[dict[str, Any]] = []
    grid: list[dict[str, Any]] = []
    for _, summary in found:
        first = len(members)
        members += summary["members"]
        grid += [row | {"members": [first + i for i in row["members"]]} for row in summary["grid"]]
    grid.sort(key=lambda row: setting_rank(row, metric), reverse=True)
    result = best | {"members": members, "grid": grid, "folder": folder.path.name}
    whole.write_summary(result)
    return result


def _of_several(summary: dict[str, Any], folder: RunFolder, config: ConfigDict) -> dict[str, Any]:
    """The summary of a group, with `members` and `grid` where it has one network or one setting."""
    if "members" not in summary:
        row = folder.read_metrics()[summary["best_epoch"] - 1] if summary["best_epoch"] else {}
        own: dict[str, Any] = {
            "seed": start_seed(config),
            "fold": None,
            "settings": {},
            **{key: summary[key] for key in ("best_epoch", "epochs", "stopped_early")},
            "broken": None,
            "validation": {k.removeprefix("val_"): v for k, v in row.items() if "val_" in k},
            "test": summary["test"],
            "calibration": None,
        }
        alone = {"members": [0], "test": summary["test"], "calibration": None}
        summary = summary | {"members": [own], "ensemble": alone}
    return {"grid": [setting_row({}, dict(enumerate(summary["members"])))]} | summary
