//! How far the pipes are, while `run` runs: a live view where a person looks, log lines elsewhere.

mod rates;
pub(super) mod view;

use std::collections::HashMap;
use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::fmt::writer::BoxMakeWriter;

use self::rates::Rates;
use crate::api::Pipes;
use crate::pipe::document::PipeDocument;
use crate::telemetry::LogFormat;

/// Often enough to look alive, and to see states that last only moments.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// What people expect of a tool whose output goes to a file.
const LINE_EVERY: Duration = Duration::from_secs(10);
/// Tables shown of a pipe; more would fill the terminal.
const TABLES_SHOWN_MAX: usize = 12;

/// Standard error, where either log lines go alone or a live view below them.
#[derive(Clone)]
pub(super) struct Screen(Option<MultiProgress>);

impl Screen {
    /// A live view where standard error is a terminal and log lines are for people.
    pub(super) fn new(format: LogFormat) -> Self {
        let live = format == LogFormat::Text && io::stderr().is_terminal();
        Self(live.then(MultiProgress::new))
    }

    /// Where the log must write to stay clear of the view.
    pub(super) fn log_writer(&self) -> Option<BoxMakeWriter> {
        let bars = self.0.clone()?;
        Some(BoxMakeWriter::new(move || AboveBars(bars.clone())))
    }

    /// Shows the pipes until `end`, then once more.
    pub(super) async fn show<P: Pipes>(self, pipes: Arc<P>, end: CancellationToken) {
        let mut ticks = tokio::time::interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut rates = Rates::default();
        let mut live = self.0.map(LiveView::new);
        let mut plain = PlainLines::default();
        loop {
            let ended = tokio::select! {
                _ = ticks.tick() => false,
                () = end.cancelled() => true,
            };
            let documents = pipes.pipes();
            rates.observe(&documents, Instant::now());
            match &mut live {
                Some(live) => live.draw(&documents, &rates),
                None => plain.print(&documents, &rates, ended),
            }
            if ended {
                return;
            }
        }
    }
}

/// Writes log lines above the bars.
struct AboveBars(MultiProgress);

impl Write for AboveBars {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.suspend(|| io::stderr().lock().write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().lock().flush()
    }
}

/// One bar a line; a bar is no more than its text here.
struct LiveView {
    bars: MultiProgress,
    lines: Vec<ProgressBar>,
    style: ProgressStyle,
}

impl LiveView {
    fn new(bars: MultiProgress) -> Self {
        Self {
            bars,
            lines: Vec::new(),
            style: ProgressStyle::with_template("{wide_msg}").expect("the template is a constant"),
        }
    }

    fn draw(&mut self, pipes: &[PipeDocument], rates: &Rates) {
        let texts: Vec<String> = pipes
            .iter()
            .flat_map(|pipe| view::lines(pipe, rates, TABLES_SHOWN_MAX))
            .collect();
        while self.lines.len() > texts.len() {
            if let Some(line) = self.lines.pop() {
                self.bars.remove(&line);
            }
        }
        while self.lines.len() < texts.len() {
            let line = ProgressBar::new_spinner().with_style(self.style.clone());
            self.lines.push(self.bars.add(line));
        }
        for (line, text) in self.lines.iter().zip(texts) {
            line.set_message(text);
            line.tick();
        }
    }
}

impl Drop for LiveView {
    /// Leaves the last picture standing.
    fn drop(&mut self) {
        for line in &self.lines {
            line.abandon();
        }
    }
}

/// A line for each pipe every ten seconds, and whenever a pipe's state or reasons change.
#[derive(Default)]
struct PlainLines {
    shown: HashMap<String, (String, Instant)>,
}

impl PlainLines {
    fn print(&mut self, pipes: &[PipeDocument], rates: &Rates, last: bool) {
        for pipe in pipes {
            let standing = view::standing(pipe);
            let due = match self.shown.get(&pipe.pipe) {
                Some((shown, at)) => *shown != standing || at.elapsed() >= LINE_EVERY || last,
                None => true,
            };
            if due {
                tracing::info!(
                    pipe = pipe.pipe,
                    state = pipe.state,
                    "{}",
                    view::summary(pipe, rates)
                );
                self.shown
                    .insert(pipe.pipe.clone(), (standing, Instant::now()));
            }
        }
    }
}
