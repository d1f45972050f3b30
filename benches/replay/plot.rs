//! A plot of hit ratio against the size of the cache, as SVG.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use crate::support::Result;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 420.0;
/// Around the plot: what labels need.
const LEFT: f64 = 72.0;
const RIGHT: f64 = 24.0;
const TOP: f64 = 48.0;
const BOTTOM: f64 = 92.0;

/// Ratios that a line may stand at, from the coarsest; the first with enough lines is taken.
const STEPS: [f64; 5] = [0.1, 0.05, 0.02, 0.01, 0.005];
const FEWEST_STEPS: f64 = 3.0;

/// How lines are told apart, in colour and without: class, and the dashes of its line. Colours of both kinds of
/// background are in the style.
const LINES: [(&str, &str); 5] = [("a", "2 5"), ("b", "8 4"), ("c", "none"), ("d", "12 3 3 3"), ("e", "4 4")];

/// Without a background of its own. Each colour has a contrast of 3 or more to what is behind it.
const STYLE: &str = "\
text { font: 13px system-ui, sans-serif; fill: #333 } .title { font-weight: 600 }
.grid { stroke: #d4d4d4 } .axis { stroke: #666 } polyline { fill: none; stroke-width: 2.5 }
.a { stroke: #777; fill: #777 } .b { stroke: #b45309; fill: #b45309 } .c { stroke: #1d4ed8; fill: #1d4ed8 }
.d { stroke: #15803d; fill: #15803d } .e { stroke: #a21caf; fill: #a21caf }
@media (prefers-color-scheme: dark) {
text { fill: #ddd } .grid { stroke: #444 } .axis { stroke: #aaa }
.a { stroke: #aaa; fill: #aaa } .b { stroke: #f59e0b; fill: #f59e0b } .c { stroke: #6ea8fe; fill: #6ea8fe }
.d { stroke: #4ade80; fill: #4ade80 } .e { stroke: #e879f9; fill: #e879f9 }
}";

#[derive(Debug)]
pub struct Plot {
    pub title: String,
    pub lines: Vec<Line>,
}

#[derive(Debug)]
pub struct Line {
    pub name: String,
    /// MiB and hit ratio, by size.
    pub points: Vec<(f64, f64)>,
}

/// Where points are drawn: sizes by their logarithm, ratios between two round ones.
struct Scale {
    log_sizes: [f64; 2],
    ratios: [f64; 2],
    step: f64,
}

impl Plot {
    pub fn write(&self, path: &Path) -> Result<()> {
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        fs::write(path, self.svg()).map_err(|error| format!("{}: {error}", path.display()).into())
    }

    fn svg(&self) -> String {
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\">\n\
             <title>{title}</title>\n<style>\n{STYLE}\n</style>\n\
             <text class=\"title\" x=\"{LEFT}\" y=\"26\">{title}</text>\n",
            title = escaped(&self.title)
        );
        let scale = Scale::of(&self.lines);
        self.draw_axes(&scale, &mut svg);
        self.draw_lines(&scale, &mut svg);
        svg.push_str("</svg>\n");
        svg
    }

    fn draw_axes(&self, scale: &Scale, svg: &mut String) {
        let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        let steps = ((scale.ratios[1] - scale.ratios[0]) / scale.step).round() as u32;
        for step in 0..=steps {
            let ratio = scale.ratios[0] + f64::from(step) * scale.step;
            let y = scale.y(ratio);
            let decimals = if scale.step < 0.01 { 3 } else { 2 };
            let _ = writeln!(
                svg,
                "<line class=\"grid\" x1=\"{LEFT}\" y1=\"{y:.1}\" x2=\"{right}\" y2=\"{y:.1}\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{ratio:.decimals$}</text>",
                LEFT - 8.0,
                y + 4.5
            );
        }
        for &(size, _) in self.lines.iter().take(1).flat_map(|line| &line.points) {
            let x = scale.x(size);
            let _ = writeln!(
                svg,
                "<line class=\"axis\" x1=\"{x:.1}\" y1=\"{bottom}\" x2=\"{x:.1}\" y2=\"{}\"/>\
                 <text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{size}</text>",
                bottom + 5.0,
                bottom + 20.0
            );
        }
        let (across, down) = (f64::midpoint(LEFT, right), f64::midpoint(TOP, bottom));
        let _ = writeln!(
            svg,
            "<line class=\"axis\" x1=\"{LEFT}\" y1=\"{bottom}\" x2=\"{right}\" y2=\"{bottom}\"/>\n\
             <text x=\"{across}\" y=\"{}\" text-anchor=\"middle\">size of the cache (-m), MiB</text>\n\
             <text x=\"20\" y=\"{down}\" text-anchor=\"middle\" transform=\"rotate(-90 20 {down})\">hit ratio</text>",
            bottom + 42.0
        );
    }

    /// With a legend under the axis.
    fn draw_lines(&self, scale: &Scale, svg: &mut String) {
        let y = HEIGHT - 18.0;
        let width = (WIDTH - LEFT - RIGHT) / self.lines.len() as f64;
        for (place, line) in self.lines.iter().enumerate() {
            let (class, dashes) = LINES[place % LINES.len()];
            let points: Vec<String> = line
                .points
                .iter()
                .map(|&(size, ratio)| format!("{:.1},{:.1}", scale.x(size), scale.y(ratio)))
                .collect();
            let _ = writeln!(
                svg,
                "<g class=\"{class}\" stroke-dasharray=\"{dashes}\"><polyline points=\"{}\"/>",
                points.join(" ")
            );
            let x = LEFT + width * place as f64;
            let _ = writeln!(svg, "<polyline points=\"{x:.1},{y} {:.1},{y}\"/></g>", x + 36.0);
            for point in &points {
                let (x, y) = point.split_once(',').expect("it was made with one");
                let _ = writeln!(svg, "<circle class=\"{class}\" cx=\"{x}\" cy=\"{y}\" r=\"3.5\"/>");
            }
            let name = escaped(&line.name);
            let _ = writeln!(svg, "<text x=\"{:.1}\" y=\"{}\">{name}</text>", x + 44.0, y + 4.5);
        }
    }
}

impl Scale {
    fn of(lines: &[Line]) -> Self {
        let points = || lines.iter().flat_map(|line| &line.points);
        let bounds = |values: &mut dyn Iterator<Item = f64>| {
            values.fold([f64::INFINITY, f64::NEG_INFINITY], |[low, high], value| {
                [low.min(value), high.max(value)]
            })
        };
        let log_sizes = bounds(&mut points().map(|point| point.0.log2()));
        let [low, high] = bounds(&mut points().map(|point| point.1));
        let is_fine = |step: &f64| (high / step).ceil() - (low / step).floor() >= FEWEST_STEPS;
        let step = STEPS.into_iter().find(is_fine).unwrap_or(STEPS[STEPS.len() - 1]);
        Self { log_sizes, ratios: [(low / step).floor() * step, (high / step).ceil() * step], step }
    }

    fn x(&self, size: f64) -> f64 {
        // The points at both ends stay off the frame.
        let margin = 28.0;
        let width = WIDTH - LEFT - RIGHT - 2.0 * margin;
        LEFT + margin + width * part(size.log2(), self.log_sizes)
    }

    fn y(&self, ratio: f64) -> f64 {
        HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * part(ratio, self.ratios)
    }
}

/// In the middle when there is nothing between the two ends.
fn part(value: f64, [low, high]: [f64; 2]) -> f64 {
    if high > low { (value - low) / (high - low) } else { 0.5 }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
