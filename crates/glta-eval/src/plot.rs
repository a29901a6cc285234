//! Draws bar charts as SVG files.

use std::path::{Path, PathBuf};

use plotters::prelude::*;

use glta_core::write_whole;

use crate::record::Record;
use crate::{Error, Result};

/// One bar: the system's name, the mean, and the standard deviation over the seeds.
pub(crate) type Bar = (String, f64, f64);

/// The kind of a system, which determines the colour of its bar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A variant of GLTA, or the linear model alone.
    Own,
    /// A control without a language model or with random weights, or EASE + text.
    Control,
    Baseline,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Own, Self::Control, Self::Baseline];

    fn of(system: &str) -> Self {
        match system {
            "GLTA no LLM" | "GLTA random LLM" | "Linear random LLM" | "EASE + text" => {
                Self::Control
            }
            own if own.starts_with("GLTA") || own.starts_with("Linear") => Self::Own,
            _ => Self::Baseline,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Own => "GLTA",
            Self::Control => "control",
            Self::Baseline => "baseline",
        }
    }

    /// Returns the colour of a kind. People with colour blindness can distinguish the colours of
    /// all kinds.
    fn color(self) -> RGBColor {
        match self {
            Self::Own => RGBColor(0, 114, 178),
            Self::Control => RGBColor(230, 159, 0),
            Self::Baseline => RGBColor(150, 155, 162),
        }
    }
}

