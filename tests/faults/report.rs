//! What people see: a table on stderr, and one for docs/reliability.md.

use std::fmt::Write as _;

use comfy_table::{Cell, CellAlignment, Table, presets::UTF8_HORIZONTAL_ONLY};
use fnbus_tests::faults::Tally;
use serde_json::{Value, json};

/// A fault that was tried.
pub(crate) struct Row {
    pub(crate) fault: u32,
    pub(crate) sentence: &'static str,
    pub(crate) seed: u64,
    pub(crate) seconds: u64,
    pub(crate) tally: Tally,
}

const HEAD: [&str; 10] = ["", "fault", "cycles", "events", "lost", "doubled", "stuck", "orphans", "other", "seconds"];

impl Row {
    pub(crate) fn json(&self) -> Value {
        let mut row = json!({
            "fault": self.fault, "sentence": self.sentence, "seed": self.seed, "seconds": self.seconds,
        });
        if let (Some(row), Ok(Value::Object(tally))) = (row.as_object_mut(), serde_json::to_value(&self.tally)) {
            row.extend(tally);
        }
        row
    }

    fn figures(&self) -> [u64; 8] {
        let Tally { cycles, events, lost, doubled, stuck, orphans, broken, .. } = self.tally;
        let counts = [cycles, events, lost, doubled, stuck, orphans, broken];
        let mut figures = [self.seconds; 8];
        figures.iter_mut().zip(counts).for_each(|(figure, count)| *figure = count as u64);
        figures
    }
}

/// All figures together.
fn sum(rows: &[Row]) -> [u64; 8] {
    rows.iter().map(Row::figures).fold([0; 8], |mut sum, figures| {
        sum.iter_mut().zip(figures).for_each(|(sum, figure)| *sum += figure);
        sum
    })
}

pub(crate) fn table(rows: &[Row]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_HORIZONTAL_ONLY);
    table.set_header(HEAD);
    let mut add = |number: String, sentence: &str, figures: [u64; 8]| {
        let right = |text: String| Cell::new(text).set_alignment(CellAlignment::Right);
        let mut cells = vec![right(number), Cell::new(sentence)];
        cells.extend(figures.map(|figure| right(figure.to_string())));
        table.add_row(cells);
    };
    for row in rows {
        add(row.fault.to_string(), row.sentence, row.figures());
    }
    if rows.len() > 1 {
        add(String::new(), "all", sum(rows));
    }
    table
}

pub(crate) fn markdown(rows: &[Row]) -> String {
    let mut text = format!("|{}|\n|{}", HEAD.map(|head| format!(" {head} ")).join("|"), " --- | --- |");
    text.push_str(&" ---: |".repeat(HEAD.len() - 2));
    let mut add = |number: String, sentence: &str, figures: [u64; 8]| {
        let figures = figures.map(|figure| figure.to_string()).join(" | ");
        let _ = write!(text, "\n| {number} | {sentence} | {figures} |");
    };
    for row in rows {
        add(row.fault.to_string(), row.sentence, row.figures());
    }
    add(String::new(), "all", sum(rows));
    text
}
