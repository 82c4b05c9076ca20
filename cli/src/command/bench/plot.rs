//! The page of `fnbus bench pool`: cold starts over idle memory, one curve per policy. Nothing in it is loaded from
//! elsewhere.

use std::fmt::Write as _;

use super::pool::Line;

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 520.0;
/// Left, right, top, bottom.
const ROOM: [f64; 4] = [70.0, 20.0, 20.0, 50.0];

/// A policy's word, and the class of its colour.
const POLICIES: [&str; 4] = ["fixed", "hybrid", "greedy-dual", "cost-window"];

/// The page; `what` says what was replayed.
pub(super) fn page(lines: &[Line], what: &str) -> String {
    let mut page = String::from(HEAD);
    let _ = write!(
        page,
        "<h1>Keep-alive policies</h1>\n<p>{what}. Lower and further left is better. A large dot is the setting that the \
         table compares; the line through it is the same policy at other settings. The shaded corner has at most a \
         quarter of the cold starts of ten minutes, in no more memory.</p>\n"
    );
    picture(&mut page, lines);
    page.push_str("<table>\n<tr><th>policy</th><th>setting</th><th>cold, of calls</th><th>idle memory</th></tr>\n");
    for line in lines {
        let _ = writeln!(
            page,
            "<tr><td>{}</td><td>{}</td><td class=n>{:.3} %</td><td class=n>{}</td></tr>",
            line.policy,
            line.setting,
            line.cold_percent,
            line.memory_ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}x"))
        );
    }
    page.push_str("</table>\n</html>\n");
    page
}

/// Where a line stands: its memory, and its cold starts in the logarithm.
struct Axes {
    memory: (f64, f64),
    cold: (f64, f64),
}

impl Axes {
    /// So that all of them fit, to whole tenths and powers of ten.
    fn over(lines: &[Line]) -> Self {
        let mut axes = Self { memory: (0.8, 1.2), cold: (-1.0, 0.0) };
        for line in lines {
            let (memory, cold) = (line.memory_ratio.unwrap_or_default(), cold(line));
            axes.memory = (axes.memory.0.min(memory - 0.05), axes.memory.1.max(memory + 0.05));
            axes.cold = (axes.cold.0.min(cold.floor()), axes.cold.1.max(cold.ceil()));
        }
        axes.memory = ((axes.memory.0 * 10.0).floor() / 10.0, (axes.memory.1 * 10.0).ceil() / 10.0);
        axes
    }

    fn x(&self, memory: f64) -> f64 {
        let [left, right, ..] = ROOM;
        left + (memory - self.memory.0) / (self.memory.1 - self.memory.0) * (WIDTH - left - right)
    }

    fn y(&self, cold: f64) -> f64 {
        let [_, _, top, bottom] = ROOM;
        top + (self.cold.1 - cold) / (self.cold.1 - self.cold.0) * (HEIGHT - top - bottom)
    }
}

fn cold(line: &Line) -> f64 {
    line.cold_percent.max(0.001).log10()
}

