-- A row with its look-ups, and a row with the decision.
CREATE TYPE payment AS (id bigint, branch int, teller int, home_branch int,
	account int, amount int, balance bigint);
CREATE TYPE judged AS (id bigint, branch int, teller int,
	account int, amount int, balance bigint, rule text, decision text);

-- validate: null is valid, a text is the reason why not.
CREATE FUNCTION check_amount(h pgbench_history) RETURNS text
LANGUAGE sql STABLE RETURN
	CASE WHEN abs(h.delta) < 10 THEN 'amount is below 10' END;

-- enrich: branch and teller, and the balance right after this transaction.
CREATE FUNCTION look_up(h pgbench_history) RETURNS SETOF payment
LANGUAGE sql STABLE AS $$
	SELECT h.id, h.bid, h.tid, a.bid, h.aid, h.delta,
		(SELECT sum(p.delta) FROM pgbench_history p
		 WHERE p.aid = h.aid AND p.id <= h.id)
	FROM pgbench_accounts a
		JOIN pgbench_tellers t ON t.tid = h.tid
		JOIN pgbench_branches b ON b.bid = h.bid
	WHERE a.aid = h.aid
$$;

-- decide: rules on the amount and the balance.
CREATE FUNCTION decide(p payment) RETURNS SETOF judged
LANGUAGE sql STABLE AS $$
	SELECT p.id, p.branch, p.teller, p.account, p.amount, p.balance, r.rule,
		CASE WHEN r.rule IS NULL THEN 'accept'
			WHEN r.rule = 'overdrawn' THEN 'block' ELSE 'review' END
	FROM (SELECT CASE
		WHEN p.balance < -4950 THEN 'overdrawn'
		WHEN p.amount > 4950 THEN 'large amount'
		WHEN p.amount < -4500 AND p.branch <> p.home_branch THEN 'cash elsewhere'
		END) r(rule)
$$;

-- for the output that takes only what is suspicious; the other takes all.
CREATE FUNCTION suspicious(j judged) RETURNS SETOF alerts
LANGUAGE sql STABLE AS $$
	SELECT j.id, j.account, j.amount, j.balance, j.rule WHERE j.rule IS NOT NULL
$$;

SELECT pipeline.create_pipeline('fraud', source => 'pgbench_history');
SELECT pipeline.add_stage('fraud', 'check',   'validate',  'check_amount(pgbench_history)');
SELECT pipeline.add_stage('fraud', 'look up', 'enrich',    'look_up(pgbench_history)');
SELECT pipeline.add_stage('fraud', 'decide',  'transform', 'decide(payment)');
SELECT pipeline.add_output('fraud', 'decisions');
SELECT pipeline.add_output('fraud', 'alerts', transform => 'suspicious(judged)');
SELECT pipeline.start('fraud');
