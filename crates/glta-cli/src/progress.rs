//! Shows progress as bars on a terminal, and as plain lines elsewhere.

use std::io::IsTerminal;
use std::ops::ControlFlow;
use std::time::Instant;

use glta_align::Event;
use glta_linear::{LinearStage, LinearStep};
use indicatif::{HumanDuration, ProgressBar, ProgressStyle};

use crate::interrupt;
use crate::output::errln;

/// A display of progress: bars on a terminal, occasional plain lines elsewhere, nothing if quiet.
pub struct Reporter {
    mode: Mode,
    bar: Option<(String, ProgressBar)>,
    /// Name, start time and first unit of the work that plain lines show.
    work: Option<(String, Instant, u64)>,
    last_line: Instant,
}

#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Bars,
    Lines,
    Quiet,
}

/// Minimum number of seconds between two plain lines of the same work.
const LINE_EVERY: f64 = 10.0;

impl Reporter {
    /// Creates a reporter, which prints nothing if `quiet`.
    pub fn new(quiet: bool) -> Self {
        let mode = match (quiet, std::io::stderr().is_terminal()) {
            (true, _) => Mode::Quiet,
            (false, true) => Mode::Bars,
            (false, false) => Mode::Lines,
        };
        Self { mode, bar: None, work: None, last_line: Instant::now() }
    }

    /// Prints a line that stays above the progress bar.
    pub fn say(&mut self, line: &str) {
        match (self.mode, &self.bar) {
            (Mode::Quiet, _) => {}
            (_, Some((_, bar))) => bar.println(line),
            _ => errln!("{line}"),
        }
    }

    /// Shows that `done` of `total` units of `work` are done, with a note. Returns `Break` after
    /// Ctrl-C was pressed.
    pub fn advance(&mut self, work: &str, done: u64, total: u64, note: &str) -> ControlFlow<()> {
        self.show(work, done, total, note, "{pos}/{len}");
        interrupt::answer()
    }

    /// Shows a note about the current step of `work`. Returns `Break` after Ctrl-C was pressed.
    fn remark(&mut self, work: &str, note: &str) -> ControlFlow<()> {
        match (self.mode, &self.bar) {
            (Mode::Bars, Some((_, bar))) => bar.set_message(note.to_owned()),
            (Mode::Lines, _) if self.last_line.elapsed().as_secs_f64() >= LINE_EVERY => {
                self.last_line = Instant::now();
                errln!("{work}: {note}");
            }
            _ => {}
        }
        interrupt::answer()
    }

    /// Shows progress like [`advance`](Self::advance), with bytes as units.
    pub fn bytes(&mut self, work: &str, done: u64, total: u64, note: &str) -> ControlFlow<()> {
        self.show(work, done, total, note, "{bytes}/{total_bytes}");
        interrupt::answer()
    }

    fn show(&mut self, work: &str, done: u64, total: u64, note: &str, count: &str) {
        match self.mode {
            Mode::Quiet => {}
            Mode::Bars => {
                if self.bar.as_ref().is_none_or(|(name, _)| name != work) {
                    self.finish();
                    let bar = ProgressBar::new(total);
                    let style =
                        format!("{{prefix:18}} [{{bar:30}}] {count} {{msg}} ({{eta}} left)");
                    if let Ok(style) = ProgressStyle::with_template(&style) {
                        bar.set_style(style.progress_chars("=> "));
                    }
                    bar.set_prefix(work.to_owned());
                    self.bar = Some((work.to_owned(), bar));
                }
                if let Some((_, bar)) = &self.bar {
                    bar.set_length(total);
                    bar.set_position(done);
                    bar.set_message(note.to_owned());
                }
            }
            Mode::Lines => {
                let (since, from) = match &self.work {
                    Some((name, since, from)) if name == work && *from <= done => (*since, *from),
                    _ => {
                        self.work = Some((work.to_owned(), Instant::now(), done));
                        (Instant::now(), done)
                    }
                };
                if done == total || self.last_line.elapsed().as_secs_f64() >= LINE_EVERY {
                    self.last_line = Instant::now();
                    let mut line = format!("{work}: {done}/{total} {note}");
                    if done > from && done < total {
                        let ahead = (total - done) as f64 / (done - from) as f64;
                        let left = HumanDuration(since.elapsed().mul_f64(ahead));
                        line += &format!(" (about {left} left)");
                    }
                    errln!("{line}");
                }
            }
        }
    }

    /// Removes the progress bar.
    pub fn finish(&mut self) {
        interrupt::in_step(false);
        if let Some((_, bar)) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    /// Shows an event of an experiment. Returns `Break` after Ctrl-C was pressed.
    pub fn experiment(&mut self, event: &glta_eval::Event<'_>) -> ControlFlow<()> {
        use glta_eval::Event;

        interrupt::in_step(false);
        match *event {
            Event::Note(line) => self.say(line),
            Event::Work { work, done, total, note } => {
                return self.advance(work, done, total, note);
            }
            Event::Run(event) => return self.event(event),
            Event::Row(row) => {
                let ndcg = row.metrics.iter().find(|(name, _)| name.as_str() == "N@10");
                let ndcg = ndcg.or_else(|| row.metrics.iter().next());
                let shown = ndcg.map_or(String::new(), |(name, v)| format!(": test {name} {v:.4}"));
                self.say(&format!("{}, seed {}{shown}", row.system, row.seed));
            }
            _ => {}
        }
        interrupt::answer()
    }

    /// Shows an event of a run.
    pub fn event(&mut self, event: &Event) -> ControlFlow<()> {
        // Training saves its work if it is stopped at the end of a step.
        interrupt::in_step(matches!(event, Event::Step { .. } | Event::Evaluated { .. }));
        match *event {
            Event::Graph(ref epoch) => {
                let note = match epoch.validation {
                    Some(n) => format!("loss {:.4}, valid N@10 {n:.4}", epoch.loss),
                    None => format!("loss {:.4}", epoch.loss),
                };
                self.advance("LightGCN", epoch.epoch as u64, 0, &note)
            }
            Event::TextVectors { done, total } => {
                self.advance("text vectors", done as u64, total as u64, "")
            }
            Event::Linear(LinearStep { stage: LinearStage::Measure, done, total, .. }) => {
                self.remark("linear model", &format!("measured on {done}/{total} users"))
            }
            Event::Linear(LinearStep { stage: LinearStage::Temperature, done, total, .. }) => {
                self.remark("linear model", &format!("calibrated on {done}/{total} users"))
            }
            Event::Linear(LinearStep { stage, done, total, .. }) => {
                let (work, unit) = match stage {
                    LinearStage::TextNeighbours => ("text neighbours", "items"),
                    LinearStage::CoOccurrences => ("co-occurrences", "items"),
                    _ => ("linear model", "columns"),
                };
                self.advance(work, done, total, unit)
            }
            Event::Texts { done, total } => {
                self.advance("writing texts", done as u64, total as u64, "users")
            }
            Event::Step { stage, step, steps, loss } => {
                self.advance(&format!("{stage} stage"), step, steps, &format!("loss {loss:.4}"))
            }
            Event::Evaluated { stage, epoch, metric, value, best } => {
                let mark = if best { " *" } else { "" };
                self.say(&format!("{stage} stage, epoch {epoch}: {metric} {value:.4}{mark}"));
                interrupt::answer()
            }
            _ => interrupt::answer(),
        }
    }
}
