"""The writers of several projects, and the thread that keeps their storage up with git."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from datom_flight_server.model import DataLocation, Project, RepositoryAccess
from datom_flight_server.repositories import Repositories
from datom_flight_server.storage.base import WritableStore
from datom_flight_server.storage.local import LocalStore
from datom_flight_server.versions.writers import Writers
from support.server import await_condition
from support.writable import Place, empty_place


def project_of(place: Place) -> Project:
    root = place.settings["data"].removeprefix("file://")
    return Project(
        place.project, DataLocation("local", root), repository=RepositoryAccess(str(place.remote), "main", None)
    )


def store_of(project: Project) -> WritableStore:
    if project.name == "FAULTY":
        raise RuntimeError("a fault")
    return LocalStore(project.location.root)


@contextmanager
def reconciling(folder: Path, *places: Place) -> Iterator[Writers]:
    repositories = Repositories(folder / "clones")
    projects = [project_of(place) for place in places]
    writers = Writers(lambda: projects, repositories.open, store_of, reconcile_seconds=0.05)
    writers.start()
    try:
        yield writers
    finally:
        writers.close()


def test_a_fault_in_one_project_keeps_no_other_from_being_reconciled(tmp_path: Path) -> None:
    faulty, whole = empty_place(tmp_path / "a", "FAULTY"), empty_place(tmp_path / "b", "WHOLE")
    manifest = whole.objects / ".metadata" / "manifest.json"
    manifest.unlink()
    with reconciling(tmp_path, faulty, whole) as writers:
        await_condition(manifest.exists, 10, "the manifest is back")
        manifest.unlink()
        await_condition(manifest.exists, 10, "the manifest is back once more")
        assert writers.problems() == ["project FAULTY: storage may lag behind git: internal: the log has more"]


def test_a_remote_that_is_away_is_a_problem_until_it_is_back(tmp_path: Path) -> None:
    place = empty_place(tmp_path / "a", "WHOLE")
    with reconciling(tmp_path, place) as writers:
        shutil.move(place.remote, tmp_path / "elsewhere.git")
        await_condition(lambda: any("store_unreachable" in problem for problem in writers.problems()), 10, "a problem")
        lag = writers.lags()["WHOLE"]
        await_condition(lambda: writers.lags()["WHOLE"] > lag + 0.2, 10, "the lag grows")
        shutil.move(tmp_path / "elsewhere.git", place.remote)
        await_condition(lambda: not writers.problems(), 10, "no problem any more")
        await_condition(lambda: writers.lags()["WHOLE"] < 0.2, 10, "the lag is gone")


def test_a_project_that_is_gone_lags_no_more(tmp_path: Path) -> None:
    place = empty_place(tmp_path / "a", "WHOLE")
    projects = [project_of(place)]
    writers = Writers(lambda: projects, Repositories(tmp_path / "clones").open, store_of, reconcile_seconds=0.05)
    writers.start()
    try:
        await_condition(lambda: "WHOLE" in writers.lags(), 10, "it is reconciled")
        projects.clear()
        assert writers.lags() == {}
    finally:
        writers.close()


def test_a_project_has_one_writer_until_its_settings_change(tmp_path: Path) -> None:
    place = empty_place(tmp_path / "a", "WHOLE")
    project = project_of(place)
    writers = Writers(lambda: [project], Repositories(tmp_path / "clones").open, store_of)
    assert writers.writer(project) is writers.writer(project_of(place))
    moved = Project(project.name, DataLocation("local", str(tmp_path)), repository=project.repository)
    assert writers.writer(moved) is not writers.writer(project)
