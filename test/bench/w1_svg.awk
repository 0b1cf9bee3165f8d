# w1_svg.awk - a picture of W1: the whole run of each method, and how fresh its output is.
#
# Input: lines "label|whole run / L1|freshness p50|p99", the latter two in ms or empty.

function text(x, y, anchor, colour, words)
{
	printf "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\" fill=\"%s\">%s</text>\n", x, y, anchor, colour, words
}

function line(x1, y1, x2, y2, colour, thick)
{
	printf "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"%s\" stroke-width=\"%d\"/>\n", x1, y1, x2, y2, colour, thick
}

# Where a number of milliseconds is, from 0.1 to 10 000 on a logarithmic scale.
function x(ms)
{
	ms = ms < 0.1 ? 0.1 : ms > 10000 ? 10000 : ms
	return fresh + log(ms * 10) / log(100000) * width
}

BEGIN { FS = "|" }

{
	label[NR] = $1; whole[NR] = $2; p50[NR] = $3; p99[NR] = $4
	if ($2 > most) most = $2
}

END {
	left = 250; width = 250; fresh = 570; top = 50; row = 26
	height = row * NR
	printf "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 850 %d\" font-family=\"sans-serif\" font-size=\"12\">\n", top + height + 30
	printf "<rect width=\"850\" height=\"%d\" fill=\"white\"/>\n", top + height + 30
	text(left, 24, "start", "#2c5f8a", "whole run / the writer alone")
	text(fresh, 24, "start", "#c0392b", "freshness under load, p50 to p99, ms")
	line(left + width / most, top - 8, left + width / most, top + height, "#bbb", 1)
	for (ms = 0.1; ms <= 10000; ms *= 10) {
		line(x(ms), top - 8, x(ms), top + height, "#ddd", 1)
		text(x(ms), top + height + 18, "middle", "#333", ms)
	}
	for (i = 1; i <= NR; i++) {
		y = top + row * (i - 0.5)
		text(left - 8, y + 4, "end", "#333", label[i])
		printf "<rect x=\"%d\" y=\"%.1f\" width=\"%.1f\" height=\"14\" fill=\"%s\"/>\n", left, y - 7,
			whole[i] / most * width, label[i] ~ /^pipeline/ ? "#2c5f8a" : "#9db8cf"
		text(left + whole[i] / most * width + 5, y + 4, "start", "#333", sprintf("%.2f", whole[i]))
		if (p50[i] != "") {
			line(x(p50[i]), y, x(p99[i]), y, "#c0392b", 3)
			printf "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"5\" fill=\"#c0392b\"/>\n", x(p50[i]), y
		}
	}
	print "</svg>"
}
