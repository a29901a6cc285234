//! Plots the curves of a run as SVG files.

use std::path::Path;

use glta_graph::EpochReport;
use plotters::prelude::*;

use crate::Result;
use crate::files::save;

/// Colours that people with colour blindness can distinguish.
const COLORS: [RGBColor; 4] =
    [RGBColor(0, 114, 178), RGBColor(230, 159, 0), RGBColor(0, 158, 115), RGBColor(204, 121, 167)];

/// A named curve of points `(epoch, value)`.
type Curve = (&'static str, Vec<(f64, f64)>);

/// Plots the training loss over the epochs.
pub(super) fn loss(path: &Path, history: &[EpochReport]) -> Result<()> {
    let points = history.iter().map(|e| (e.epoch as f64, e.loss)).collect();
    draw(path, "LightGCN: training loss by epoch, lower is better", &[("loss", points)])
}

/// Plots the validation or test metrics over the epochs.
pub(super) fn metrics(path: &Path, history: &[EpochReport]) -> Result<()> {
    let curve = |name: &'static str| -> Curve {
        let points = history.iter().filter_map(|e| Some((e.epoch as f64, *e.metrics.get(name)?)));
        (name, points.collect())
    };
    let curves = ["N@10", "N@20", "R@20", "P@5"].map(curve);
    draw(path, "LightGCN: metrics on held-out items by epoch, higher is better", &curves)
}

fn draw(path: &Path, title: &str, curves: &[Curve]) -> Result<()> {
    let points = || curves.iter().flat_map(|(_, points)| points);
    let range = |f: fn(&(f64, f64)) -> f64| {
        let low = points().map(f).fold(f64::INFINITY, f64::min);
        let high = points().map(f).fold(f64::NEG_INFINITY, f64::max);
        if low < high { low..high } else { 0.0..1.0 }
    };
    let (epochs, values) = (range(|p| p.0), range(|p| p.1));
    let margin = 0.05 * (values.end - values.start);
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, (720, 420)).into_drawing_area();
        root.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&root)
            .caption(title, ("sans-serif", 18))
            .margin(12)
            // The margin has space for the last number of the axis, and for the legend next to the
            // curves.
            .margin_right(96)
            .x_label_area_size(36)
            .y_label_area_size(60)
            .build_cartesian_2d(epochs, values.start - margin..values.end + margin)?;
        let whole = |epoch: &f64| format!("{epoch:.0}");
        let mesh = &mut chart.configure_mesh();
        mesh.x_desc("epoch").light_line_style(WHITE).x_label_formatter(&whole).draw()?;
        for (nth, ((name, points), color)) in curves.iter().zip(COLORS).enumerate() {
            let line = LineSeries::new(points.iter().copied(), color.stroke_width(2));
            chart.draw_series(line)?;
            let y = 60 + 24 * nth as i32;
            let key = vec![(640, y), (660, y)];
            root.draw(&PathElement::new(key, color.stroke_width(2)))?;
            root.draw(&Text::new(*name, (666, y - 6), ("sans-serif", 13)))?;
        }
        root.present()?;
    }
    // Screen readers read the title of the image.
    let svg = svg.replacen('>', &format!(" role=\"img\"><title>{title}</title>"), 1);
    save(path, svg.as_bytes())
}
