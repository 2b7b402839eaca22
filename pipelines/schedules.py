"""Schedules: a file each, of what recurs when and where. The file's name is the schedule's."""

from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from pipelines.cron import check_cron
from rlpretrain.settings import Settings, load_settings


class Schedule(Settings):
    """A recurring run."""

    profile: str
    arms: str | None = Field(None, description="as --arms takes them; none: base,cpt,rlp")
    cron: str = Field(description="minute hour day month weekday, in the server's time zone, which is UTC as a rule")
    cluster: str = Field(description="path of the cluster's file, from this file's folder")
    set: dict[str, Any] = Field({}, description="over the profile, as --set takes it")
    mirror: str | None = Field(None, description="as --mirror takes it; read by the tasks and where `schedule` runs")
    parameters: dict[str, Any] = Field({}, description="parameters of the runs, for example seed")
    enabled: bool = True
    cache: bool = Field(True, description="tasks whose inputs and code are unchanged are not run again")

    @field_validator("cron")
    @classmethod
    def _fields(cls, cron: str) -> str:
        return check_cron(cron)

    @property
    def kubeflow_cron(self) -> str:
        """Kubeflow counts seconds first, and would read five fields as something else."""
        return f"0 {self.cron}"


def load_schedule(path: Path) -> tuple[Schedule, Path]:
    """A schedule and the path of its cluster's file."""
    schedule = load_settings(Schedule, path)
    return schedule, path.parent / schedule.cluster


def schedule_files() -> list[Path]:
    """The schedules that are checked in."""
    return sorted(Path(str(files("pipelines").joinpath("schedules"))).glob("*.yaml"))
