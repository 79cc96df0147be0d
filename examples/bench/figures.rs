//! Samples, what they come to, and how they are printed.

use std::{
    io::{self, Write},
    time::Duration,
};

/// Many measurements of one thing, in seconds.
#[derive(Debug)]
pub(crate) struct Samples {
    pub(crate) name: String,
    seconds: Vec<f64>,
}

impl Samples {
    pub(crate) fn of(name: impl Into<String>) -> Self {
        Self { name: name.into(), seconds: Vec::new() }
    }

    pub(crate) fn add(&mut self, took: Duration) {
        self.seconds.push(took.as_secs_f64());
    }

    pub(crate) fn len(&self) -> usize {
        self.seconds.len()
    }

    /// In seconds; of an even number, the upper one of the two in the middle.
    pub(crate) fn median(&self) -> f64 {
        self.at(50)
    }

    /// In seconds.
    pub(crate) fn p95(&self) -> f64 {
        self.at(95)
    }

    fn at(&self, percent: usize) -> f64 {
        let mut sorted = self.seconds.clone();
        sorted.sort_by(f64::total_cmp);
        let place = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
        sorted.get(place).copied().unwrap_or(f64::NAN)
    }
}

/// `1.23 ms`.
pub(crate) fn milliseconds(seconds: f64) -> String {
    format!("{:.2} ms", seconds * 1e3)
}

/// `123 µs`.
pub(crate) fn microseconds(seconds: f64) -> String {
    format!("{:.0} µs", seconds * 1e6)
}

/// A table with a title; the first column is text, the others are figures.
#[derive(Debug)]
pub(crate) struct Table {
    title: String,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(title: impl Into<String>, columns: &[&str]) -> Self {
        let mut table = Self { title: title.into(), rows: Vec::new() };
        table.row(columns.iter().map(ToString::to_string));
        table
    }

    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// The usual row: what, median, 95th percentile, how many.
    pub(crate) fn samples(&mut self, samples: &Samples) {
        let Samples { name, .. } = samples;
        let figures = [milliseconds(samples.median()), milliseconds(samples.p95()), samples.len().to_string()];
        self.row([name.clone()].into_iter().chain(figures));
    }

    /// On stdout, as GitHub reads tables.
    pub(crate) fn print(&self) -> io::Result<()> {
        let mut out = io::stdout().lock();
        writeln!(out, "\n**{}**\n", self.title)?;
        let widths = self.widths();
        for (number, row) in self.rows.iter().enumerate() {
            writeln!(out, "| {} |", line(row, &widths))?;
            if number == 0 {
                let left = widths.first().map(|&width| "-".repeat(width));
                let right = widths.iter().skip(1).map(|&width| "-".repeat(width.saturating_sub(1)) + ":");
                writeln!(out, "| {} |", left.into_iter().chain(right).collect::<Vec<_>>().join(" | "))?;
            }
        }
        writeln!(out)
    }

    /// Of each column, in characters.
    fn widths(&self) -> Vec<usize> {
        let mut widths = Vec::new();
        for row in &self.rows {
            widths.resize(widths.len().max(row.len()), 3);
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        widths
    }
}

/// The cells of a row, the first to the left and the others to the right.
fn line(row: &[String], widths: &[usize]) -> String {
    let cells = row.iter().map(String::as_str).chain(std::iter::repeat(""));
    let cells = widths.iter().zip(cells).enumerate().map(|(column, (&width, cell))| match column {
        0 => format!("{cell:width$}"),
        _ => format!("{cell:>width$}"),
    });
    cells.collect::<Vec<_>>().join(" | ")
}

/// What is going on, on stderr.
pub(crate) fn progress(text: &str) {
    // Nobody who has closed stderr wants to know.
    let _ = writeln!(io::stderr(), "    {text}");
}
