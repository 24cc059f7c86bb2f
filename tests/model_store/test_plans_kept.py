"""Plans as the catalog keeps them: whole, and readable when they were written before a field existed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from sqlalchemy import text

from model_store.catalog import Catalog
from model_store.entities import REFERENCE, JobKind, Plan, PlanPoint
from tests.rows import register, variant

MEASURED = Plan(
    threads=1,
    max_rows=64,
    instances=2,
    buckets=(1, 8, 32),
    padded=(8,),
    objective="throughput",
    reason="2 instances of 1 thread give 1.3x the rows/s at 8",
    curve=(PlanPoint(2, 1, 1, 0.005, 200.0), PlanPoint(1, 2, 8, 0.03, 533.0)),
)


def published(catalog: Catalog, plan: Plan) -> None:
    version, _ = register(catalog)
    job = catalog.claim("w", (JobKind.REFERENCE,), 60.0)
    assert job is not None
    catalog.publish(job, replace(variant(version, REFERENCE), plan=plan))


def test_a_plan_reads_back_as_it_was_measured(tmp_path: Path) -> None:
    catalog = Catalog.connect(f"sqlite:///{tmp_path / 'catalog.db'}")
    published(catalog, MEASURED)
    assert catalog.variants("digits", "1")[0].plan == MEASURED
    catalog.close()


def test_a_plan_from_before_there_were_instances_reads_as_one_instance_without_figures(tmp_path: Path) -> None:
    catalog = Catalog.connect(f"sqlite:///{tmp_path / 'catalog.db'}")
    published(catalog, MEASURED)
    with catalog._database.write() as connection:
        connection.execute(text("UPDATE variants SET plan = :plan"), {"plan": '{"threads":2,"max_rows":64}'})
    plan = catalog.variants("digits", "1")[0].plan
    assert plan == Plan(threads=2, max_rows=64)
    assert plan.instances == 1 and plan.buckets == () and plan.curve == ()
    catalog.close()
