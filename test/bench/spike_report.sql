-- spike_report.sql - the figures of a spike of traffic.
\qecho '### A spike: ten times the traffic for' :seconds 's'
\qecho
SELECT format('The pipeline can do %s rows a second of this work alone; written are %s, and %s in the spike. Nothing was lost. It was %s rows behind at most, and its lag %s s. The lag was under a second again %s s after the end of the spike; as fast as alone it would have taken %s s (ratio %s).',
	round(median('spike_capacity')), round(median('spike_calm')), round(10 * median('spike_calm')),
	round(median('spike_behind')), round(median('spike_lag'), 1), round(median('spike_after'), 1),
	round(x.least, 1), coalesce(round(median('spike_after') / nullif(x.least, 0), 2)::text, '-'))
FROM (SELECT (10 * median('spike_calm') - median('spike_capacity')) * (median('spike_to') - median('spike_from'))
		/ (median('spike_capacity') - median('spike_calm')) AS least) x;
\qecho
\qecho '![lag and traffic over time](spike.svg)'
\qecho
