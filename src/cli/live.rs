//! The tree on a terminal, drawn again as its counts change; log lines scroll above it.

use std::io::Write;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::telemetry;

/// A drawing of several lines at the bottom of the terminal, on standard error.
pub(super) struct Live {
    bars: MultiProgress,
    lines: Vec<ProgressBar>,
    colour: bool,
}

impl Live {
    /// Begins an empty drawing, and sends log lines above it.
    pub(super) fn new() -> Self {
        let bars = MultiProgress::new();
        let above = bars.clone();
        telemetry::set_screen(Some(Box::new(move |line| above.suspend(|| std::io::stderr().lock().write_all(line)))));
        let colour = anstream::AutoStream::choice(&std::io::stderr()) != anstream::ColorChoice::Never;
        Self { bars, lines: Vec::new(), colour }
    }

    /// Draws these lines, which may have ANSI colours.
    pub(super) fn draw(&mut self, lines: &[String]) {
        while self.lines.len() > lines.len() {
            if let Some(line) = self.lines.pop() {
                self.bars.remove(&line);
            }
        }
        while self.lines.len() < lines.len() {
            let line = ProgressBar::new_spinner();
            // Cut at the width of the terminal: a line that wraps would be drawn again and again.
            if let Ok(style) = ProgressStyle::with_template("{wide_msg}") {
                line.set_style(style);
            }
            self.lines.push(self.bars.add(line));
        }
        for (bar, line) in self.lines.iter().zip(lines) {
            match self.colour {
                true => bar.set_message(line.clone()),
                false => bar.set_message(anstream::adapter::strip_str(line).to_string()),
            }
        }
    }
}

impl Drop for Live {
    /// Takes the drawing away.
    fn drop(&mut self) {
        telemetry::set_screen(None);
        // Nothing else is drawn any more if the terminal is gone.
        let _ = self.bars.clear();
    }
}