/// Draws horizontal bars with their standard deviations; the longest bar is on top.
pub(crate) fn bars(path: &Path, data: &str, metric: &str, bars: &[Bar]) -> Result<()> {
    let mut sorted = bars.to_vec();
    sorted.sort_by(|a, b| b.1.total_cmp(&a.1));
    let title =
        format!("{metric} on the test part of {}, higher is better", data.replace('_', " "));
    let svg = draw(&title, &sorted)
        .map_err(|e| Error::Plot { path: path.to_owned(), problem: e.to_string() })?;
    // Add a description for screen readers.
    let svg = svg.replacen('>', &format!(" role=\"img\"><title>{}</title>", escaped(&title)), 1);
    write_whole(path, svg.as_bytes()).map_err(|e| Error::io(path, e))
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// Total width of a plot, in pixels.
const WIDTH: u32 = 760;
/// Height above the bars, in pixels.
const ABOVE: i32 = 44;
/// Height below the bars, in pixels.
const BELOW: u32 = 88;
/// Height of a bar with its gap, in pixels.
const BAR: i32 = 26;
/// Width for the names on the left, in pixels.
const LEFT: i32 = 160;
/// Width for the numbers on the right, in pixels.
const RIGHT: i32 = 70;

fn draw(title: &str, bars: &[Bar]) -> std::result::Result<String, Box<dyn std::error::Error>> {
    let most = bars.iter().map(|(_, mean, sd)| mean + sd).fold(1e-9, f64::max);
    let below = ABOVE + BAR * bars.len() as i32;
    let height = below as u32 + BELOW;
    let step = tick(most);
    let scale = f64::from(WIDTH as i32 - LEFT - RIGHT) / most;
    let x = |value: f64| LEFT + (value * scale).round() as i32;
    let font = |size: i32| ("sans-serif", size).into_font().color(&BLACK);
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
        root.fill(&WHITE)?;
        root.draw(&Text::new(title.to_owned(), (12, 14), font(17)))?;
        // Give all numbers of the axis the same number of decimals.
        let digits = (-step.log10()).ceil().max(0.0) as usize;
        let line = RGBColor(225, 228, 232);
        for nth in 0..=(most / step) as u32 {
            let value = f64::from(nth) * step;
            let ends = vec![(x(value), ABOVE), (x(value), below + 4)];
            root.draw(&PathElement::new(ends, line.stroke_width(1)))?;
            let label = format!("{value:.digits$}");
            let left = x(value) - 7 * label.len() as i32 / 2;
            root.draw(&Text::new(label, (left, below + 8), font(12)))?;
        }
        for (row, (label, mean, sd)) in bars.iter().enumerate() {
            let top = ABOVE + BAR * row as i32;
            let middle = top + BAR / 2;
            root.draw(&Text::new(label.clone(), (12, middle - 6), font(13)))?;
            let corners = [(LEFT, top + 4), (x(*mean), top + BAR - 4)];
            root.draw(&Rectangle::new(corners, Kind::of(label).color().filled()))?;
            if *sd > 0.0 {
                deviation(&root, [x(mean - sd), x(mean + sd)], middle)?;
            }
            let behind = x(mean + sd) + 8;
            root.draw(&Text::new(format!("{mean:.4}"), (behind, middle - 6), font(13)))?;
        }
        // Draw the legend below the bars.
        let (mut at, row) = (LEFT, below + 44);
        for kind in Kind::ALL {
            if bars.iter().any(|(label, ..)| Kind::of(label) == kind) {
                let corners = [(at, row), (at + 16, row + 12)];
                root.draw(&Rectangle::new(corners, kind.color().filled()))?;
                root.draw(&Text::new(kind.name(), (at + 22, row), font(12)))?;
                at += 48 + 7 * kind.name().len() as i32;
            }
        }
        if bars.iter().any(|(.., sd)| *sd > 0.0) {
            deviation(&root, [at, at + 16], row + 6)?;
            let text = "standard deviation over seeds";
            root.draw(&Text::new(text, (at + 22, row), font(12)))?;
        }
        root.present()?;
    }
    Ok(svg)
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

/// Draws an error bar from `low` to `high`, with a cap at both ends, for a standard deviation.
fn deviation(
    root: &Area<'_>,
    [low, high]: [i32; 2],
    middle: i32,
) -> std::result::Result<(), Box<dyn std::error::Error>> {
    let style = BLACK.stroke_width(1);
    for ends in [
        [(low, middle), (high, middle)],
        [(low, middle - 4), (low, middle + 4)],
        [(high, middle - 4), (high, middle + 4)],
    ] {
        root.draw(&PathElement::new(ends.to_vec(), style)).map_err(|e| e.to_string())?;
    }
    Ok(())
}

/// Returns a step of 1, 2 or 5 times a power of ten, with four to nine steps up to `most`.
fn tick(most: f64) -> f64 {
    let power = 10f64.powf((most / 4.0).log10().floor());
    let steps = [5.0, 2.0, 1.0].map(|step| step * power);
    steps.into_iter().find(|step| most / step >= 4.0).unwrap_or(power)
}

impl Record {
    /// Draws a bar chart of a metric of all systems, saves it as `file` in the folder of the
    /// experiment, and returns its path.
    ///
    /// # Errors
    /// Returns an error if the file cannot be written.
    pub fn plot(&self, metric: &str, file: &str) -> Result<PathBuf> {
        let bar = |system: &str| {
            let value = self.value(system, metric)?;
            Some((system.to_owned(), value.mean, value.deviation))
        };
        let found: Vec<Bar> = self.systems().into_iter().filter_map(bar).collect();
        let path = self.folder.join(file);
        bars(&path, &self.dataset.name, metric, &found)?;
        Ok(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plot_has_a_description_and_a_legend() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("plot.svg");
        let bar = |name: &str, mean, sd| (name.to_owned(), mean, sd);
        let all = [
            bar("Popularity", 0.1, 0.0),
            bar("GLTA", 0.4, 0.01),
            bar("GLTA random LLM", 0.3, 0.01),
        ];
        bars(&path, "Gift_<Cards>", "N@10", &all).unwrap();
        let svg = std::fs::read_to_string(&path).unwrap();
        let title = "<title>N@10 on the test part of Gift &lt;Cards&gt;, higher is better</title>";
        assert!(svg.contains(title), "{svg}");
        for part in ["baseline", "control", "standard deviation over seeds", "0.4000", "0.10"] {
            assert!(svg.contains(part), "{part}");
        }
        let at = |name: &str| svg.find(&format!("\n{name}\n")).unwrap();
        assert!(at("GLTA") < at("GLTA random LLM") && at("GLTA random LLM") < at("Popularity"));
        // Without deviations the legend does not mention them.
        bars(&path, "x", "N@10", &all[..1]).unwrap();
        let svg = std::fs::read_to_string(&path).unwrap();
        assert!(!svg.contains("deviation") && !svg.contains("control"));
    }

    #[test]
    fn an_axis_has_four_to_nine_steps() {
        for most in [0.004, 0.031, 0.1, 0.41, 0.99, 7.0, 55.0] {
            let steps = most / tick(most);
            assert!((3.99..10.01).contains(&steps), "{most}: {steps}");
        }
    }
}
