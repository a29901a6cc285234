//! Curves of a run as SVG files.

use std::path::Path;

use glta_graph::EpochReport;
use plotters::prelude::*;

use crate::Result;
use crate::files::save;

const COLORS: [RGBColor; 4] =
    [RGBColor(31, 119, 180), RGBColor(214, 39, 40), RGBColor(44, 160, 44), RGBColor(148, 103, 189)];

/// One named line of points `(epoch, value)`.
type Curve = (&'static str, Vec<(f64, f64)>);

/// The training loss of every epoch.
pub(super) fn loss(path: &Path, history: &[EpochReport]) -> Result<()> {
    let points = history.iter().map(|e| (e.epoch as f64, e.loss)).collect();
    draw(path, "training loss", &[("loss", points)])
}

/// The metrics of every evaluation.
pub(super) fn metrics(path: &Path, history: &[EpochReport]) -> Result<()> {
    let curve = |name: &'static str| -> Curve {
        let points = history.iter().filter_map(|e| Some((e.epoch as f64, *e.metrics.get(name)?)));
        (name, points.collect())
    };
    let curves = ["N@10", "N@20", "R@20", "P@5"].map(curve);
    draw(path, "ranking while training", &curves)
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
            .x_label_area_size(36)
            .y_label_area_size(60)
            .build_cartesian_2d(epochs, values.start - margin..values.end + margin)?;
        chart.configure_mesh().x_desc("epoch").light_line_style(WHITE).draw()?;
        for ((name, points), color) in curves.iter().zip(COLORS) {
            chart
                .draw_series(LineSeries::new(points.iter().copied(), color.stroke_width(2)))?
                .label(*name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], color));
        }
        chart.configure_series_labels().background_style(WHITE).border_style(BLACK).draw()?;
        root.present()?;
    }
    save(path, svg.as_bytes())
}
