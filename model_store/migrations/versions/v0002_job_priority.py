"""Jobs have a priority: lower numbers are claimed first."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("priority", sa.Integer(), nullable=False, server_default="5"))


def downgrade() -> None:
    op.drop_column("jobs", "priority")
