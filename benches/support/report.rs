//! What was measured, as tables for people and JSON for programs.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;

/// Which direction of a figure is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    Higher,
    Lower,
    /// Tells about the measurement, not about the server: no ratio.
    Neither,
}

/// One figure of the two servers; None where the machine cannot measure it.
#[derive(Clone, Debug)]
pub struct Figure {
    /// For programs: snake case, with the unit.
    pub key: &'static str,
    /// For people, with the unit.
    pub label: &'static str,
    pub better: Better,
    /// Of the baseline and of the candidate.
    pub values: [Option<f64>; 2],
    /// Half the interquartile range of the ratios of neighbouring runs: how far to trust the ratio.
    pub ratio_noise: Option<f64>,
}

impl Figure {
    /// Candidate over baseline.
    pub fn ratio(&self) -> Option<f64> {
        match (self.better, self.values) {
            (Better::Neither, _) => None,
            (_, [Some(baseline), Some(candidate)]) if baseline > 0.0 => Some(candidate / baseline),
            _ => None,
        }
    }
}

/// The figures of one case.
#[derive(Clone, Debug)]
pub struct CaseReport {
    pub name: String,
    pub figures: Vec<Figure>,
    /// Keys of the figures for the summary line.
    pub summary_keys: &'static [&'static str],
}

/// Everything a run of the comparison has to say.
#[derive(Clone, Debug)]
pub struct Comparison {
    /// Machine and versions: key and value.
    pub facts: Vec<(&'static str, String)>,
    /// Baseline and candidate.
    pub names: [String; 2],
    pub cases: Vec<CaseReport>,
}

impl CaseReport {
    pub fn table(&self, names: &[String; 2]) -> String {
        let mut table = format!("{:<34} {:>14} {:>14} {:>8}\n", self.name, names[0], names[1], "ratio");
        for figure in &self.figures {
            let [baseline, candidate] = figure.values.map(number);
            let noise = figure.ratio_noise.map_or(String::new(), |noise| format!(" ±{noise:.2}"));
            let ratio = figure.ratio().map_or(String::new(), |ratio| format!("{ratio:.2}{noise}"));
            let line = format!("  {:<32} {baseline:>14} {candidate:>14}     {ratio}", figure.label);
            table.push_str(line.trim_end());
            table.push('\n');
        }
        table
    }

    fn summary(&self) -> String {
        let ratios = self.summary_keys.iter().filter_map(|key| {
            let figure = self.figures.iter().find(|figure| figure.key == *key)?;
            let label = figure.label.trim().split(',').next()?;
            Some(format!("{label} x{:.2}", figure.ratio()?))
        });
        format!("  {:<26} {}", self.name, ratios.collect::<Vec<_>>().join(", "))
    }
}

impl Comparison {
    /// One line for each case: candidate over baseline in what matters most.
    pub fn summary(&self) -> String {
        let [baseline, candidate] = &self.names;
        let mut summary = format!(
            "{candidate} over {baseline} (throughput and items held: more is better; all else: less is)\n"
        );
        for case in &self.cases {
            summary.push_str(case.summary().trim_end());
            summary.push('\n');
        }
        summary
    }

    /// Writes `{"machine": {...}, "cases": [{"case": ..., "figure": {"memcached": 1, "filbert": 1, "ratio": 1}}]}`.
    pub fn write_json(&self, path: &Path) -> io::Result<()> {
        let facts = self.facts.iter().map(|(key, value)| format!("{}: {}", quoted(key), quoted(value)));
        let cases = self.cases.iter().map(|case| {
            let mut object = format!("    {{\n      \"case\": {}", quoted(&case.name));
            for figure in &case.figures {
                let mut fields: Vec<String> = Vec::new();
                for (name, value) in self.names.iter().zip(figure.values) {
                    fields.push(format!("{}: {}", quoted(name), json_number(value)));
                }
                fields.push(format!("\"ratio\": {}", json_number(figure.ratio())));
                fields.push(format!("\"ratio_noise\": {}", json_number(figure.ratio_noise)));
                let _ = write!(object, ",\n      {}: {{{}}}", quoted(figure.key), fields.join(", "));
            }
            object + "\n    }"
        });
        let facts = facts.collect::<Vec<_>>().join(",\n    ");
        let cases = cases.collect::<Vec<_>>().join(",\n");
        fs::write(
            path,
            format!("{{\n  \"machine\": {{\n    {facts}\n  }},\n  \"cases\": [\n{cases}\n  ]\n}}\n"),
        )
    }
}

/// Three or more significant digits, never an exponent.
pub fn number(value: Option<f64>) -> String {
    match value {
        None => "n/a".into(),
        Some(value) if value.abs() >= 100.0 => format!("{value:.0}"),
        Some(value) if value.abs() >= 10.0 => format!("{value:.1}"),
        Some(value) => format!("{value:.3}"),
    }
}

fn json_number(value: Option<f64>) -> String {
    value.filter(|value| value.is_finite()).map_or("null".into(), |value| value.to_string())
}

/// A JSON string; control characters, which no figure or fact needs, are left out.
fn quoted(text: &str) -> String {
    let mut quoted = String::from('"');
    for character in text.chars().filter(|character| !character.is_control()) {
        if matches!(character, '"' | '\\') {
            quoted.push('\\');
        }
        quoted.push(character);
    }
    quoted.push('"');
    quoted
}
