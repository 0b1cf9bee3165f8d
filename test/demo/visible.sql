-- visible.sql - latencies from a commit until its rows are visible, as status has them.
SELECT format('p50 %s ms, p99 %s ms',
	round(1000 * extract(epoch FROM latency_p50), 2), round(1000 * extract(epoch FROM latency_p99), 2))
FROM pipeline.status WHERE pipeline = 'fraud';
