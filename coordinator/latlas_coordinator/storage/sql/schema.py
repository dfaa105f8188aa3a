"""Tables of the SQL store. A change here raises `SCHEMA_VERSION` and brings a migration.

Raw samples are blobs: one row per visit with all its series, so that a profiled visit of three
hundred nodes is one row. Bytes of programs and models have tables of their own, so that listings
do not page through them.
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from latlas_coordinator.domain import LeaseState

SCHEMA_VERSION = 4
"""History: 2 compresses programs; 3 keeps what was found in the visits of a campaign."""

metadata = MetaData()

# SQLite numbers rows by itself only in a column whose type is exactly INTEGER.
_RowNumber = BigInteger().with_variant(Integer, "sqlite")

schema = Table(
    "latlas_schema",
    metadata,
    Column("version", Integer, primary_key=True, autoincrement=False),
)

agents = Table(
    "agents",
    metadata,
    Column("agent_id", String, primary_key=True),
    Column("epoch", BigInteger, nullable=False),
    Column("version", String, nullable=False),
    Column("last_sequence", BigInteger, nullable=False),
    Column("last_seen_ns", BigInteger, nullable=False),
)

devices = Table(
    "devices",
    metadata,
    Column("device_id", String, primary_key=True),
    Column("agent_id", ForeignKey("agents.agent_id"), nullable=False, index=True),
    Column("epoch", BigInteger, nullable=False),
    Column("connected", Boolean, nullable=False),
    Column("last_seen_ns", BigInteger, nullable=False),
    Column("record", JSON, nullable=False),
)

targets = Table(
    "targets",
    metadata,
    Column("name", String, primary_key=True),
    Column("record", JSON, nullable=False),
)

programs = Table(
    "programs",
    metadata,
    Column("sha256", String(64), primary_key=True),
    Column("format", String, nullable=False),
    Column("n_bytes", BigInteger, nullable=False),
    Column("origin", String, nullable=False),
    Column("network", Text),
    Column("tensor_positions", JSON, nullable=False),
)

program_data = Table(
    "program_data",
    metadata,
    Column("sha256", ForeignKey("programs.sha256"), primary_key=True),
    Column("data", LargeBinary, nullable=False),
)

campaigns = Table(
    "campaigns",
    metadata,
    Column("number", _RowNumber, primary_key=True),
    Column("name", String, nullable=False, unique=True),
    Column("target", ForeignKey("targets.name"), nullable=False),
    Column("state", String, nullable=False),
    Column("created_ns", BigInteger, nullable=False),
    Column("plan", JSON, nullable=False),
    Column("sampling", JSON, nullable=False),
    # Null until its rounds were done once.
    Column("findings", JSON(none_as_null=True)),
)

tasks = Table(
    "tasks",
    metadata,
    Column("number", _RowNumber, primary_key=True),
    Column("task_id", String, nullable=False, unique=True),
    Column("campaign", ForeignKey("campaigns.name"), nullable=False, index=True),
    Column("program", ForeignKey("programs.sha256"), nullable=False),
    Column("mode", String, nullable=False),
    Column("role", String, nullable=False),
    Column("label", String, nullable=False),
    Column("n_rounds", Integer, nullable=False),
    Column("arch", JSON(none_as_null=True)),
    # Both set where the task was given up.
    Column("error_code", String),
    Column("reason", Text),
)

leases = Table(
    "leases",
    metadata,
    Column("fencing_token", _RowNumber, primary_key=True),
    Column("lease_id", String, nullable=False, unique=True),
    Column("agent_id", ForeignKey("agents.agent_id"), nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("device_id", ForeignKey("devices.device_id"), nullable=False),
    Column("campaign", ForeignKey("campaigns.name"), nullable=False, index=True),
    Column("items", JSON, nullable=False),
    Column("created_ns", BigInteger, nullable=False),
    Column("deadline_ns", BigInteger, nullable=False),
    Column("state", String, nullable=False, index=True),
    # Tokens are never given twice, even where rows are removed by hand.
    sqlite_autoincrement=True,
)

_ACTIVE = text(f"state = '{LeaseState.ACTIVE.value}'")
Index(
    "one_active_lease_per_device",
    leases.c.device_id,
    unique=True,
    sqlite_where=_ACTIVE,
    postgresql_where=_ACTIVE,
)

visits = Table(
    "visits",
    metadata,
    Column("number", _RowNumber, primary_key=True),
    Column("task_id", ForeignKey("tasks.task_id"), nullable=False),
    Column("round", Integer, nullable=False),
    Column("device_id", ForeignKey("devices.device_id"), nullable=False),
    Column("fencing_token", ForeignKey("leases.fencing_token"), nullable=False),
    Column("agent_id", ForeignKey("agents.agent_id"), nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("started_ns", BigInteger, nullable=False),
    Column("duration_ns", BigInteger, nullable=False),
    Column("warmup_runs", Integer, nullable=False),
    Column("conditions", JSON, nullable=False),
    # Layouts of both: latlas_coordinator.storage.packing.
    Column("network_samples", LargeBinary, nullable=False),
    Column("node_samples", LargeBinary),
    # Null where the session of its program was open already.
    Column("opening", JSON(none_as_null=True)),
    UniqueConstraint("task_id", "round", name="one_visit_per_round"),
    UniqueConstraint("agent_id", "epoch", "sequence", name="one_visit_per_report"),
)

failures = Table(
    "failures",
    metadata,
    Column("number", _RowNumber, primary_key=True),
    Column("task_id", ForeignKey("tasks.task_id"), nullable=False, index=True),
    Column("fencing_token", ForeignKey("leases.fencing_token"), nullable=False, index=True),
    Column("agent_id", ForeignKey("agents.agent_id"), nullable=False),
    Column("epoch", BigInteger, nullable=False),
    # Null where the coordinator itself found the failure.
    Column("sequence", BigInteger),
    Column("error_code", String, nullable=False),
    Column("reason", Text, nullable=False),
    UniqueConstraint("agent_id", "epoch", "sequence", name="one_failure_per_report"),
)

latency_models = Table(
    "latency_models",
    metadata,
    Column("name", String, primary_key=True),
    Column("kind", String, nullable=False),
    Column("space", String, nullable=False),
    Column("target", JSON, nullable=False),
    Column("campaign", String, nullable=False),
    Column("created_ns", BigInteger, nullable=False),
    Column("n_entries", Integer, nullable=False),
    Column("calibrated", Boolean, nullable=False),
    Column("validation", JSON(none_as_null=True)),
)

latency_model_data = Table(
    "latency_model_data",
    metadata,
    Column("name", ForeignKey("latency_models.name"), primary_key=True),
    Column("data", LargeBinary, nullable=False),
)