fn picture(page: &mut String, lines: &[Line]) {
    let axes = Axes::over(lines);
    let [left, right, top, bottom] = ROOM;
    let (floor, end) = (HEIGHT - bottom, WIDTH - right);
    let _ =
        writeln!(page, "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"cold starts over memory\">");
    if let Some(ten) = lines.first() {
        let (x, y) = (axes.x(1.0), axes.y((ten.cold_percent / 4.0).max(0.001).log10()));
        let (width, height) = (x - left, floor - y);
        let _ =
            writeln!(page, "<rect class=goal x=\"{left}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\"/>");
    }
    for power in axes.cold.0 as i32..=axes.cold.1 as i32 {
        let (y, value) = (axes.y(f64::from(power)), 10_f64.powi(power));
        let _ = writeln!(
            page,
            "<line x1=\"{left}\" x2=\"{end}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
             <text x=\"{}\" y=\"{:.1}\" text-anchor=end>{value} %</text>",
            left - 8.0,
            y + 4.0
        );
    }
    // about eight of them, whatever the range
    let step = ((axes.memory.1 - axes.memory.0) / 0.8).ceil() as i64;
    let tenths = (axes.memory.0 * 10.0).round() as i64..=(axes.memory.1 * 10.0).round() as i64;
    for tenth in tenths.step_by(step.max(1) as usize) {
        let memory = tenth as f64 / 10.0;
        let x = axes.x(memory);
        let _ = writeln!(
            page,
            "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{top}\" y2=\"{floor}\"/>\
             <text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=middle>{memory:.1}x</text>",
            floor + 18.0
        );
    }
    let _ = writeln!(
        page,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=middle>idle memory, fixed ten minutes = 1</text>\
         <text x=\"{left}\" y=\"13\">cold starts, of all calls</text>",
        f64::midpoint(left, end),
        HEIGHT - 8.0
    );
    for (class, policy) in POLICIES.iter().enumerate() {
        curve(page, &axes, lines, policy, class);
    }
    page.push_str("</svg>\n");
}

fn curve(page: &mut String, axes: &Axes, lines: &[Line], policy: &str, class: usize) {
    let mut of: Vec<&Line> = lines.iter().filter(|line| line.policy == policy && line.memory_ratio.is_some()).collect();
    of.sort_by(|a, b| b.cold_percent.total_cmp(&a.cold_percent));
    let at = |line: &Line| (axes.x(line.memory_ratio.unwrap_or_default()), axes.y(cold(line)));
    let points: Vec<String> = of.iter().map(|line| at(line)).map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    let _ = writeln!(page, "<g class=\"p{class}\"><polyline points=\"{}\"/>", points.join(" "));
    for line in of {
        let ((x, y), radius) = (at(line), if line.is_chosen { 7 } else { 3 });
        let _ = write!(
            page,
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius}\"><title>{policy}, {}: {:.3} % cold</title></circle>",
            line.setting, line.cold_percent
        );
        if line.is_chosen {
            // neighbours on the plot have their words on different sides
            let (x, y, anchor) = if class < 2 { (x + 11.0, y - 7.0, "start") } else { (x - 11.0, y + 16.0, "end") };
            let _ = write!(page, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor={anchor}>{policy}</text>");
        }
    }
    page.push_str("</g>\n");
}

const HEAD: &str = "<!doctype html>
<html lang=en>
<meta charset=utf-8>
<meta name=viewport content=\"width=device-width\">
<title>fnbus bench pool</title>
<style>
:root { color-scheme: light dark; --ink: #1c2430; --soft: #68748a; --ground: #e8ebf0; --goal: #2e8b5722 }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ef; --soft: #98a3b8; --ground: #2b3240; --goal: #3fae7233 } }
body { font: 15px/1.45 system-ui, sans-serif; color: var(--ink); max-width: 900px; margin: 2.5rem auto; padding: 0 1rem }
h1 { font-size: 1.5rem; margin: 0 0 .3rem }
table { border-collapse: collapse; margin-top: 1.2rem }
th { text-align: left; font-weight: 500; color: var(--soft); font-size: .85em; padding: .3rem .6rem }
td { padding: .2rem .6rem; border-top: 1px solid var(--ground) }
.n { white-space: nowrap; font-variant-numeric: tabular-nums; text-align: right }
svg { width: 100% } svg line { stroke: var(--ground) } svg text { fill: var(--soft); font-size: 12px }
svg .goal { fill: var(--goal) } svg polyline { fill: none; stroke-width: 2 }
.p0 { --c: #68748a } .p1 { --c: #b8860b } .p2 { --c: #c8553d } .p3 { --c: #2e8b57 }
svg g polyline { stroke: var(--c) } svg g circle { fill: var(--c) } svg g text { fill: var(--c); font-weight: 600 }
</style>
";
