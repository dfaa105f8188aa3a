"""How a store is opened: by file, in memory, by URL; and what it refuses."""

import hashlib
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from latlas_coordinator.domain import (
    Campaign,
    Findings,
    Looked,
    MeasuredProgram,
    MeasurePlan,
    ProgramOrigin,
    ProgramRecord,
    Sampling,
    Suspicion,
    SuspicionKind,
)
from latlas_coordinator.storage import open_store
from latlas_ops.errors import InvalidInputError, MissingDependencyError, StorageError


def execute(path: Path, statement: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as connection, connection:
        return connection.execute(statement).fetchall()


def test_a_new_file_gets_the_schema_and_its_version(tmp_path):
    open_store(tmp_path / "latlas.db").close()
    assert execute(tmp_path / "latlas.db", "SELECT version FROM latlas_schema") == [(4,)]
    assert execute(tmp_path / "latlas.db", "PRAGMA journal_mode") == [("wal",)]


def test_a_url_names_the_same_file(tmp_path, fleet):
    path = tmp_path / "by-url.db"
    by_url = open_store(f"sqlite:///{path}")
    by_url.add_target(fleet.target)
    by_url.close()
    by_path = open_store(path)
    assert by_path.list_targets() == [fleet.target]
    by_path.close()


def test_a_database_of_a_newer_version_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "latlas.db"
    open_store(path).close()
    execute(path, "UPDATE latlas_schema SET version = 99")
    with pytest.raises(StorageError, match=r"latlas.db has schema 99 of a newer Latlas.*upgrade"):
        open_store(path)
    assert execute(path, "SELECT version FROM latlas_schema") == [(99,)]


def test_a_database_of_the_first_version_is_brought_up_to_date(tmp_path):
    path = tmp_path / "latlas.db"
    store = open_store(path)
    data = b"a program"
    sha256 = hashlib.sha256(data).hexdigest()
    store.put_program(ProgramRecord(sha256, "onnx", len(data), ProgramOrigin.UPLOADED), data)
    store.close()
    execute(path, f"UPDATE program_data SET data = X'{data.hex()}'")
    execute(path, "UPDATE latlas_schema SET version = 1")
    store = open_store(path)
    assert store.read_program(sha256) == data
    store.close()
    assert execute(path, "SELECT version FROM latlas_schema") == [(4,)]


def test_campaigns_of_the_second_version_read_on(tmp_path, fleet):
    path = tmp_path / "old.db"
    store = open_store(path)
    store.add_target(fleet.target)
    plan = MeasurePlan((MeasuredProgram(fleet.sha256, "mine"),))
    store.create_campaign(Campaign("old", fleet.target.name, plan, Sampling(n_rounds=2), 5), [])
    store.close()
    execute(path, "ALTER TABLE campaigns DROP COLUMN findings")
    execute(path, "UPDATE campaigns SET sampling = json_remove(sampling, '$.target_error')")
    execute(path, "UPDATE latlas_schema SET version = 2")
    store = open_store(path)
    status = store.get_campaign("old")
    assert status.findings is None, "nobody has looked at it"
    assert status.campaign.sampling == Sampling(n_rounds=2)
    found = Findings((Suspicion(SuspicionKind.BREAK, "a b", "a is slower"),), 0.004)
    assert store.settle_campaign("old", found, {}, Looked(0, 0))
    assert store.get_campaign("old").findings == found
    store.close()


def test_visits_of_the_third_version_read_on(tmp_path, fleet):
    path = tmp_path / "old.db"
    there = type(fleet)(open_store(path))
    (task,) = there.campaign(n_tasks=1)
    lease = there.lease([task])
    reports = [there.report(1, lease, there.visit(task, 1))]
    there.store.record_reports([there.batch(*reports)], now_ns=3)
    there.store.close()
    execute(path, "ALTER TABLE visits DROP COLUMN opening")
    execute(path, "UPDATE latlas_schema SET version = 3")
    there.store = open_store(path)
    later = there.report(2, lease, there.visit(task, 0))
    there.store.record_reports([there.batch(later)], now_ns=4)
    ((opened, old),) = there.store.read_visits("first").values()
    assert old.opening is None
    assert opened.opening is not None
    there.store.close()


def test_a_database_of_another_program_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "theirs.db"
    execute(path, "CREATE TABLE music (title TEXT)")
    with pytest.raises(StorageError, match=r"theirs.db is not one of Latlas"):
        open_store(path)
    assert execute(path, "SELECT name FROM sqlite_master") == [("music",)]


def test_a_file_that_is_no_database_is_refused_in_one_line(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("shopping list " * 100)
    with pytest.raises(StorageError, match=r"notes.txt: file is not a database") as caught:
        open_store(path)
    assert "\n" not in str(caught.value)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(StorageError, match=r"nowhere: no such folder; create it"):
        open_store(tmp_path / "nowhere" / "latlas.db")


def test_a_broken_url_is_refused():
    with pytest.raises(InvalidInputError, match="not a database"):
        open_store("sqlite://::/a:b:c")


def test_a_url_of_an_unknown_kind_of_database_is_refused():
    with pytest.raises(InvalidInputError, match="not a database"):
        open_store("clay-tablet://library")


def test_a_database_whose_driver_is_not_installed_names_the_package():
    with pytest.raises(MissingDependencyError, match="needs the package psycopg"):
        open_store("postgresql+psycopg://lab/latlas")
