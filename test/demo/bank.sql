-- bank.sql - what exists before the pipeline: pgbench's tables, with a number
-- for each transaction, and the tables that the pipeline will fill.

-- pgbench_history has no key.  With one, lineage can name each of its rows.
ALTER TABLE pgbench_history ADD COLUMN id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY;
CREATE INDEX ON pgbench_history (aid, id);

CREATE TABLE decisions (
	id bigint PRIMARY KEY,
	branch int NOT NULL,
	teller int NOT NULL,
	account int NOT NULL,
	amount int NOT NULL,
	balance bigint NOT NULL,
	rule text,
	decision text NOT NULL
);
CREATE TABLE alerts (
	id bigint PRIMARY KEY,
	account int NOT NULL,
	amount int NOT NULL,
	balance bigint NOT NULL,
	rule text NOT NULL
);
