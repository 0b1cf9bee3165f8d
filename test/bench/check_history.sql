-- check_history.sql - an error unless each valid row of the history was moved.
CREATE TEMP TABLE expected AS
SELECT h.aid, a.bid AS home, h.bid, h.delta, h.mtime AS at
FROM pgbench_history h JOIN pgbench_accounts a ON a.aid = h.aid WHERE abs(h.delta) >= 50;
CREATE TEMP TABLE found AS SELECT aid, home, bid, delta, at FROM movements;
SELECT 1 / (differences('expected', 'found') = 0)::int AS "0 if history is wrong" \g /dev/null
