# spike_svg.awk - a picture of a spike: lag and traffic over time.
#
# Input: lines "seconds lag written done"; variables from and to: when the spike was.

function x(t) { return left + t / longest * width }
function y(value, most) { return top + height - value / most * height }
function text(px, py, anchor, colour, words)
{
	printf "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\" fill=\"%s\">%s</text>\n", px, py, anchor, colour, words
}

# A round number that is not smaller.
function round_up(value,    unit)
{
	unit = 1
	while (unit * 10 < value) unit *= 10
	while (unit > value && unit > 0.1) unit /= 10
	return value <= unit ? unit : value <= 2 * unit ? 2 * unit : value <= 5 * unit ? 5 * unit : 10 * unit
}

{
	time[NR] = $1; lag[NR] = $2; written[NR] = $3; done[NR] = $4
	if ($2 > most_lag) most_lag = $2
}

END {
	left = 70; top = 40; width = 620; height = 240
	longest = time[NR]
	# rows a second, over a second each
	n = 0
	for (i = 1; i <= NR; i = j) {
		for (j = i + 1; j <= NR && time[j] - time[i] < 1; j++) ;
		if (j > NR) break
		n++
		middle[n] = (time[i] + time[j]) / 2
		wrote[n] = (written[j] - written[i]) / (time[j] - time[i])
		did[n] = (done[j] - done[i]) / (time[j] - time[i])
		if (wrote[n] > most_rate) most_rate = wrote[n]
		if (did[n] > most_rate) most_rate = did[n]
	}
	most_lag = round_up(most_lag < 1 ? 1 : most_lag)
	most_rate = round_up(most_rate)

	print "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 780 340\" font-family=\"sans-serif\" font-size=\"12\">"
	print "<rect width=\"780\" height=\"340\" fill=\"white\"/>"
	printf "<rect x=\"%.1f\" y=\"%d\" width=\"%.1f\" height=\"%d\" fill=\"#f2f2f2\"/>\n", x(from), top, x(to) - x(from), height
	text(x((from + to) / 2), top + 14, "middle", "#666", "ten times the traffic")
	for (i = 0; i <= 4; i++) {
		py = top + height * i / 4
		printf "<line x1=\"%d\" y1=\"%.1f\" x2=\"%d\" y2=\"%.1f\" stroke=\"#ddd\"/>\n", left, py, left + width, py
		text(left - 6, py + 4, "end", "#c0392b", most_lag * (4 - i) / 4)
		text(left + width + 6, py + 4, "start", "#2c5f8a", most_rate * (4 - i) / 4)
	}
	step = round_up(longest / 10)
	for (t = 0; t <= longest; t += step)
		text(x(t), top + height + 18, "middle", "#333", t)
	text(left + width / 2, top + height + 38, "middle", "#333", "seconds")
	text(left, 24, "start", "#c0392b", "lag in pipeline.status, seconds")
	text(left + width, 24, "end", "#2c5f8a", "rows a second: written (dashed), processed")
	for (which = 1; which <= 2; which++) {
		printf "<polyline fill=\"none\" stroke=\"#2c5f8a\"%s points=\"", which == 1 ? " stroke-dasharray=\"5 3\"" : ""
		for (i = 1; i <= n; i++)
			printf "%.1f,%.1f ", x(middle[i]), y(which == 1 ? wrote[i] : did[i], most_rate)
		print "\"/>"
	}
	printf "<polyline fill=\"none\" stroke=\"#c0392b\" stroke-width=\"2\" points=\""
	for (i = 1; i <= NR; i++)
		printf "%.1f,%.1f ", x(time[i]), y(lag[i], most_lag)
	print "\"/>"
	print "</svg>"
}
