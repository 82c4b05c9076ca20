//! What people see: lines on stdout, a table on stderr, a page.

use std::{fmt::Write as _, fs, io::Write as _, path::Path, process::ExitCode};

use comfy_table::{Cell, CellAlignment, Table, presets::UTF8_HORIZONTAL_ONLY};

use crate::{
    Result,
    args::Options,
    row::{Figure, Row},
};

/// One row on stdout, at once.
pub(crate) fn line(row: &Row) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{}", row.json())?;
    Ok(stdout.flush()?)
}

/// The table and the page. A target that is missed is a figure, not a failure of the bench.
pub(crate) fn finish(rows: &[Row], options: &Options) -> Result<ExitCode> {
    write_page(rows, &options.report)?;
    if !options.json_only {
        eprintln!("\n{}\n", table(rows));
        eprintln!("{}", options.report.display());
    }
    Ok(ExitCode::SUCCESS)
}

fn table(rows: &[Row]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_HORIZONTAL_ONLY);
    table.set_header(["", "figure", "value", "unit", "floor", "ratio", "target", "", "CPU ms/unit", "steal", "others"]);
    for row in rows {
        for (index, figure) in row.figures.iter().enumerate() {
            let own = |text: String| if index == 0 { text } else { String::new() };
            let right = |text: String| Cell::new(text).set_alignment(CellAlignment::Right);
            table.add_row([
                Cell::new(own(row.id.to_owned())),
                Cell::new(figure.what),
                right(number(figure.value)),
                Cell::new(figure.unit),
                right(figure.floor.map_or(String::new(), number)),
                right(figure.ratio.map_or(String::new(), |ratio| format!("{ratio:.2}x"))),
                right(target(figure)),
                Cell::new(if figure.passes() { "ok" } else { "MISSED" }),
                right(own(costs(row))),
                right(own(format!("{:.0} %", row.noise.steal_percent))),
                right(own(format!("{:.0} %", row.noise.others_percent))),
            ]);
        }
    }
    table
}

fn costs(row: &Row) -> String {
    match (row.cpu_ms_per_unit, row.floor_cpu_ms_per_unit) {
        (Some(cpu), Some(floor)) => format!("{cpu:.3} (floor {floor:.3})"),
        (Some(cpu), None) => format!("{cpu:.3}"),
        _ => String::new(),
    }
}

fn target(figure: &Figure) -> String {
    let times = if figure.ratio.is_some() { "x" } else { "" };
    format!("{} {}{times}", figure.target.sign(), figure.target.number())
}

fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 1000.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.3}"),
    }
}

const WIDTH: f64 = 420.0;
/// Twice the target fills a bar.
const FULL: f64 = 2.0;

fn write_page(rows: &[Row], path: &Path) -> Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut page = String::from(HEAD);
    let now = chrono::Local::now().format("%Y-%m-%d %H:%M");
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let passed = rows.iter().filter(|row| row.passes()).count();
    write!(
        page,
        "<h1>fnbus bench</h1>\n<p>{now}, {cores} cores, load included. {passed} of {} rows reach their target. A bar \
         that touches the line reaches it; a ratio is to a floor measured in turns with the value.</p>\n<table>\n\
         <tr><th>row</th><th>figure</th><th>value</th><th>floor</th><th>ratio</th><th>target</th><th>reached</th>\
         <th>CPU ms/unit</th></tr>\n",
        rows.len()
    )?;
    for row in rows {
        for (index, figure) in row.figures.iter().enumerate() {
            page.push_str(if index == 0 { "<tr class=first>" } else { "<tr>" });
            if index == 0 {
                write!(
                    page,
                    "<td rowspan={}><b>{}</b> {}<small>{}; host stole {:.1} %, others took {:.0} %</small></td>",
                    row.figures.len(),
                    row.id,
                    escaped(row.work),
                    escaped(&row.note),
                    row.noise.steal_percent,
                    row.noise.others_percent
                )?;
            }
            writeln!(
                page,
                "<td>{}</td><td class=n>{} {}</td><td class=n>{}</td><td class=n>{}</td><td class=n>{}</td><td>{}</td>\
                 <td class=n>{}</td></tr>",
                escaped(figure.what),
                number(figure.value),
                figure.unit,
                figure.floor.map_or(String::new(), number),
                figure.ratio.map_or(String::new(), |ratio| format!("{ratio:.2}x")),
                target(figure),
                bar(figure),
                if index == 0 { costs(row) } else { String::new() }
            )?;
        }
    }
    page.push_str("</table>\n</html>\n");
    Ok(fs::write(path, page)?)
}

/// How much of the target is reached, as a picture: the line is the target.
fn bar(figure: &Figure) -> String {
    let reached = figure.reached();
    let length = (reached / FULL).clamp(0.004, 1.0) * WIDTH;
    let line = WIDTH / FULL;
    let class = if figure.passes() { "good" } else { "bad" };
    format!(
        "<svg width=\"{WIDTH}\" height=\"22\" role=\"img\" aria-label=\"{:.0} % of the target\">\
         <rect class=\"ground\" width=\"{WIDTH}\" height=\"14\" y=\"4\" rx=\"3\"/>\
         <rect class=\"{class}\" width=\"{length:.1}\" height=\"14\" y=\"4\" rx=\"3\"/>\
         <line x1=\"{line}\" x2=\"{line}\" y1=\"0\" y2=\"22\"/>\
         <text x=\"{:.1}\" y=\"15\" text-anchor=\"end\">{:.0} %</text></svg>",
        reached * 100.0,
        WIDTH - 6.0,
        reached * 100.0
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

const HEAD: &str = "<!doctype html>
<html lang=en>
<meta charset=utf-8>
<meta name=viewport content=\"width=device-width\">
<title>fnbus bench</title>
<style>
:root { color-scheme: light dark; --ink: #1c2430; --soft: #68748a; --ground: #e8ebf0; --good: #2e8b57; --bad: #c8553d }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ef; --soft: #98a3b8; --ground: #2b3240; --good: #3fae72; --bad: #dd7058 } }
body { font: 15px/1.45 system-ui, sans-serif; color: var(--ink); max-width: 1200px; margin: 2.5rem auto; padding: 0 1rem }
h1 { font-size: 1.5rem; margin: 0 0 .3rem }
table { border-collapse: collapse; width: 100%; margin-top: 1.2rem }
th { text-align: left; font-weight: 500; color: var(--soft); font-size: .85em; padding: .3rem .6rem }
td { padding: .25rem .6rem; vertical-align: top }
tr.first > td { border-top: 1px solid var(--ground); padding-top: .6rem }
td:first-child { max-width: 20rem }
small { display: block; color: var(--soft) }
.n { white-space: nowrap; font-variant-numeric: tabular-nums; text-align: right }
svg { vertical-align: middle }
svg .ground { fill: var(--ground) } svg .good { fill: var(--good) } svg .bad { fill: var(--bad) }
svg line { stroke: var(--ink); stroke-width: 2 } svg text { fill: var(--ink); font-size: 11px }
</style>
";
