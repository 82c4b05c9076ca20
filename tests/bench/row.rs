//! A row of the table and how it is judged.

use serde::Serialize;

use crate::cost::Cost;

/// What a target says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Target {
    AtLeast(f64),
    AtMost(f64),
}

/// A figure that is compared with a target.
#[derive(Debug, Clone)]
pub(crate) struct Figure {
    pub(crate) what: &'static str,
    pub(crate) value: f64,
    pub(crate) unit: &'static str,
    pub(crate) floor: Option<f64>,
    /// The median of the rounds' own ratios: what changed between rounds hit both.
    pub(crate) ratio: Option<f64>,
    pub(crate) target: Target,
}

/// One row as measured.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) id: &'static str,
    pub(crate) work: &'static str,
    /// The first is the row's own; all must hold.
    pub(crate) figures: Vec<Figure>,
    pub(crate) cpu_ms_per_unit: Option<f64>,
    pub(crate) floor_cpu_ms_per_unit: Option<f64>,
    pub(crate) noise: Noise,
    pub(crate) note: String,
}

/// What the machine did beside.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Noise {
    pub(crate) steal_percent: f64,
    pub(crate) others_percent: f64,
}

impl Noise {
    /// The worst of both.
    pub(crate) fn worse(&mut self, cost: &Cost) {
        self.steal_percent = self.steal_percent.max(cost.steal_percent);
        self.others_percent = self.others_percent.max(cost.others_percent);
    }
}

impl Target {
    pub(crate) fn number(self) -> f64 {
        match self {
            Self::AtLeast(number) | Self::AtMost(number) => number,
        }
    }

    pub(crate) fn sign(self) -> &'static str {
        match self {
            Self::AtLeast(_) => "≥",
            Self::AtMost(_) => "≤",
        }
    }
}

impl Figure {
    /// The number the target is about: the ratio where there is one.
    pub(crate) fn judged(&self) -> f64 {
        self.ratio.unwrap_or(self.value)
    }

    /// How much of the target is reached; 1 and more passes.
    pub(crate) fn reached(&self) -> f64 {
        let judged = self.judged();
        match self.target {
            Target::AtLeast(target) => judged / target,
            Target::AtMost(target) if judged <= 0.0 => {
                if target >= 0.0 {
                    2.0
                } else {
                    0.0
                }
            }
            Target::AtMost(target) => target / judged,
        }
    }

    pub(crate) fn passes(&self) -> bool {
        match self.target {
            Target::AtLeast(target) => self.judged() >= target,
            Target::AtMost(target) => self.judged() <= target,
        }
    }
}

#[derive(Serialize)]
struct FigureLine<'a> {
    what: &'a str,
    value: f64,
    unit: &'a str,
    floor: Option<f64>,
    ratio: Option<f64>,
    target: f64,
    pass: bool,
}

#[derive(Serialize)]
struct Line<'a> {
    id: &'a str,
    work: &'a str,
    value: f64,
    unit: &'a str,
    floor: Option<f64>,
    ratio: Option<f64>,
    target: f64,
    pass: bool,
    cpu_ms_per_unit: Option<f64>,
    floor_cpu_ms_per_unit: Option<f64>,
    steal_percent: f64,
    others_percent: f64,
    figures: Vec<FigureLine<'a>>,
    note: &'a str,
}

impl Row {
    pub(crate) fn passes(&self) -> bool {
        self.figures.iter().all(Figure::passes)
    }

    /// The line of stdout: the row's own figure, then all of them.
    pub(crate) fn json(&self) -> String {
        let rounded = |number: f64| (number * 1e4).round() / 1e4;
        let line = |figure: &Figure| FigureLine {
            what: figure.what,
            value: rounded(figure.value),
            unit: figure.unit,
            floor: figure.floor.map(rounded),
            ratio: figure.ratio.map(rounded),
            target: figure.target.number(),
            pass: figure.passes(),
        };
        let figures: Vec<FigureLine> = self.figures.iter().map(line).collect();
        let Some(own) = figures.first() else { return String::new() };
        let line = Line {
            id: self.id,
            work: self.work,
            value: own.value,
            unit: own.unit,
            floor: own.floor,
            ratio: own.ratio,
            target: own.target,
            pass: self.passes(),
            cpu_ms_per_unit: self.cpu_ms_per_unit.map(rounded),
            floor_cpu_ms_per_unit: self.floor_cpu_ms_per_unit.map(rounded),
            steal_percent: rounded(self.noise.steal_percent),
            others_percent: rounded(self.noise.others_percent),
            note: &self.note,
            figures,
        };
        serde_json::to_string(&line).unwrap_or_default()
    }
}
