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
    /// Baseline and candidate.
    pub sides: [String; 2],
    pub figures: Vec<Figure>,
    /// Keys of the figures for the summary line.
    pub summary_keys: &'static [&'static str],
}

/// Everything a run of the comparison has to say.
#[derive(Clone, Debug)]
pub struct Comparison {
    /// Machine and versions: key and value.
    pub facts: Vec<(&'static str, String)>,
    pub cases: Vec<CaseReport>,
}

impl CaseReport {
    pub fn table(&self) -> String {
        let [baseline, candidate] = &self.sides;
        // At least as wide as a figure, and as its column's head.
        let [left, right] = self.sides.each_ref().map(|side| side.chars().count().max(12) + 2);
        let mut table = format!("{:<34}{baseline:>left$}{candidate:>right$}    ratio\n", self.name);
        for figure in &self.figures {
            let [baseline, candidate] = figure.values.map(number);
            let noise = figure.ratio_noise.map_or(String::new(), |noise| format!(" ±{noise:.2}"));
            let ratio = figure.ratio().map_or(String::new(), |ratio| format!("{ratio:.2}{noise}"));
            let line = format!("  {:<32}{baseline:>left$}{candidate:>right$}    {ratio}", figure.label);
            table.push_str(line.trim_end());
            table.push('\n');
        }
        table
    }

    pub fn figure(&self, key: &str) -> Option<&Figure> {
        self.figures.iter().find(|figure| figure.key == key)
    }

    fn summary(&self) -> String {
        let ratios = self.summary_keys.iter().filter_map(|key| {
            let figure = self.figure(key)?;
            let label = figure.label.trim().split(',').next()?;
            Some(format!("{label} x{:.2}", figure.ratio()?))
        });
        format!("  {:<26} {}", self.name, ratios.collect::<Vec<_>>().join(", "))
    }

    /// A row of the table in the README; None for a case without CPU time.
    fn readme_row(&self) -> Option<String> {
        let cpu = self.figure("cpu_us_per_op")?;
        let [baseline, candidate] = cpu.values.map(number);
        let mut row = format!("| {} | {baseline} to {candidate} |", self.name);
        for key in ["cpu_us_per_op", "latency_p50_us", "latency_p99_us", "latency_p999_us", "throughput_kops"]
        {
            let ratio = self.figure(key).and_then(Figure::ratio);
            let _ = write!(row, " {} |", ratio.map_or("n/a".into(), |ratio| format!("{ratio:.2}")));
        }
        Some(row)
    }
}

impl Comparison {
    /// One line for each case: candidate over baseline in what matters most.
    pub fn summary(&self) -> String {
        let mut summary = String::new();
        for cases in self.groups() {
            let [baseline, candidate] = &cases[0].sides;
            let _ = writeln!(
                summary,
                "{candidate} over {baseline} (throughput and items held: more is better; all else: less is)"
            );
            for case in cases {
                let _ = writeln!(summary, "{}", case.summary().trim_end());
            }
        }
        summary
    }

    /// The cases with CPU time as tables for the README.
    pub fn readme_tables(&self) -> String {
        let mut tables = String::new();
        for cases in self.groups() {
            let rows: Vec<String> = cases.iter().filter_map(CaseReport::readme_row).collect();
            if rows.is_empty() {
                continue;
            }
            let [baseline, candidate] = &cases[0].sides;
            let _ = writeln!(
                tables,
                "| {baseline} to {candidate} | server CPU per operation, us | ratio | p50 | p99 | p99.9 | throughput |\n\
                 |---|---|---|---|---|---|---|\n{}\n",
                rows.join("\n")
            );
        }
        tables
    }

    /// Runs of cases that compare the same two sides.
    fn groups(&self) -> impl Iterator<Item = &[CaseReport]> {
        self.cases.chunk_by(|one, next| one.sides == next.sides)
    }

    /// Writes `{"machine": {...}, "cases": [{"case": ..., "figure": {"memcached": 1, "filbert": 1, "ratio": 1}}]}`.
    pub fn write_json(&self, path: &Path) -> io::Result<()> {
        let facts = self.facts.iter().map(|(key, value)| format!("{}: {}", quoted(key), quoted(value)));
        let cases = self.cases.iter().map(|case| {
            let mut object = format!("    {{\n      \"case\": {}", quoted(&case.name));
            for figure in &case.figures {
                let mut fields: Vec<String> = Vec::new();
                for (name, value) in case.sides.iter().zip(figure.values) {
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
