"""Which variant answers: the table, the ranking by evidence, live figures, and what follows the catalog."""
