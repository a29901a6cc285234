//! Bar charts as SVG files.

use std::path::{Path, PathBuf};

use plotters::prelude::*;

use glta_core::write_whole;

use crate::record::Record;
use crate::{Error, Result};

/// One bar: its name, its mean, and its deviation over the seeds.
pub(crate) type Bar = (String, f64, f64);

/// Horizontal bars with deviations.
pub(crate) fn bars(path: &Path, title: &str, metric: &str, bars: &[Bar]) -> Result<()> {
    let svg = draw(title, metric, bars)
        .map_err(|e| Error::Plot { path: path.to_owned(), problem: e.to_string() })?;
    write_whole(path, svg.as_bytes()).map_err(|e| Error::io(path, e))
}

fn draw(
    title: &str,
    metric: &str,
    bars: &[Bar],
) -> std::result::Result<String, Box<dyn std::error::Error>> {
    let most = bars.iter().map(|(_, mean, sd)| mean + sd).fold(0.0, f64::max);
    let height = 90 + 26 * bars.len() as u32;
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, (720, height)).into_drawing_area();
        root.fill(&WHITE)?;
        let rows = bars.len() as f64;
        let mut chart = ChartBuilder::on(&root)
            .caption(title, ("sans-serif", 17))
            .margin(10)
            .x_label_area_size(34)
            .y_label_area_size(130)
            .build_cartesian_2d(0.0..1.08 * most.max(1e-9), 0.0..rows)?;
        let name = |y: &f64| {
            let row = rows - 0.5 - y;
            let near = row.round();
            let known = (row - near).abs() < 0.01 && near >= 0.0;
            known.then(|| bars.get(near as usize)).flatten().map_or(String::new(), |b| b.0.clone())
        };
        chart
            .configure_mesh()
            .disable_y_mesh()
            .disable_y_axis()
            .y_labels(0)
            .x_desc(metric)
            .light_line_style(WHITE)
            .y_label_formatter(&name)
            .draw()?;
        let (plot_x, _) = chart.plotting_area().get_pixel_range();
        for (row, (label, mean, sd)) in bars.iter().enumerate() {
            let (low, high) = (rows - row as f64 - 0.85, rows - row as f64 - 0.15);
            let own = label.starts_with("GLTA") || label.starts_with("Linear");
            let color = if own { RGBColor(214, 39, 40) } else { RGBColor(120, 150, 180) };
            let bar = Rectangle::new([(0.0, low), (*mean, high)], color.filled());
            let middle = 0.5 * (low + high);
            let line = vec![(mean - sd, middle), (mean + sd, middle)];
            chart.draw_series(std::iter::once(bar))?;
            chart.draw_series(std::iter::once(PathElement::new(line, BLACK.stroke_width(2))))?;
            let (_, y) = chart.plotting_area().map_coordinate(&(0.0, middle));
            let style = ("sans-serif", 13).into_font().color(&BLACK);
            root.draw(&Text::new(label.clone(), (12, y - 6), style.clone()))?;
            let value = format!("{mean:.4}");
            let (x, _) = chart.plotting_area().map_coordinate(&(0.0, middle));
            root.draw(&Text::new(value, (x.max(plot_x.start) + 6, y - 6), style))?;
        }
        root.present()?;
    }
    Ok(svg)
}

impl Record {
    /// Draws a metric of all systems into `file` in the experiment's folder, and returns its
    /// path.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn plot(&self, metric: &str, file: &str) -> Result<PathBuf> {
        let bar = |system: &str| {
            let value = self.value(system, metric)?;
            Some((system.to_owned(), value.mean, value.deviation))
        };
        let found: Vec<Bar> = self.systems().into_iter().filter_map(bar).collect();
        let path = self.folder.join(file);
        bars(&path, &format!("{}: test {metric}", self.dataset.name), metric, &found)?;
        Ok(path)
    }
}
